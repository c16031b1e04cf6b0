"""Drift: an alarm soon after a change, and no alarm before."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from engine.data import Detections
from engine.errors import ConfigError
from pipelines.cli import app
from pipelines.learning.dataset.project import Project
from pipelines.learning.json_files import write_json
from pipelines.learning.monitor.drift import DriftMonitor, FrameFacts, frame_facts, make_reference, psi, reference_from
from pipelines.learning.monitor.watch import WatchRequest, save_reference, watch
from tests.freshness.engine_process import EngineProcess
from tests.learning.models import boxes_model


def scene(rng: np.random.Generator, *, light: float = 0.6, classes: tuple[float, ...] = (0.7, 0.2, 0.1)) -> FrameFacts:
    """Objects and light of a frame, each frame like the one before in nothing but its distribution."""
    count = int(rng.poisson(4))
    size = np.sqrt(rng.uniform(0.01, 0.1, count))
    class_id = rng.choice(3, count, p=classes).astype(float)
    return FrameFacts(rng.beta(5, 2, count), class_id, size, float(np.clip(rng.normal(light, 0.05), 0, 1)))


@pytest.mark.parametrize("seed", range(10))
def test_dark_after_bright_raises_an_alarm_within_thirty_frames_and_none_before(seed: int) -> None:
    rng = np.random.default_rng(seed)
    monitor = DriftMonitor(make_reference([scene(rng) for _ in range(100)], 4))
    before = [monitor.update(scene(rng)) for _ in range(200)]
    after = [monitor.update(scene(rng, light=0.2)) for _ in range(200)]
    assert not any(before)
    assert "light" in {name for fresh in after[:30] for name in fresh}
    assert {name for fresh in after for name in fresh} == {"light"}


@pytest.mark.parametrize("seed", range(3))
def test_other_classes_and_lower_scores_raise_theirs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    monitor = DriftMonitor(make_reference([scene(rng) for _ in range(100)], 4))
    for _ in range(60):
        monitor.update(scene(rng, classes=(0.1, 0.2, 0.7)))
    assert monitor.raised == {"classes"}


def test_the_index_is_that_of_its_definition_and_a_reference_survives_json() -> None:
    assert psi([70, 30], [40, 60]) == pytest.approx((0.4 - 0.7) * np.log(0.4 / 0.7) + (0.6 - 0.3) * np.log(2))
    rng = np.random.default_rng(0)
    reference = make_reference([scene(rng) for _ in range(50)], 3)
    assert reference_from(json.loads(json.dumps(reference.as_dict()))).as_dict() == reference.as_dict()
    for wrong in ({}, {"edges": {"light": [1]}, "counts": {"light": [1]}, "frames": 1}, [1], {"edges": 1, "counts": 2}):
        with pytest.raises(ConfigError, match="not a reference"):
            reference_from(wrong)
    with pytest.raises(ConfigError, match="at least 10"):
        make_reference([], 3)


def test_sizes_and_light_are_shares() -> None:
    facts = frame_facts(Detections([[0, 0, 50, 50]], [0.5], [1]), (100, 100), np.full((100, 100, 3), 51, np.uint8))
    assert facts.sizes.tolist() == [0.5]
    assert facts.light == pytest.approx(0.2)


def test_a_clip_that_turns_dark_is_noticed_on_the_command_line(tmp_path: Path) -> None:
    """Detecting in this process also measures the light; the figures go to Prometheus, too."""
    from tests.learning.models import boxes_model

    rng, folder = np.random.default_rng(0), tmp_path / "frames"
    folder.mkdir()
    for number in range(120):
        level = 160 if number < 80 else 40
        picture = np.clip(rng.normal(level + rng.normal(0, 4), 10, (64, 64, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:03d}.png"), picture)
    model = boxes_model(tmp_path / "m.onnx", ("a", "b"), [[4, 4, 30, 30, 0.9, 0]], side=64)
    words = ["monitor", str(folder), "--model", str(model), "--learn", "40", "--json"]
    done = CliRunner().invoke(app, [*words, "--prometheus", str(tmp_path / "drift.prom")])
    assert done.exit_code == 0, done.output
    result = json.loads(done.output.splitlines()[-1])
    assert result["frames"] == 80
    [alarm] = result["alarms"]
    assert set(alarm) == {"frame", "light"}
    assert 40 < alarm["frame"] <= 70
    assert 'framewire_drift_psi{quantity="light"}' in (tmp_path / "drift.prom").read_text()


def stream_line(number: int, name: str) -> str:
    """A line of a stream's file: a frame with one object."""
    line = {
        "schema": "framewire.frame/1.1",
        "engine_id": "e",
        "run_epoch": 1,
        "source_id": "gate",
        "stream_epoch": 0,
        "captured_utc_ns": 0,
        "captured_source": "file",
        "captured_error_ns": None,
        "pts_ns": None,
        "published_utc_ns": 0,
        "latency_ms": 1.0,
        "stage_ms": {},
        "width": 100,
        "height": 100,
        "dropped": {},
        "model": "m",
    }
    box = {"track_id": 1, "class_id": 0, "class_name": name, "score": 0.9, "xyxy": [0, 0, 30, 30]}
    return json.dumps({**line, "seq": number, "frame_id": number, "objects": [box]})


