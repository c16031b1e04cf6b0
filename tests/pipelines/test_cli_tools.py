"""The verbs other than the main ones: track, eval, record, replay, bridge, keys, build."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.assets import demo_model
from engine.detection.load import load_detector
from engine.errors import ConfigError
from pipelines.cli import app_for
from pipelines.verbs.scoring.eval import _detector_options
from tests.onnx_models import save_constant_model
from tests.pipelines.test_cli import SYNTHETIC, framewire, start, summary_of
from tests.preforked import Preforked


def test_tracker_runs_over_a_file_of_detections_and_is_scored(data_dir: Path, tmp_path: Path) -> None:
    sequence, out = data_dir / "mot" / "TUD-Campus", tmp_path / "tracks.txt"
    done = summary_of(
        framewire("track", "--mot", f"{sequence}/det/det.txt", "--fps", "25", "--out", str(out), "--json")
    )
    assert done["frames"] == 71
    assert done["ids"] >= 8
    scores = summary_of(framewire("eval", "track", "--gt", f"{sequence}/gt/gt.txt", "--pred", str(out), "--json"))
    assert scores["mota"] > 0.5
    assert scores["idf1"] > 0.5
    assert 0 < scores["hota"] < 1


def test_whole_pipeline_is_scored_on_a_clip(tmp_path: Path) -> None:
    gt = tmp_path / "gt.txt"
    gt.write_text("".join(f"{frame},1,10,10,50,50,1,1,1\n" for frame in range(1, 41)))
    scores = summary_of(framewire("eval", "track", "--source", SYNTHETIC, "--gt", str(gt), "--json"))
    assert scores["sources"]["synthetic"]["published"] == 40
    assert scores["objects"] == 40


def test_detector_is_scored_on_labelled_images(tmp_path: Path) -> None:
    cv2, np = pytest.importorskip("cv2"), pytest.importorskip("numpy")
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for n in range(2):
        cv2.imwrite(str(tmp_path / "images" / f"{n}.png"), np.full((64, 64, 3), 60 * n, np.uint8))
        (tmp_path / "labels" / f"{n}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    scores = summary_of(framewire("eval", "detect", "--model", "demo", "--images", str(tmp_path), "--json"))
    assert (scores["images"], scores["objects"]) == (2, 2)
    assert scores["map50"] == 0.0
    assert scores["per_class"]["person"]["objects"] == 2
    given = ("--set", "letterbox=stretch", "--set", "score_threshold=0.999")
    assert summary_of(framewire("eval", "detect", "--model", "demo", "--images", str(tmp_path), *given, "--json"))


def test_stream_is_recorded_and_replayed(tmp_path: Path, free_port: int) -> None:
    address, file = f"tcp://127.0.0.1:{free_port}", str(tmp_path / "run.fwr")
    live = SYNTHETIC.replace("count=40", "count=100000") + "&realtime=1"
    engine = start("run", "--source", f"cam={live}", "--publish", address)
    try:
        recorded = summary_of(framewire("record", address, "--out", file, "--count", "20", "--timeout", "30", "--json"))
        assert recorded["messages"] == 20
    finally:
        engine.kill()
        engine.communicate()
    player = start("replay", file, "--publish", address, "--speed", "max", "--wait", "30", "--json")
    seen = framewire("subscribe", address, "--topic", "v1/", "--count", "20", "--timeout", "30", "--json")
    out, err = player.communicate(timeout=60)
    assert player.returncode == 0, err
    assert json.loads(out)["messages"] >= 20
    assert len(seen.stdout.splitlines()) == 20


def test_keys_are_made_with_safe_modes_and_encrypt_the_stream(tmp_path: Path, free_port: int) -> None:
    for name in ("gate", "reader", "stranger"):
        assert framewire("keys", name, "--folder", str(tmp_path)).returncode == 0
    secret = tmp_path / "gate.key_secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    address = f"tcp://127.0.0.1:{free_port}"
    live = SYNTHETIC.replace("count=40", "count=100000") + "&realtime=1"
    settings = [f"publish.keys={secret}", f"publish.allowed_keys=[{tmp_path}/reader.key]"]
    engine = start("run", "--source", f"cam={live}", "--publish", address, *(p for s in settings for p in ("--set", s)))

    def read(*keys: str, timeout: str) -> subprocess.CompletedProcess[str]:
        return framewire("subscribe", address, "--count", "3", "--timeout", timeout, "--json", *keys)

    try:
        server = ["--server-key", f"{tmp_path}/gate.key"]
        listed = read(*server, "--keys", f"{tmp_path}/reader.key_secret", timeout="30")
        assert len(listed.stdout.splitlines()) == 3, listed.stderr
        assert read(timeout="2").returncode == 1
        assert read(*server, "--keys", f"{tmp_path}/stranger.key_secret", timeout="2").returncode == 1
    finally:
        engine.kill()
        engine.communicate()


def test_bridge_writes_lines_and_tables(tmp_path: Path, free_port: int) -> None:
    address, table = f"tcp://127.0.0.1:{free_port}", tmp_path / "objects.csv"
    live = SYNTHETIC.replace("count=40", "count=100000") + "&realtime=1"
    engine = start("run", "--source", f"cam={live}", "--publish", address, "--score", "0.01")
    try:
        lines = framewire("bridge", address, "-", "--topic", "v1/frame/", "--count", "3")
        assert [json.loads(line)["source_id"] for line in lines.stdout.splitlines()] == ["cam"] * 3
        done = summary_of(framewire("bridge", address, str(table), "--topic", "v1/frame/", "--count", "3", "--json"))
        assert done["sent"] == {"frame": 3}
        assert "track_id" in table.read_text().splitlines()[0]
    finally:
        engine.kill()
        engine.communicate()


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        pytest.param(["rebuild=never"], {"build_plans": False}, id="no plan is built"),
        pytest.param(["rebuild=foreground"], {"build_plans": True}, id="a plan is built"),
        pytest.param(["max_batch=null", "depth=null"], {"depth": None}, id="as the backend likes"),
        pytest.param(["iou_threshold=null"], {"iou_threshold": None}, id="the authors' value"),
    ],
)
def test_keys_of_a_scored_model_become_arguments(settings: list[str], options: dict[str, object]) -> None:
    assert _detector_options(settings) == options
    load_detector(demo_model(), backend="onnxruntime", **options)  # type: ignore[arg-type]


def test_detect_writes_lines_of_json_to_stdout(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.full((90, 120, 3), 90, np.uint8))
    done = framewire("detect", str(tmp_path), "--jsonl", "-")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(Path(line["image"]).name, line["width"], line["objects"]) for line in lines] == [
        ("a.png", 120, []),
        ("b.png", 120, []),
    ]


def test_inspect_takes_what_the_file_does_not_tell(tmp_path: Path) -> None:
    model = save_constant_model(tmp_path / "m.onnx", [np.zeros((84, 8), np.float32)], 64)
    assert summary_of(framewire("inspect", str(model), "--json"))["head"] == "yolox"
    told = ["--set", "head=yolox_decoded", "--set", "names=[a, b, c]"]
    facts = summary_of(framewire("inspect", str(model), *told, "--json"))
    assert (facts["head"], facts["class_names"]) == ("yolox_decoded", ["a", "b", "c"])


@pytest.mark.parametrize("verb", ["inspect", "build"])
def test_a_key_that_says_nothing_of_the_file_is_refused(verb: str) -> None:
    done = framewire(verb, "demo", "--set", "iou_threshold=0.5")
    assert done.returncode == 2
    assert "--set iou_threshold: expected a key that defines how to read the file: size, names, head" in done.stderr


def test_scoring_does_not_start_before_its_plan_is_built() -> None:
    with pytest.raises(ConfigError, match="expected foreground or never"):
        _detector_options(["rebuild=background"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["bridge", "tcp://127.0.0.1:1", "pigeon://x"], "no bridge supports", id="unknown bridge"),
        pytest.param(["replay", "none.fwr"], "none.fwr", id="no recording"),
        pytest.param(["replay", "none.fwr", "--speed", "fast"], "speed is 'fast'", id="speed"),
        pytest.param(["eval", "track", "--gt", "x"], "either --pred FILE or --source CLIP", id="nothing to score"),
        pytest.param(
            ["eval", "detect", "--model", "demo", "--images", ".", "--set", "task=classify"],
            "--set task: scoring only accepts",
            id="no key of a scored model",
        ),
        pytest.param(["track", "--mot", "none.txt", "--fps", "25", "--out", "o"], "none.txt", id="no detections"),
        pytest.param(["build", "none.onnx"], "none.onnx", id="no model"),
        pytest.param(["subscribe", "pigeon"], "pigeon", id="bad address"),
    ],
)
def test_mistakes_are_clear_errors(arguments: list[str], message: str, tmp_path: Path, preforked: Preforked) -> None:
    done = preforked.run(*arguments, folder=tmp_path)
    assert done.returncode in (1, 2)
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("written", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize(
    "words",
    [
        pytest.param("subscribe --timeout={}", id="without limits"),
        pytest.param("run --source=synthetic://?count=1 --publish=none --score={}", id="of a run"),
        pytest.param("record tcp://127.0.0.1:9 --out=x.fwr --duration={}", id="of a recording"),
        pytest.param("fleet roll --watch={}", id="of a verb in a group"),
    ],
)
def test_options_refuse_what_is_no_number(words: str, written: str) -> None:
    line = words.format(written).split()
    with pytest.raises(ConfigError, match=r"--\w+ -?(nan|inf): expected a number"):
        app_for(line)(line)
