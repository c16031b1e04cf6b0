"""No output of a run shows what privacy hides: a pattern on people is looked for in everything that a run writes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from engine.data import Packet
from engine.errors import ConfigError
from engine.sinks.window import Window
from engine.subscriber import NoMessageError, Subscriber
from pipelines.build.pipeline import build_pipeline
from pipelines.build.sinks import build_sinks
from pipelines.cli import app
from pipelines.config.file import load_config
from pipelines.running.reconfigure import Reconfigurer
from tests.fakes import ListSink
from tests.imaging.markers import READABLE, FindsPeople, correlation, holds_pixels, scene
from tests.media import encode_clip

FRAMES = 16
BLIND = (9, 10, 11)  # images on which the detector finds nobody
MODES = ("blur", "silhouette", "no_images")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = [scene(number) for number in range(FRAMES)]
    return encode_clip(tmp_path_factory.mktemp("input") / "walk.mp4", images, rate=10, options={"crf": "4"})


def configured(clip: Path, **values: Any) -> Any:
    fixed = {"sources": [{"uri": str(clip), "source_id": "gate"}], "publish.address": "none"}
    return load_config(None, {**fixed, **values})


def run(clip: Path, folder: Path, **values: Any) -> list[Packet]:
    """Run with every output that can exist here, and return the packets that a program would get."""
    config = configured(
        clip, **{"output.save": str(folder / "out.mp4"), "output.jsonl": str(folder / "o.jsonl")}, **values
    )
    pipeline = build_pipeline(config, make_detector=lambda *_: FindsPeople(BLIND))
    with pipeline:
        return list(pipeline)


def pictures_in(folder: Path) -> Iterator[np.ndarray]:
    for path in folder.rglob("*"):
        if path.suffix == ".mp4":
            with av.open(str(path)) as video:
                yield from (frame.to_ndarray(format="bgr24") for frame in video.decode(video=0))
        elif path.suffix in (".jpg", ".png"):
            yield cv2.imread(str(path))


def test_without_privacy_the_pattern_is_read_in_every_output(clip: Path, tmp_path: Path) -> None:
    packets = run(clip, tmp_path)
    assert min(correlation(packet.frame.image) for packet in packets) > READABLE
    assert min(map(correlation, pictures_in(tmp_path))) > READABLE


@pytest.mark.parametrize("mode", MODES)
def test_with_privacy_it_is_read_in_none(
    mode: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    packets = run(clip, tmp_path, **{"privacy.mode": mode})
    assert len(packets) == FRAMES
    assert max(correlation(packet.frame.image) for packet in packets) < READABLE
    saved = list(pictures_in(tmp_path))
    assert len(saved) == FRAMES
    assert max(map(correlation, saved)) < READABLE
    assert not any(holds_pixels(path) for path in tmp_path.rglob("*") if path.is_file())


def test_published_pictures_and_their_recording_do_not_show_it(clip: Path, tmp_path: Path, free_port: int) -> None:
    address = f"tcp://127.0.0.1:{free_port}"
    pictures = {"images_per_s": 60, "crops": True, "max_side": 320, "quality": 100}
    found: dict[str, float] = {}
    for mode in ("none", "blur"):
        config = configured(clip, **{"privacy.mode": mode, "publish.address": address, "publish.pictures": pictures})
        config = config.model_copy(update={"sources": [config.sources[0].model_copy(update={"realtime": True})]})
        pipeline = build_pipeline(config, make_detector=lambda *_: FindsPeople())
        jpegs: list[tuple[str, np.ndarray, list[str]]] = []
        with pipeline, Subscriber(address, ("v1/image/", "v1/crop/")) as subscriber:
            pipeline.start()
            while not pipeline.wait(0.0):
                with suppress(NoMessageError):
                    message = subscriber.receive(0.05)
                    image = cv2.imdecode(np.frombuffer(message.jpeg, np.uint8), cv2.IMREAD_COLOR)
                    jpegs.append((type(message).__name__, image, message.blurred))
        assert jpegs
        found[mode] = max(correlation(image) for _, image, _ in jpegs)
        assert all(blurred == ([] if mode == "none" else ["person"]) for _, _, blurred in jpegs)
    assert found["none"] > READABLE > found["blur"]


def test_images_of_events_do_not_show_it(clip: Path, tmp_path: Path) -> None:
    zone = {"points": [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]}
    rule = {"name": "seen", "kind": "presence", "zone": "all", "for_s": 0.2, "severity": "alert"}
    found = {}
    for mode in ("none", *MODES):
        folder = tmp_path / mode
        config = configured(clip, **{"privacy.mode": mode, "events.folder": str(folder), "rules": [rule]})
        source = load_config(None, {"sources": [{"uri": str(clip), "source_id": "gate", "zones": {"all": zone}}]})
        config = config.model_copy(update={"sources": source.sources})
        with build_pipeline(config, make_detector=lambda *_: FindsPeople()) as pipeline:
            list(pipeline)
        images = list(pictures_in(folder))
        assert len(images) >= 2, "a trigger and a best image"
        found[mode] = max(map(correlation, images))
        assert mode == "none" or not any(holds_pixels(path) for path in folder.rglob("*") if path.is_file())
    assert found.pop("none") > READABLE > max(found.values())


def test_the_window_and_other_sinks_get_hidden_frames(clip: Path) -> None:
    sink = ListSink(blocking=False)
    config = configured(clip, **{"privacy.mode": "blur", "output.show": True})
    [window] = [each for each in build_sinks(config, 1, None) if isinstance(each, Window)]
    pipeline = build_pipeline(configured(clip, **{"privacy.mode": "blur"}), make_detector=lambda *_: FindsPeople(BLIND))
    pipeline.sinks = (sink,)
    pipeline.run()
    assert len(sink.packets) == FRAMES
    assert window._draw is not None
    assert max(correlation(window._draw(packet)) for packet in sink.packets) < READABLE
    assert sink.events == ["open", "connecting", "live", "ended", "close"]
    assert sum(pipeline.stats.source("gate").dropped.values()) == 0


def test_a_delay_loses_no_frame_and_covers_a_late_first_detection(clip: Path) -> None:
    config = configured(clip, **{"privacy.mode": "blur", "privacy.delay_s": 0.5})
    pipeline = build_pipeline(config, make_detector=lambda *_: FindsPeople(range(4)))
    with pipeline:
        packets = list(pipeline)
    assert [packet.frame.frame_id for packet in packets] == list(range(FRAMES))
    assert max(correlation(packet.frame.image) for packet in packets) < READABLE


def test_hiding_that_fails_withholds_the_frame(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr("engine.imaging.privacy.mosaic", fails)
    packets = run(clip, tmp_path, **{"privacy.mode": "blur"})
    assert len(packets) == FRAMES
    assert not any(packet.frame.image.any() for packet in packets)
    assert max(map(correlation, pictures_in(tmp_path))) < READABLE


def test_what_cannot_obey_is_refused_by_check(clip: Path, tmp_path: Path) -> None:
    text = f"sources: [{{uri: 'rtsp://192.0.2.1/x', record: {{folder: '{tmp_path}'}}}}]\nprivacy: {{mode: blur}}\n"
    (tmp_path / "c.yaml").write_text(text)
    result = CliRunner().invoke(app, ["check", str(tmp_path / "c.yaml")])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith("sources.0.record: ")
    assert "privacy.raw: allow" in str(result.exception)
    (tmp_path / "c.yaml").write_text(text.replace("blur}", "blur, raw: allow}"))
    assert CliRunner().invoke(app, ["check", str(tmp_path / "c.yaml")]).exit_code == 0


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"privacy.mode": "blur", "privacy.classes": ["pidgeon"]}, 'privacy.classes: unknown class "pidgeon"'),
        ({"privacy.mode": "blur", "privacy.regions": [[(0, 0), (2, 0), (0, 2)]]}, "privacy: privacy region"),
        ({"privacy.mode": "no_images", "publish.pictures": {}}, "publish.pictures"),
    ],
)
def test_a_mistake_is_refused_with_its_key(clip: Path, values: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build_pipeline(configured(clip, **values), make_detector=lambda *_: FindsPeople())


def test_a_source_has_its_own_privacy(clip: Path) -> None:
    both = [
        {"uri": str(clip), "source_id": "gate", "privacy": {"mode": "blur"}},
        {"uri": str(clip), "source_id": "yard"},
    ]
    pipeline = build_pipeline(configured(clip, sources=both), make_detector=lambda *_: FindsPeople())
    best: dict[str, float] = {}
    with pipeline:
        for packet in pipeline:
            name = packet.frame.source_id
            best[name] = max(best.get(name, 0.0), correlation(packet.frame.image))
    assert best["gate"] < READABLE < best["yard"]
    assert pipeline.privacy is not None
    assert pipeline.privacy.summary() == {"gate": {"hidden": FRAMES, "withheld": 0}}


def test_nobody_switches_it_off_from_outside(clip: Path) -> None:
    values = {"privacy.mode": "blur", "control.address": "ipc://unused"}
    config = configured(clip, **values)
    pipeline = build_pipeline(config, make_detector=lambda *_: FindsPeople())
    changes = Reconfigurer(pipeline, config, lambda *_: FindsPeople())
    with pytest.raises(ConfigError, match="privacy cannot change"):
        changes.set("privacy.mode", "none")
    with pytest.raises(ConfigError, match="only in the configuration file"):
        changes.set("sources.0.privacy", {"mode": "none"})
    with pytest.raises(ConfigError, match="only in the configuration file"):
        changes.add({"uri": str(clip), "source_id": "other", "privacy": {"mode": "none"}})


def test_detected_images_are_saved_with_people_hidden(tmp_path: Path) -> None:
    from pipelines.build.privacy import build_privacy
    from pipelines.models.detect_images import detect_to_files

    for number in (2, 8):
        cv2.imwrite(str(tmp_path / f"{number}.png"), scene(number))
    hide = build_privacy(load_config(None, {"privacy.mode": "blur"}))
    assert hide is not None
    results = list(detect_to_files(FindsPeople(), [str(tmp_path)], save=tmp_path / "out", hide=hide.hide))
    assert [len(result["objects"]) for result in results] == [1, 2]
    assert max(map(correlation, pictures_in(tmp_path / "out"))) < READABLE


def test_the_summary_and_the_command_line_tell_it(clip: Path) -> None:
    arguments = ["run", "--source", f"gate={clip}", "--model", "motion", "--publish", "none", "--json"]
    result = CliRunner().invoke(app, [*arguments, "--privacy", "blur"])
    assert "privacy.classes: unknown class" in str(result.exception)
    result = CliRunner().invoke(app, [*arguments, "--privacy", "blur", "--set", "privacy.classes=[motion]"])
    assert result.exit_code == 0, result.output
    [figures] = json.loads(result.stdout.splitlines()[-1])["privacy"].values()
    assert figures["hidden"] > 0  # the motion detector needs a few frames to begin
    assert figures["withheld"] == 0


def test_a_grid_and_its_heat_do_not_show_it(clip: Path, tmp_path: Path) -> None:
    both = [{"uri": str(clip), "source_id": name} for name in ("gate", "yard")]
    save = {
        "pipeline.max_frames": 6,
        "output.save": str(tmp_path / "grid.mp4"),
        "output.grid": True,
        "output.overlay": {"heat": True},
    }
    best = {}
    for mode in ("none", "blur"):
        config = configured(clip, sources=both, **{**save, "privacy.mode": mode})
        build_pipeline(config, make_detector=lambda *_: FindsPeople()).run()
        places = (slice(181, 898), slice(2, 958)), (slice(181, 898), slice(962, 1918))
        halves = [picture[place] for picture in pictures_in(tmp_path) for place in places]
        best[mode] = max(correlation(cv2.resize(half, (320, 240), interpolation=cv2.INTER_AREA)) for half in halves)
    assert best["none"] > READABLE > best["blur"]


def test_a_run_that_is_stopped_accounts_for_every_frame(clip: Path) -> None:
    sources = [{"uri": str(clip), "source_id": "gate", "realtime": True, "loop": True}]
    config = configured(clip, sources=sources, **{"privacy.mode": "blur", "privacy.delay_s": 0.8})
    pipeline = build_pipeline(config, make_detector=lambda *_: FindsPeople())
    with pipeline:
        for packet in pipeline:
            assert packet.hidden is not None
            if packet.frame.frame_id >= 4:
                break
    stats = pipeline.stats.source("gate")
    assert stats.captured == stats.published + sum(stats.dropped.values())
