"""The command line, as a person runs it: real processes, real files, real signals."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

from engine.wire import schema_of
from tests.patience import AT_ONCE_S
from tests.preforked import Preforked

COMMAND = [sys.executable, "-c", "from pipelines.entry import main; main()"]
STARTUP_S = 30.0
SYNTHETIC = "synthetic://?width=320&height=240&fps=25&count=40&objects=3&seed=1"
SHORT = SYNTHETIC.replace("count=40", "count=12")


def framewire(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "200"}
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=90, env=env)


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def summary_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + STARTUP_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        threading.Event().wait(0.02)


def test_run_accounts_for_every_frame_and_writes_what_it_publishes(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    summary = summary_of(framewire("run", "--source", SYNTHETIC, "--publish", "none", "--jsonl", str(out), "--json"))
    source = summary["sources"]["synthetic"]
    assert source == {"captured": 40, "published": 40, "detected": 40, "dropped": {}, "reconnects": 0}
    assert {"fps", "latency_ms", "stage_ms", "backend", "model", "wall_s", "cpu_s", "max_rss_mb"} <= set(summary)
    assert set(summary["latency_ms"]) == {"p50", "p90", "p99", "max"}
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["seq"] for line in lines if line["schema"].startswith("framewire.frame/")] == list(range(40))


def test_a_dash_writes_the_messages_to_stdout_and_the_summary_aside() -> None:
    done = framewire("run", "--source", SYNTHETIC, "--publish", "none", "--jsonl", "-")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == list(range(40))
    assert "Summary" in done.stderr
    with_summary = framewire("run", "--source", SYNTHETIC, "--publish", "none", "--jsonl", "-", "--json")
    assert len(with_summary.stdout.splitlines()) == 41
    assert summary_of(with_summary)["sources"]["synthetic"]["published"] == 40


def test_demo_finds_and_tracks_pedestrians_and_a_subscriber_sees_them(free_port: int) -> None:
    address = f"tcp://127.0.0.1:{free_port}"
    demo = start("demo", "--publish", address, "--set", "pipeline.max_frames=100", "--json")
    seen = framewire("subscribe", address, "--count", "5", "--timeout", "30", "--json")
    out, err = demo.communicate(timeout=60)
    assert demo.returncode == 0, err
    messages = [json.loads(line) for line in seen.stdout.splitlines()]
    assert len(messages) == 5, seen.stderr
    assert all(message["schema"] == schema_of("frame") for message in messages)
    people = [o for message in messages for o in message["objects"] if o["class_name"] == "person"]
    assert len({person["track_id"] for person in people}) >= 2
    summary = json.loads(out.splitlines()[-1])
    assert summary["sources"]["demo"]["captured"] >= 100


def test_several_sources_give_what_each_gives_alone(tmp_path: Path) -> None:
    uris = {f"s{n}": SHORT.replace("seed=1", f"seed={n}") for n in range(3)}

    def objects(*names: str) -> dict[str, list[Any]]:
        out = tmp_path / f"{'_'.join(names)}.jsonl"
        sources = [part for name in names for part in ("--source", f"{name}={uris[name]}")]
        summary_of(framewire("run", *sources, "--publish", "none", "--jsonl", str(out), "--score", "0.05", "--json"))
        found: dict[str, list[Any]] = {name: [] for name in names}
        for line in out.read_text().splitlines():
            message = json.loads(line)
            if "objects" in message:
                found[message["source_id"]].append((message["frame_id"], message["objects"]))
        return found

    together = objects(*uris)
    for name in uris:
        assert together[name] == objects(name)[name]
        assert len(together[name]) == 12


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("state", ["running", "connecting", "loading", "live"])
def test_signal_ends_a_run_with_its_summary_in_under_a_second(number: int, state: str, free_port: int) -> None:
    silent = socket.create_server(("127.0.0.1", free_port))  # accepts and says nothing
    source = {
        "connecting": f"rtsp://user:secret@127.0.0.1:{free_port}/stream",
        "live": f"{SYNTHETIC.replace('count=40', 'count=100000')}&realtime=1",
    }.get(state, SYNTHETIC.replace("count=40", "count=100000"))
    process = start("-v", "run", "--source", f"cam={source}", "--publish", "tcp://127.0.0.1:*", "--json")
    assert process.stderr is not None
    opening = process.stderr.readline()
    while "publishing at" not in opening:
        assert opening, "the run never began"
        opening = process.stderr.readline()
    if state != "loading":
        time.sleep(2.0)  # well inside the state; there is no event to wait for from outside
    children = _children(process.pid)
    sent = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    elapsed = time.monotonic() - sent
    silent.close()
    assert process.returncode == (130 if number == signal.SIGINT else 0), err
    summary = json.loads(out.splitlines()[-1])
    figures = summary["sources"]["cam"]
    assert figures["captured"] == figures["published"] + sum(figures["dropped"].values())
    assert summary["interrupted"]
    assert elapsed < AT_ONCE_S
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), "the reader processes are gone")
    assert "Traceback" not in err
    assert "secret" not in err + out


def test_the_end_of_the_terminal_ends_a_run_with_its_files_finished(tmp_path: Path) -> None:
    """SIGHUP, when an ssh session breaks; under `nohup` it stays ignored."""
    source = f"{SYNTHETIC.replace('count=40', 'count=100000')}&realtime=1"
    video, lines = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        process = start(
            "run", "--source", source, "--publish", "none", "--save", str(video), "--jsonl", str(lines), "--json"
        )
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_until(lambda: video.exists() and lines.exists() and lines.stat().st_size > 0, "both files are being written")
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    files = json.loads(out.splitlines()[-1])["outputs"]
    assert {Path(file["path"]) for file in files} == {video, lines}
    assert all(file["complete"] for file in files)
    assert [json.loads(line)["frame_id"] for line in lines.read_text().splitlines()]
    with av.open(str(video)) as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert frames == next(file["frames"] for file in files if Path(file["path"]) == video)


def _children(pid: int) -> list[int]:
    task = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in task.read_text().split()] if task.exists() else []


@pytest.fixture
def bad(tmp_path: Path, free_port: int) -> dict[str, Any]:
    """Commands that cannot work, by name."""
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x07onnx but not really" * 50)
    (tmp_path / "typo.yaml").write_text("sources: [{uri: a.mp4}]\ndetector: {scor_threshold: 0.5}\n")
    (tmp_path / "type.yaml").write_text("sources: [{uri: a.mp4}]\ndetector: {score_threshold: high}\n")
    return {"folder": tmp_path, "port": free_port}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--source", "{folder}/missing.mp4"], "missing.mp4", id="missing file"),
        pytest.param(["--source", "{folder}/empty.mp4"], "empty", id="empty file"),
        pytest.param(["--source", "{folder}/text.mp4"], "text.mp4", id="text file named mp4"),
        pytest.param(["--source", "{folder}"], "no image", id="folder without images"),
        pytest.param(["--source", "nonsense://host/x"], "nonsense", id="unknown scheme"),
        pytest.param(["--source", "/dev/video77"], "video77", id="no such camera"),
        pytest.param(["--source", "S", "--model", "{folder}/broken.onnx"], "broken.onnx", id="broken model"),
        pytest.param(["--source", "S", "--model", "{folder}/none.onnx"], "none.onnx", id="missing model"),
        pytest.param(["{folder}/typo.yaml"], "did you mean score_threshold", id="unknown key"),
        pytest.param(["{folder}/type.yaml"], "found 'high'", id="wrong type"),
        pytest.param(["--source", "S", "--publish", "tcp://127.0.0.1:{port}"], "in use", id="port in use"),
        pytest.param(["--source", "S", "--publish", "carrier-pigeon"], "carrier-pigeon", id="bad address"),
        pytest.param(["--source", "S", "--save", "{folder}/no/such/out.mp4"], "out.mp4", id="unwritable video"),
        pytest.param(["--source", "S", "--jsonl", "{folder}/no/such/out.jsonl"], "out.jsonl", id="unwritable jsonl"),
        pytest.param(["--source", "S", "--classes", "persn"], "person", id="unknown class"),
        pytest.param(["--source", "S", "--backend", "abacus"], "abacus", id="unknown backend"),
        pytest.param(["--source", "S", "--tracker", "psychic"], "psychic", id="unknown tracker"),
        pytest.param(["--source", "S", "--show"], "--save", id="no display"),
        pytest.param(
            ["--source", "a={folder}/text.mp4", "--source", "a=S"], "two sources are named a", id="twin names"
        ),
        pytest.param([], "no source", id="nothing to do"),
    ],
)
def test_bad_input_is_a_clear_error_and_not_a_traceback(
    bad: dict[str, Any], preforked: Preforked, arguments: list[str], message: str
) -> None:
    filled = [a.replace("S", SYNTHETIC) if a in ("S", "a=S") else a.format(**bad) for a in arguments]
    with socket.create_server(("127.0.0.1", bad["port"])):
        publish = [] if "--publish" in filled else ["--publish", "none"]
        done = preforked.run("run", *filled, *publish)
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_classification_model_is_refused_as_a_detector(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["scores"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("images", kind, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("scores", kind, [1, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    entry = model.metadata_props.add()
    entry.key, entry.value = "task", "classify"
    onnx.save(model, str(tmp_path / "classifier.onnx"))
    done = framewire("run", "--source", SYNTHETIC, "--model", str(tmp_path / "classifier.onnx"), "--publish", "none")
    assert done.returncode in (1, 2)
    assert "classif" in done.stderr


def test_summary_of_a_failed_run_is_still_printed(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    done = framewire(
        "run", "--source", f"bad={tmp_path}/text.mp4", "--source", f"good={SYNTHETIC}", "--publish", "none", "--json"
    )
    assert done.returncode == 1
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["sources"]["good"]["published"] == 40
    assert "text.mp4" in summary["error"]


def test_inspect_names_tensors_head_and_classes() -> None:
    facts = summary_of(framewire("inspect", "demo", "--json"))
    assert facts["classes"] == 80
    assert facts["class_names"][0] == "person"
    assert "416" in facts["image_size"]
    assert len(facts["outputs"]) == 6, "scores and distances of three strides"


def test_doctor_has_a_remedy_for_everything_that_is_missing() -> None:
    findings = summary_of(framewire("doctor", "--json"))
    assert {finding["part"] for finding in findings} >= {"python", "decode", "onnxruntime", "nvidia gpu", "cameras"}  # type: ignore[index]
    assert all(f["verdict"] == "ok" or f["remedy"] for f in findings)  # type: ignore[index]


def test_check_validates_without_running(tmp_path: Path) -> None:
    file = tmp_path / "ok.yaml"
    file.write_text(f"sources: [{{uri: '{SYNTHETIC}'}}]\n")
    done = framewire("check", str(file))
    assert done.returncode == 0, done.stderr
    assert "is valid" in done.stdout


@pytest.mark.parametrize("wanted", ["device: gpu.7", "backend: tensorrt"])
def test_check_refuses_a_device_that_this_machine_lacks(preforked: Preforked, tmp_path: Path, wanted: str) -> None:
    file = tmp_path / "gpu.yaml"
    file.write_text(f"sources: [{{uri: '{SYNTHETIC}'}}]\ndetector: {{{wanted}}}\n")
    done = preforked.run("check", str(file))
    assert done.returncode == 2, done.stdout
    assert "cannot run here: " in done.stderr


def test_bench_measures_the_pipeline_beside_the_bare_backend() -> None:
    metrics = ("--set", "metrics.address=127.0.0.1:0")
    done = framewire("bench", "--source", SHORT, "--json", *metrics)
    figures = summary_of(done)
    assert "metrics at http://127.0.0.1:" in done.stderr
    assert figures["frames"] == 12
    assert figures["raw_fps"] > 0
    assert figures["ratio"] == pytest.approx(figures["pipeline_fps"] / figures["raw_fps"], rel=0.01)


def test_bench_of_several_rounds_takes_the_median() -> None:
    figures = summary_of(framewire("bench", "--source", SHORT, "--rounds", "3", "--json"))
    raw, runs = figures["raw_fps_runs"], figures["pipeline_fps_runs"]
    assert (len(raw), len(runs)) == (4, 3)
    ratios = [run / ((before + after) / 2) for run, before, after in zip(runs, raw, raw[1:], strict=False)]
    assert figures["ratios"] == pytest.approx(ratios, rel=0.01)
    assert figures["ratio"] == sorted(figures["ratios"])[1]


@pytest.mark.parametrize("verb", ["", "run", "demo", "subscribe", "check", "doctor", "inspect", "bench"])
def test_every_verb_has_help(preforked: Preforked, verb: str) -> None:
    done = preforked.run(*([verb] if verb else []), "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_numbered_frames_keep_their_numbers(data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    clip = data_dir / "videos" / "numbered_10_frames.mp4"
    summary = summary_of(framewire("run", "--source", str(clip), "--publish", "none", "--jsonl", str(out), "--json"))
    assert summary["sources"]["numbered_10_frames"]["published"] == 10
    frames = [json.loads(line) for line in out.read_text().splitlines() if "frame_id" in line]
    assert [frame["frame_id"] for frame in frames] == list(range(10))
    assert [frame["pts_ns"] for frame in frames] == sorted(frame["pts_ns"] for frame in frames)


@pytest.mark.parametrize("delay_s", [0.02, 0.1, 0.3])
def test_signal_while_modules_are_loading_leaves_no_traceback(delay_s: float) -> None:
    process = start("run", "--source", SYNTHETIC.replace("count=40", "count=100000"), "--publish", "none")
    time.sleep(delay_s)  # somewhere inside of the imports: no event tells from outside
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    if "Traceback" in err:  # the interpreter itself was still starting, which no code of ours can change
        assert not re.search(r"(pipelines|engine)/\w+", err.replace("pipelines/entry.py", "")), err
        assert process.returncode in (1, -signal.SIGINT)
    else:
        assert process.returncode in (130, -signal.SIGINT)  # the second: before the first line of ours


def test_unrelated_photos_are_not_tracked(data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    photos = data_dir / "images" / "assets"
    summary_of(framewire("run", "--source", str(photos), "--publish", "none", "--jsonl", str(out), "--json"))
    for line in out.read_text().splitlines():
        people = [o for o in json.loads(line)["objects"] if o["class_name"] == "person"]
        assert people
        assert all(person["track_id"] == -1 for person in people)
