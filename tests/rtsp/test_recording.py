"""Recording one stream of a camera while detecting on another."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import psutil
import pytest

from engine.data import Run, SourceInfo, SourceStatus
from engine.flow.pipeline import Pipeline
from engine.sinks.camera_video.recordings import Recordings, record_plan
from engine.sources.open import open_source
from engine.video.options import SourceOptions
from pipelines.running.control import ask
from tests.fakes import OneTracker, PixelDetector
from tests.patience import AT_ONCE_S
from tests.processes import running_children
from tests.rtsp_server import RtspServer

pytestmark = pytest.mark.rtsp
Serve = Callable[..., RtspServer]
FPS = 25


def plan_of(url: str, folder: Path, options: SourceOptions | None = None, **files: Any) -> dict[str, Any]:
    return {"cam": record_plan(url, "cam", folder, options or SourceOptions(), **{"segment_s": 1.0, **files})}


@pytest.fixture
def begin() -> Iterator[Callable[..., Recordings]]:
    """Start a recording on its own, without detection."""
    begun: list[Recordings] = []

    def start(*arguments: Any, **named: Any) -> Recordings:
        recordings = Recordings(plan_of(*arguments, **named))
        begun.append(recordings)
        recordings.open(Run("test", 0, "model", ()))
        recordings.status(SourceStatus(SourceInfo("cam", "rtsp://x", is_live=True), "connecting"))
        return recordings

    yield start
    for recordings in begun:
        recordings.close()


def wait_for(
    recordings: Recordings, is_so: Callable[[dict[str, Any]], bool], timeout_s: float = 30.0, *, ticks: bool = True
) -> dict[str, Any]:
    """Wait for figures; set `ticks` if there is no pipeline to do so."""
    deadline = time.monotonic() + timeout_s
    while (figures := recordings.summary().get("cam")) is None or not is_so(figures):
        assert time.monotonic() < deadline, figures
        time.sleep(0.05)
        if ticks:
            recordings.tick()
    return figures


def child() -> psutil.Process:
    (found,) = running_children("record_process")
    return found


def played(folder: Path) -> list[list[float]]:
    """Return the times of the frames of each file, decoding all; a damaged frame raises."""
    found = []
    for path in sorted(folder.glob("*.m??")):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": "explode"}
            frames = list(container.decode(stream))
            assert frames[0].key_frame
            found.append([float(frame.pts * stream.time_base) for frame in frames])
    return found


def packets_in(folder: Path) -> int:
    """Return the frames in all files, whole or not: the last one before a connection breaks is cut off."""
    count = 0
    for path in folder.glob("*.m??"):
        with av.open(str(path)) as container:
            count += sum(packet.size > 0 for packet in container.demux(video=0))
    return count


def test_the_main_stream_is_recorded_while_the_sub_stream_is_detected_on(serve: Serve, tmp_path: Path) -> None:
    sub, main = serve(size="160x120", fps=10), serve(size="640x480", fps=FPS, gop=FPS)
    recordings = Recordings(plan_of(main.url, tmp_path))
    source = open_source(sub.url, source_id="cam")
    pipeline = Pipeline(source, PixelDetector(), OneTracker(), recordings)
    pipeline.start()
    wait_for(recordings, lambda r: r["segments"] >= 4, ticks=False)
    assert pipeline.stop(0.9)
    figures = recordings.summary()["cam"]
    counts = pipeline.stats.by_source()["cam"]
    assert counts["published"] > 10
    assert figures["state"] == "ended"
    assert (figures["write_errors"], figures["reconnects"], figures["restarts"]) == (0, 0, 0)
    files = played(tmp_path / "cam")
    assert len(files) == figures["segments"]
    assert sum(map(len, files)) == figures["packets"], "every frame written comes out again"
    for times in files:
        assert times == sorted(set(times))
        assert times[0] < 0.2
        steps = [b - a for a, b in pairwise(times[1:])]
        assert all(step == pytest.approx(1 / FPS, abs=0.011) for step in steps), "evenly spaced: nothing is missing"
    with av.open(str(next((tmp_path / "cam").glob("*.mp4")))) as container:
        assert container.streams.video[0].width == 640
        assert container.duration, "finished: a player can seek in it"


@pytest.mark.parametrize("codec", ["h264", "h265", "jpeg"])
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_any_codec_goes_into_any_file(
    serve: Serve, begin: Callable[..., Recordings], tmp_path: Path, codec: str, container: str
) -> None:
    recordings = begin(serve(codec=codec).url, tmp_path, container=container)
    wait_for(recordings, lambda r: r["segments"] >= 2)
    recordings.close()
    assert sum(map(len, played(tmp_path / "cam"))) == recordings.summary()["cam"]["packets"]


@pytest.mark.parametrize(
    ("sound", "container", "is_kept"), [("aac", "mp4", True), ("aac", "mkv", True), ("alaw", "mp4", False)]
)
def test_the_sound_of_a_camera_is_recorded_where_files_can_hold_it(
    serve: Serve, begin: Callable[..., Recordings], tmp_path: Path, sound: str, container: str, is_kept: bool
) -> None:
    recordings = begin(serve(sound=sound).url, tmp_path, container=container)
    wait_for(recordings, lambda r: r["segments"] >= 3)
    recordings.close()
    assert sum(map(len, played(tmp_path / "cam"))) == recordings.summary()["cam"]["packets"]
    for path in sorted((tmp_path / "cam").glob(f"*.{container}"))[1:2]:
        with av.open(str(path)) as file:
            assert bool(file.streams.audio) is is_kept
            if is_kept:
                times = [float(p.pts * p.time_base) for p in file.demux(audio=0) if p.pts is not None]
                assert times == sorted(times)
                assert times[0] < 0.5
                assert len(times) > 10


def test_a_camera_that_comes_back_is_recorded_again(
    serve: Serve, begin: Callable[..., Recordings], tmp_path: Path
) -> None:
    server = serve()
    recordings = begin(server.url, tmp_path)
    wait_for(recordings, lambda r: r["state"] == "recording")
    server.kill()
    assert wait_for(recordings, lambda r: r["state"] == "offline")["reason"]
    server.start()
    figures = wait_for(recordings, lambda r: r["state"] == "recording")
    assert figures["reconnects"] == 1
    recordings.close()
    assert packets_in(tmp_path / "cam") == recordings.summary()["cam"]["packets"]


def test_the_space_taken_stays_below_its_limit(serve: Serve, begin: Callable[..., Recordings], tmp_path: Path) -> None:
    limit = 400_000
    recordings = begin(serve(pattern="snow", gop=5).url, tmp_path, segment_s=60.0, max_bytes=limit)
    wait_for(recordings, lambda r: r["deleted"] >= 3)
    recordings.close()
    assert sum(path.stat().st_size for path in (tmp_path / "cam").iterdir()) < 1.25 * limit
    assert len(played(tmp_path / "cam")) >= 2


def test_a_killed_recording_is_replaced_and_its_file_plays(
    serve: Serve, begin: Callable[..., Recordings], tmp_path: Path
) -> None:
    recordings = begin(serve(gop=10).url, tmp_path, segment_s=60.0)
    wait_for(recordings, lambda r: r["packets"] > 50)
    child().kill()
    figures = wait_for(recordings, lambda r: r["restarts"] == 1 and r["segments"] == 2)
    recordings.close()
    cut, second = played(tmp_path / "cam")
    assert len(cut) > 25, "all but what came after the last second"
    assert second
    assert figures["packets"] > 50, "counters go on"


def test_a_recording_may_write_to_its_folder_alone(
    serve: Serve, begin: Callable[..., Recordings], tmp_path: Path
) -> None:
    recordings = begin(serve().url, tmp_path)
    wait_for(recordings, lambda r: r["state"] == "recording")
    status = Path(f"/proc/{child().pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    if not is_landlocked():
        pytest.skip("this kernel has no Landlock (Linux 5.13), or it is off")
    gone = tmp_path / "gone"
    (tmp_path / "cam").rename(gone)
    wait_for(recordings, lambda r: r["restarts"] == 1 and r["state"] == "recording", 60.0)
    recordings.close()  # writes what the file still lacks
    assert played(tmp_path / "cam"), "a folder that was put in its place is written to by a new process"


def is_landlocked() -> bool:
    """Return whether this kernel has Landlock."""
    return ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) >= 1


def test_a_recording_that_hangs_is_replaced(
    serve: Serve, begin: Callable[..., Recordings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.sinks.camera_video.recordings._KILL_AFTER_S", 0.5)
    monkeypatch.setattr("engine.sinks.camera_video.recordings.DISK_WAIT_S", 1.0)
    limits = SourceOptions(open_timeout_s=1, read_timeout_s=1, connect_timeout_s=0.5, refused_backoff_s=1)
    recordings = begin(serve().url, tmp_path, limits)
    wait_for(recordings, lambda r: r["state"] == "recording")
    child().suspend()
    wait_for(recordings, lambda r: r["restarts"] == 1 and r["state"] == "recording", 60.0)


def test_a_file_that_may_not_grow_is_told_and_recording_goes_on_when_it_may(
    serve: Serve, begin: Callable[..., Recordings], tmp_path: Path
) -> None:
    recordings = begin(serve(pattern="snow").url, tmp_path, segment_s=60.0)
    wait_for(recordings, lambda r: r["state"] == "recording")
    limits = resource.prlimit(child().pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    figures = wait_for(recordings, lambda r: r["state"] == "failed")
    assert os.strerror(errno.EFBIG) in figures["reason"]
    assert str(tmp_path) in figures["reason"]
    assert figures["write_errors"] >= 1
    descriptors = child().num_fds()
    wait_for(recordings, lambda r: r["write_errors"] >= 2)
    assert child().num_fds() <= descriptors + 1, "files that cannot be finished are closed all the same"
    assert len(list((tmp_path / "cam").glob("*.mp4"))) <= 1, "and an attempt that fails leaves nothing"
    resource.prlimit(child().pid, resource.RLIMIT_FSIZE, limits)
    wait_for(recordings, lambda r: r["state"] == "recording")


def test_an_address_that_says_nothing_is_left_at_once(begin: Callable[..., Recordings], tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        recordings = begin(f"rtsp://admin:sesame@127.0.0.1:{silent.getsockname()[1]}/x", tmp_path)
        time.sleep(0.5)
        process = child()
        assert "sesame" not in " ".join(process.cmdline())
        begun = time.monotonic()
        recordings.close()
        assert time.monotonic() - begun < AT_ONCE_S
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        assert "sesame" not in json.dumps(recordings.summary())


def test_a_configured_run_records_and_sums_up(serve: Serve, tmp_path: Path) -> None:
    sub, main = serve(size="160x120"), serve()
    config = tmp_path / "run.yaml"
    record = {"uri": main.url, "folder": str(tmp_path / "kept"), "segment_s": 2}
    sources = [{"uri": sub.url, "source_id": "gate", "record": record}]
    config.write_text(json.dumps({"sources": sources, "detector": {"model": "motion"}, "publish": {"address": "none"}}))
    control = f"ipc://{tmp_path}/control"
    line = [sys.executable, "-m", "pipelines", "run", str(config), "--control", control, "--json"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 40
    while len(list(tmp_path.glob("kept/gate/*.mp4"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    assert ask(control, {"command": "status"})["recordings"]["gate"]["state"] == "recording"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    figures = json.loads(out.splitlines()[-1])["recordings"]["gate"]
    assert process.returncode == 130, err
    assert figures["state"] == "ended"
    assert sum(map(len, played(tmp_path / "kept" / "gate"))) == figures["packets"]


def test_a_recording_begins_and_ends_while_the_engine_runs(serve: Serve, tmp_path: Path) -> None:
    server, control, folder = serve(), f"ipc://{tmp_path}/control", tmp_path / "kept"
    line = [sys.executable, "-m", "pipelines", "run", "--source", f"cam={server.url}", "--control", control, "--json"]
    line += ["--publish", "none", "--set", "detector.model=motion"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:

        def status() -> dict[str, Any]:
            return ask(control, {"command": "status"}, timeout_s=30)

        def state() -> str:
            return str(status().get("recordings", {}).get("cam", {}).get("state"))

        def wait_for_state(wanted: str) -> None:
            deadline = time.monotonic() + 40
            while state() != wanted:
                assert time.monotonic() < deadline, json.dumps(status())
                time.sleep(0.1)

        assert state() == "None"
        record = {"folder": str(folder), "segment_s": 1}
        ask(control, {"command": "set", "key": "sources.0.record", "value": record}, timeout_s=30)
        wait_for_state("recording")
        ask(control, {"command": "set", "key": "sources.0.record", "value": None}, timeout_s=30)
        wait_for_state("ended")
        ask(control, {"command": "set", "key": "sources.0.record", "value": record}, timeout_s=30)
        wait_for_state("recording")
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    figures = json.loads(out.splitlines()[-1])["recordings"]["cam"]
    assert process.returncode == 130, err
    assert packets_in(folder / "cam") == figures["packets"], "counters go on"
    assert figures["segments"] >= 2