def test_the_stream_of_a_run_is_watched_from_its_file(tmp_path: Path) -> None:
    rng, lines = np.random.default_rng(0), []
    for number in range(200):
        name = "person" if rng.random() < (0.9 if number < 120 else 0.1) else "dog"
        lines.append(stream_line(number, name))
    file = tmp_path / "stream.jsonl"
    file.write_text("\n".join(lines))
    alarms: list[int] = []
    request = WatchRequest(str(file), learn=60)
    result = watch(request, lambda number, fresh: alarms.append(number), lambda monitor: None)
    assert result["in_alarm"] == ["classes"]
    assert 60 < alarms[0] <= 90
    broken = tmp_path / "broken.jsonl"
    broken.write_text("no JSON")
    with pytest.raises(ConfigError, match="JSON lines"):
        watch(WatchRequest(str(broken)), lambda *_: None, lambda _: None)


def test_a_reference_states_its_classes_in_whatever_order_the_stream_shows_them(tmp_path: Path) -> None:
    """The usual mix in another order at the start of a stream does not count as drift."""
    file, names = tmp_path / "stream.jsonl", ("person", "car", "dog")
    file.write_text("\n".join(stream_line(n, names[::-1][n] if n < 3 else names[n % 10 > 8]) for n in range(120)))
    usual = [
        FrameFacts(np.array([np.float32(0.9)]), np.array([float(n % 10 > 8)]), np.array([0.3])) for n in range(200)
    ]
    write_json(tmp_path / "reference.json", make_reference(usual, 4, names).as_dict())
    request = WatchRequest(str(file), against=tmp_path / "reference.json")
    assert watch(request, lambda *_: None, lambda _: None)["alarms"] == []
    older = make_reference(usual, 4).as_dict()
    del older["class_names"]  # as releases before this wrote it
    assert reference_from(older).class_names == ()


def test_a_learnt_reference_that_is_saved_knows_the_classes(tmp_path: Path) -> None:
    file = tmp_path / "stream.jsonl"
    file.write_text("\n".join(stream_line(n, "dog" if n % 4 else "cat") for n in range(40)))
    save_reference(WatchRequest(str(file), learn=20), tmp_path / "r.json")
    assert reference_from(json.loads((tmp_path / "r.json").read_text())).class_names == ("cat", "dog")


def test_the_classes_of_a_model_are_counted_by_name(tmp_path: Path) -> None:
    """A saved reference has the model's names; another model, or the stream of one, may number them differently."""
    rows = [[10, 10, 90, 90, 0.9, 0], [100, 100, 180, 180, 0.9, 2]]
    first = boxes_model(tmp_path / "first.onnx", ("person", "car", "dog"), rows)
    clip, place = "synthetic://?width=320&height=320&count=60", tmp_path / "reference.json"
    save_reference(WatchRequest(clip, str(first), learn=20), place)
    assert reference_from(json.loads(place.read_text())).class_names == ("person", "car", "dog")
    rows = [[*row[:5], 2 - row[5]] for row in rows]
    other = boxes_model(tmp_path / "other.onnx", ("dog", "lorry", "person"), rows)
    found = watch(WatchRequest(clip, str(other), place), lambda *_: None, lambda _: None)
    assert (found["frames"], found["psi"]["classes"]) == (60, 0.0)


def test_a_reference_is_not_saved_while_collecting(tmp_path: Path) -> None:
    words = ["tcp://127.0.0.1:5", "--save", str(tmp_path / "r.json"), "--collect", str(tmp_path / "a.fwm")]
    done = CliRunner().invoke(app, ["monitor", *words])
    assert done.exit_code == 2
    assert "leave one out" in done.output


def test_an_alarm_opens_the_collection_of_images(tmp_path: Path) -> None:
    many = [FrameFacts(np.full(40, 0.9), np.zeros(40), np.full(40, 0.2)) for _ in range(100)]
    write_json(tmp_path / "reference.json", make_reference(many, 2, ["moving"]).as_dict())
    settings = ("publish.pictures.images_per_s=20", "sources.0.realtime=true")
    words = ["--against", str(tmp_path / "reference.json"), "--collect", str(tmp_path / "next.fwm"), "--json"]
    with EngineProcess({"gate": "synthetic://?count=100000&fps=20"}, *settings) as engine:
        done = CliRunner().invoke(app, ["monitor", engine.address, "--count", "120", *words])
    assert done.exit_code == 0, done.output
    result = json.loads(done.output.splitlines()[-1])
    assert result["collected"] >= 1
    project = Project(tmp_path / "next.fwm")
    assert project.classes == ("moving",)
    assert len(project.images("inbox")) == result["collected"]


def test_collecting_needs_a_stream_with_classes(tmp_path: Path) -> None:
    for words, why in (
        (["clip.mp4", "--model", "demo"], "needs the images of a running engine"),
        (["tcp://127.0.0.1:5"], "--classes"),
    ):
        done = CliRunner().invoke(app, ["monitor", *words, "--collect", str(tmp_path / "a.fwm")])
        assert isinstance(done.exception, ConfigError)
        assert why in str(done.exception)
