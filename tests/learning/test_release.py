"""The gate, the locked test set, the model card, and deployment to a running engine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.errors import ConfigError
from pipelines.cli import app
from pipelines.learning.lock import LOCK, check_lock, lock_test
from pipelines.learning.model_facts import facts_of
from pipelines.learning.release.deploy import DeployRequest, deploy
from pipelines.learning.release.gate import check_gate, flat
from pipelines.learning.release.release import ReleaseRequest, release
from pipelines.models.inspect import describe
from pipelines.running.control import ask
from tests.learning.models import boxes_model
from tests.learning.shapes import NAMES, write_shapes

SCORES = {"map50_95": 0.5, "ms_per_image": 10.0, "per_class": {"person": {"ap50": 0.6}, "a.b": {"ap50": 0.1}}}


@pytest.mark.parametrize(
    ("condition", "released", "passes"),
    [
        (">= released", 0.5, True),
        (">= released", 0.51, False),
        (">= released + 0.00", 0.5, True),
        (">= released - .01", 0.51, True),
        ("<= 1.2 * released", 0.4, False),
        (">= .60", None, False),
        (">= released", None, True),
        (">= .6 * clean", None, True),
    ],
)
def test_a_condition_is_read_and_judged(condition: str, released: float | None, passes: bool) -> None:
    before = None if released is None else {"map50_95": released}
    [check] = check_gate({"map50_95": condition}, SCORES, before)
    assert check.passes is passes


def test_scores_of_classes_are_found_by_their_name_and_nonsense_is_refused() -> None:
    assert flat(SCORES, "person.ap50") == 0.6
    assert flat(SCORES, "a.b.ap50") == 0.1
    for name, condition in (
        ("person", ">= 1"),
        ("none.ap50", ">= 1"),
        ("map50_95", "> 1"),
        ("map50_95", ">= import os"),
    ):
        with pytest.raises(ConfigError, match="gate: "):
            check_gate({name: condition}, SCORES, None)


@pytest.fixture
def tested(tmp_path: Path) -> Path:
    """A data set whose test part shows the same disc in the middle of each image."""
    folder = write_shapes(tmp_path / "data", 0, 12)
    for kind in ("images", "labels"):
        (folder / kind / "val").rename(folder / kind / "test")
    for path in (folder / "labels" / "test").iterdir():
        path.write_text("0 0.5 0.5 0.25 0.25")
    return folder


def test_a_release_is_gated_stamped_and_described(tested: Path, tmp_path: Path) -> None:
    out = tmp_path / "releases"
    exact = boxes_model(tmp_path / "good.onnx", NAMES, [[120, 120, 200, 200, 0.9, 0]])
    worse = boxes_model(tmp_path / "worse.onnx", NAMES, [[128, 120, 208, 200, 0.9, 0]])
    first = release(ReleaseRequest(exact, tested, out, "Apache-2.0"))
    assert first["released"]
    assert first["scores"]["map50_95"] > 0.9
    assert not release(ReleaseRequest(worse, tested, out, "Apache-2.0"))["released"]
    assert release(ReleaseRequest(exact, tested, out, "Apache-2.0"))["released"]
    assert sorted(path.name for path in out.iterdir()) == ["0001", "0002", "current.json"]
    facts = facts_of(out / "0001" / "good.onnx")
    assert facts["licence"] == "Apache-2.0"
    assert json.loads(facts["test_scores"])["map50_95"] == first["scores"]["map50_95"]
    assert facts["test_sha256"] == json.loads((tested / LOCK).read_text())["sha256"]
    assert describe(str(out / "0001" / "good.onnx"), {})["made"]["licence"] == "Apache-2.0"
    card = (out / "0001" / "model_card.md").read_text()
    assert "Apache-2.0" in card
    assert "| map50_95 | >= released |" in card


def test_one_changed_label_of_the_test_part_stops_everything(tested: Path, tmp_path: Path) -> None:
    lock_test(tested)
    check_lock(tested)
    (tested / "labels" / "test" / "003.txt").write_text("0 0.5 0.5 0.25 0.26")
    model = boxes_model(tmp_path / "m.onnx", NAMES, [[120, 120, 200, 200, 0.9, 0]])
    with pytest.raises(ConfigError, match="has changed since it was locked"):
        release(ReleaseRequest(model, tested, tmp_path / "out", "MIT"))
    from pipelines.learning.train.options import TrainOptions
    from pipelines.learning.train.run import TrainRequest, train

    with pytest.raises(ConfigError, match="has changed since it was locked"):
        train(TrainRequest(tested, tmp_path / "runs", TrainOptions("deimv2-femto", minutes=1)))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[tuple[str, str, subprocess.Popen[str], Path]]:
    """A run of two synthetic cameras whose model sees two people and a dog."""
    rows = [[20, 20, 80, 80, 0.9, 0], [120, 20, 180, 80, 0.9, 0], [20, 120, 80, 180, 0.9, 1]]
    model = boxes_model(tmp_path / "old.onnx", ("person", "dog"), rows)
    control, stream = f"ipc://{tmp_path}/c.sock", f"ipc://{tmp_path}/p.sock"
    words = [sys.executable, "-m", "pipelines", "run", "--model", str(model), "--control", control, "--json"]
    for name in ("gate", "door"):
        words += ["--source", f"{name}=synthetic://?width=320&height=320&count=100000&fps=10"]
    words += ["--set", "sources.0.realtime=true", "--set", "sources.1.realtime=true"]
    with (
        (tmp_path / "err").open("w") as err,
        subprocess.Popen(
            [*words, "--set", f"publish.address={stream}"], stdout=subprocess.PIPE, stderr=err, text=True
        ) as run,
    ):
        yield control, stream, run, tmp_path
        if run.poll() is None:
            run.kill()


def _reached(control: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            states = ask(control, {"command": "status"}, 2.0)["sources"].values()
            if all(state["published"] for state in states):
                return
        except ConfigError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def test_a_bad_model_returns_by_itself_and_a_good_one_stays(
    engine: tuple[str, str, subprocess.Popen[str], Path],
) -> None:
    control, stream, run, folder = engine
    _reached(control)
    rows = [[20, 20, 80, 80, 0.8, 0], [120, 20, 180, 80, 0.8, 0], [20, 120, 80, 180, 0.8, 1]]
    permuted = boxes_model(folder / "bad.onnx", ("dog", "person"), rows)
    good = boxes_model(folder / "good.onnx", ("person", "dog"), rows)

    def request(values: dict[str, object]) -> dict[str, Any]:
        return ask(control, values, 30.0)

    def other(values: dict[str, object]) -> dict[str, Any]:
        found = request(values)
        assert values == {"command": "status"}, "nothing is sent to another engine"
        return {**found, "sources": {name: {**one, "engine_id": "other"} for name, one in found["sources"].items()}}

    with pytest.raises(ConfigError, match="the control socket is that of other: give stream and control address of"):
        deploy(DeployRequest(good, stream, ("door",), watch_s=3, baseline=10), other)
    bad = deploy(DeployRequest(permuted, stream, ("door",), watch_s=60, baseline=60), request)
    assert not bad["deployed"]
    assert "door: classes drifted" in bad["reason"]
    _wait_for_model(control, "door", "detector")
    trial = deploy(DeployRequest(good, stream, ("door",), watch_s=3, baseline=20, shadow=True), request)
    assert (trial["deployed"], trial["passed"]) == (False, True)
    _wait_for_model(control, "door", "detector")
    done = deploy(DeployRequest(good, stream, ("door",), watch_s=3, baseline=20), request)
    assert done["deployed"], done["reason"]
    deadline = time.monotonic() + 60
    while ask(control, {"command": "status"})["detector"]["model"] != str(good) and time.monotonic() < deadline:
        time.sleep(0.2)
    run.send_signal(signal.SIGINT)
    summary = json.loads(run.communicate(timeout=60)[0].splitlines()[-1])
    for facts in summary["sources"].values():
        assert facts["captured"] == facts["published"] + sum(facts["dropped"].values())
        assert "detector" not in facts["dropped"]


def test_a_release_may_find_more_than_the_old_model_if_it_did_so_on_its_test_pictures(
    engine: tuple[str, str, subprocess.Popen[str], Path], tested: Path
) -> None:
    control, stream, _, folder = engine
    _reached(control)
    rows = [[20, 20, 80, 80, 0.8, 0], [120, 20, 180, 80, 0.8, 0], [20, 120, 80, 180, 0.8, 1]]
    more = boxes_model(
        folder / "more.onnx", ("person", "dog"), [*rows, *([x, 200, x + 40, 280, 0.8, 0] for x in (20, 120, 220))]
    )

    def request(values: dict[str, object]) -> dict[str, object]:
        return ask(control, values, 30.0)

    bare = deploy(DeployRequest(more, stream, ("door",), watch_s=60), request)
    assert "door: objects drifted" in bare["reason"]
    _wait_for_model(control, "door", "detector")
    (tested / "data.yaml").write_text("names: [person, dog]\n")
    released = release(ReleaseRequest(more, tested, folder / "releases", "MIT"))
    done = deploy(DeployRequest(Path(released["folder"]), stream, ("door",), watch_s=8, baseline=20), request)
    assert done["deployed"], done["reason"]
    assert done["canary"]["door"]["drift"]["objects"] > 0.25
    assert done["canary"]["door"]["drift_from_test"]["objects"] < 0.25


def test_the_model_in_use_is_to_be_beaten_as_long_as_nothing_is_released(tested: Path, tmp_path: Path) -> None:
    exact = boxes_model(tmp_path / "in_use.onnx", NAMES, [[120, 120, 200, 200, 0.9, 0]])
    worse = boxes_model(tmp_path / "worse.onnx", NAMES, [[128, 120, 208, 200, 0.9, 0]])
    out = tmp_path / "releases"
    assert not release(ReleaseRequest(worse, tested, out, "MIT", against=str(exact)))["released"]
    assert release(ReleaseRequest(worse, tested, out, "MIT"))["released"]
    assert release(ReleaseRequest(worse, tested, out, "MIT", against=str(exact)))["released"]  # what is released counts


def _wait_for_model(control: str, source: str, model: str) -> None:
    deadline = time.monotonic() + 60
    while ask(control, {"command": "status"})["sources"][source]["model"] != model:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_deployment_without_a_run_names_its_own_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = CliRunner().invoke(app, ["deploy", str(tmp_path / "m.onnx")])
    assert isinstance(done.exception, ConfigError)
    assert "or give --to" in str(done.exception)
