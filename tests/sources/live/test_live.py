"""Live sources: states, reconnecting, and a reader process that can neither hang, leak nor repeat a frame."""

from __future__ import annotations

import errno
import gc
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

import engine.sources.live.readers as reader_module
from engine.clock import FakeClock
from engine.data import Frame
from engine.errors import SourceError
from engine.sources.live.reader_events import ArrivedFrame, Event, Finished, Opened
from engine.sources.live.source import LiveSource
from engine.sources.open import open_source
from engine.sources.synthetic import number_in_image
from engine.video.address import VideoAddress
from engine.video.backoff import Backoff
from engine.video.frames import MissingFrames
from engine.video.network import SEGMENTS_S, video_address_from_uri
from engine.video.options import SourceOptions
from engine.video.timing.arrivals import Stamp
from tests.media import Recorder, encode_clip, file_server, mjpeg_camera, numbered_images, rotate_mp4
from tests.processes import running_children


@dataclass(frozen=True)
class Asleep:
    """The whole process is stopped for this many seconds, whatever time limits it waits with."""

    seconds: float


Script = list[Event | float | Asleep]
OPENED = Opened({"width": 4, "height": 4, "fps": 10.0, "codec": "h264", "duration_s": None})


class ScriptedReader:
    """Plays a list of connections; a number is silence for that many seconds of the fake clock."""

    def __init__(self, connections: list[Script], clock: FakeClock) -> None:
        self._connections = connections
        self._clock = clock
        self._events: Script = []
        self.opened = self.abandoned = 0
        self.closed = False
        self.on_exhausted: Callable[[], None] = lambda: None

    def open(self) -> None:
        self.opened += 1
        self._events = self._connections.pop(0) if self._connections else []
        if not self._events:
            self.on_exhausted()

    def next(self, timeout_s: float) -> Event | None:
        if self._events and isinstance(self._events[0], float):
            step = min(timeout_s, self._events[0])
            self._events[0] -= step
            if self._events[0] <= 1e-9:
                self._events.pop(0)
            self._clock.advance(step)
            return None
        if not self._events:
            self._clock.advance(timeout_s)
            return None
        if isinstance(self._events[0], Asleep):
            self._clock.advance(self._events.pop(0).seconds)
        event = self._events.pop(0)
        assert not isinstance(event, float | Asleep)
        if isinstance(event, ArrivedFrame):
            now_ns = self._clock.monotonic_ns()
            return ArrivedFrame(event.image, Stamp(now_ns, self._clock.utc_ns(), event.stamp.pts_ns))
        return event

    def wake(self) -> None:
        pass

    def abandon(self) -> None:
        self.abandoned += 1

    def close(self) -> None:
        self.closed = True


def arrived(pts_s: float | None = None) -> ArrivedFrame:
    return ArrivedFrame(np.zeros((4, 4, 3), np.uint8), Stamp(0, 0, None if pts_s is None else round(pts_s * 1e9)))


def frames_with_pauses(count: int, pause_s: float) -> Script:
    script: Script = []
    for _ in range(count):
        script += [arrived(), pause_s]
    return script


def play(
    connections: list[Script], url: str = "rtsp://host/1", **options: object
) -> tuple[list[Frame], Recorder, ScriptedReader, LiveSource]:
    clock, recorder = FakeClock(), Recorder()
    reader = ScriptedReader(connections, clock)
    source = LiveSource(
        VideoAddress(url, live=True),
        lambda: reader,
        "cam",
        SourceOptions(**options),  # type: ignore[arg-type]
        clock=clock,
        rng=random.Random(0),
    )
    reader.on_exhausted = source.interrupt
    source.attach(recorder)
    return list(source), recorder, reader, source


def test_a_disconnect_is_reported_and_the_next_connection_is_a_new_epoch() -> None:
    frames, recorder, reader, _ = play([[OPENED, arrived(), Finished("cut")], [OPENED, arrived(), Finished("cut")]])
    assert recorder.states == [
        *("connecting", "live", "offline"),
        *("connecting", "live", "offline"),
        *("connecting", "ended"),
    ]
    assert [frame.stream_epoch for frame in frames] == [0, 1]
    assert [frame.frame_id for frame in frames] == [0, 1]
    assert recorder.statuses[2].reason == "cut"
    assert reader.closed


def test_failed_attempts_are_no_epochs() -> None:
    refused: Script = [Finished("connection refused")]
    frames, recorder, reader, _ = play([list(refused), list(refused), [OPENED, arrived(), Finished("cut")]])
    assert [frame.stream_epoch for frame in frames] == [0]
    assert recorder.states.count("offline") == 3
    assert reader.opened == 4


def test_a_stall_is_told_apart_from_a_disconnect() -> None:
    script = [OPENED, *frames_with_pauses(5, 0.1), 2.5, arrived(), 0.1, Finished("cut")]
    _, recorder, reader, _ = play([script], stall_s=2.0)
    assert recorder.states[:5] == ["connecting", "live", "stalled", "live", "offline"]
    assert reader.opened == 2, "the stalled connection was kept"


def test_a_slow_camera_is_not_stalled() -> None:
    _, recorder, _, _ = play([[OPENED, *frames_with_pauses(20, 1.5), Finished("cut")]], stall_s=1.0)
    assert recorder.states.count("stalled") <= 1, "its interval is learnt from the first frames"
    assert recorder.states[-3:] == ["offline", "connecting", "ended"]


def test_hls_is_live_between_its_segments() -> None:
    script: Script = [OPENED]
    for segment in range(5):
        script += [*(arrived(segment * 6 + n) for n in range(6)), 6.5]
    frames, recorder, _, _ = play([[*script, Finished("cut")]], "http://host/live.m3u8")
    assert len(frames) == 30
    assert recorder.states == ["connecting", "live", "offline", "connecting", "ended"]
    assert video_address_from_uri("http://host/live.m3u8", SourceOptions()).read_timeout_s == SEGMENTS_S


def test_a_camera_with_a_keyframe_each_ten_seconds_stays_live_where_only_those_are_decoded() -> None:
    script: Script = [OPENED, *frames_with_pauses(4, 10.0), Finished("cut")]
    frames, recorder, reader, _ = play([script], keyframes_only=True)
    assert len(frames) == 4
    assert recorder.states == ["connecting", "live", "offline", "connecting", "ended"]
    assert reader.abandoned == 0


def test_hls_does_not_hand_out_the_newest_segment_twice_after_a_reconnect() -> None:
    first: Script = [OPENED, *(arrived(n) for n in range(8)), Finished("cut")]
    again: Script = [OPENED, *(arrived(n) for n in range(5, 11)), Finished("cut")]
    anew: Script = [OPENED, *(arrived(1000 + n) for n in (0, 2, 1)), Finished("cut")]
    frames, recorder, _, _ = play([first, again, anew], "http://host/live.m3u8")
    assert [(frame.pts_ns or 0) // 10**9 for frame in frames] == [*range(11), 1000, 1002, 1001]
    assert recorder.losses == {"stale": 3}
    assert [frame.frame_id for frame in frames][7:9] == [7, 11]


def test_a_camera_whose_stream_time_begins_anew_with_each_connection_loses_nothing() -> None:
    script: Script = [OPENED, *(arrived(n) for n in range(3)), Finished("cut")]
    frames, recorder, _, _ = play([list(script), list(script)])
    assert len(frames) == 6
    assert recorder.losses == {}


def test_a_reader_that_exceeds_its_own_limit_is_abandoned() -> None:
    _, recorder, reader, _ = play([[OPENED, arrived(), 60.0]], read_timeout_s=5.0)
    assert reader.abandoned == 1
    offline = next(status for status in recorder.statuses if status.state == "offline")
    assert "no frame for 6." in offline.reason


def test_a_reader_that_never_opens_is_abandoned() -> None:
    _, recorder, reader, _ = play([[60.0]], open_timeout_s=2.0, connect_timeout_s=1.0)
    assert reader.abandoned == 1
    assert recorder.states[:2] == ["connecting", "offline"]


def test_damage_is_a_sign_of_life_and_is_counted() -> None:
    script: Script = [OPENED, arrived()]
    for _ in range(10):
        script += [1.0, MissingFrames(2, "corrupt")]
    frames, recorder, reader, _ = play([[*script, arrived(), Finished("cut")]], read_timeout_s=5.0, stall_s=3.0)
    assert recorder.losses == {"corrupt": 20}
    assert [frame.frame_id for frame in frames] == [0, 21]
    assert reader.abandoned == 0


def test_a_camera_that_only_loses_frames_is_stalled_and_then_connected_again() -> None:
    script: Script = [OPENED, arrived()]
    for _ in range(300):
        script += [0.1, MissingFrames(1, "stale")]
    _, recorder, reader, _ = play([script, [OPENED, arrived(), Finished("cut")]], stall_s=0.5, read_timeout_s=1.0)
    assert recorder.states[:6] == ["connecting", "live", "stalled", "offline", "connecting", "live"]
    assert recorder.losses["stale"] < 300
    assert reader.abandoned == 1


def test_a_process_that_was_stopped_finds_its_camera_live() -> None:
    script: Script = [OPENED, arrived(), Asleep(60.0), MissingFrames(100, "stale"), arrived(), Finished("cut")]
    frames, recorder, reader, _ = play([script], stall_s=2.0)
    assert recorder.states[:3] == ["connecting", "live", "offline"]
    assert len(frames) == 2
    assert reader.abandoned == 0


def test_the_time_that_a_frame_is_taken_for_is_no_silence_of_the_camera() -> None:
    clock, recorder = FakeClock(), Recorder()
    reader = ScriptedReader([[OPENED, *[arrived(), MissingFrames(1, "stale")] * 3, Finished("cut")]], clock)
    source = LiveSource(VideoAddress("rtsp://host/1", live=True), lambda: reader, "cam", SourceOptions(), clock=clock)
    reader.on_exhausted = source.interrupt
    source.attach(recorder)
    for _ in source:
        clock.advance(100)
    assert recorder.states == ["connecting", "live", "offline", "connecting", "ended"]
    assert reader.abandoned == 0


def test_a_complete_stream_ends_without_another_attempt() -> None:
    frames, recorder, reader, _ = play([[OPENED, arrived(), Finished("end of stream", is_end=True)]])
    assert len(frames) == 1
    assert recorder.states == ["connecting", "live", "ended"]
    assert reader.opened == 1


@pytest.mark.parametrize(("options", "attempts"), [({"reconnect": False}, 1), ({"max_attempts": 3}, 3)])
def test_giving_up_is_an_error_with_the_reason(options: dict[str, object], attempts: int) -> None:
    clock = FakeClock()
    reader = ScriptedReader([[Finished("connection refused")] for _ in range(9)], clock)
    source = LiveSource(
        VideoAddress("rtsp://a:pw@host/1"), lambda: reader, "cam", SourceOptions(**options), clock=clock
    )  # type: ignore[arg-type]
    with pytest.raises(SourceError, match=r"cannot open rtsp://host/1: connection refused"):
        list(source)
    assert reader.opened == attempts
    assert reader.closed


def test_waits_double_with_jitter_up_to_a_limit() -> None:
    backoff = Backoff(SourceOptions(backoff_s=0.1, backoff_max_s=1.5), random.Random(1))
    waits = [backoff.next_s("cut") for _ in range(8)]
    limits = [0.1, 0.2, 0.4, 0.8, 1.5, 1.5, 1.5, 1.5]
    assert all(0.5 * limit <= wait <= limit for wait, limit in zip(waits, limits, strict=True))
    assert len(set(waits)) == 8
    backoff.reset()
    assert backoff.next_s("cut") <= 0.1


def test_waits_grow_for_a_camera_that_hangs_up_after_a_few_frames(caplog: pytest.LogCaptureFixture) -> None:
    short: Script = [OPENED, *frames_with_pauses(4, 0.05), Finished("cut")]
    long: Script = [OPENED, *frames_with_pauses(60, 0.1), Finished("cut")]
    with caplog.at_level("INFO", "engine.sources.live.source"):
        _, recorder, reader, _ = play([*(list(short) for _ in range(8)), long, short], backoff_max_s=60.0)
    waits = [float(r.getMessage().rpartition(" in ")[2][:-2]) for r in caplog.records]
    assert waits[5] > 1.5, "of at least half of 0.1 s, doubled five times"
    assert waits[8] <= 0.1, "after the connection that held"
    assert [r.levelname for r in caplog.records].count("WARNING") == 2
    assert recorder.states.count("live") == reader.opened - 1


def test_only_connections_without_a_frame_count_as_failed_in_a_row() -> None:
    short: Script = [OPENED, arrived(), Finished("cut")]
    _, recorder, reader, _ = play([list(short) for _ in range(6)], max_attempts=2)
    assert reader.opened == 7
    assert recorder.states.count("live") == 6


def test_a_refused_password_is_not_tried_again_soon() -> None:
    backoff = Backoff(SourceOptions(refused_backoff_s=30), random.Random(1))
    assert backoff.next_s("the camera refused the user name or password: check them") >= 15


# ---- with real readers ------------------------------------------------------------------------------------------


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def readers() -> list[psutil.Process]:
    return running_children("reader_process")


class Running:
    """A source that is iterated on a thread."""

    def __init__(self, uri: str, **options: object) -> None:
        self.source, self.recorder = open_source(uri, **options), Recorder()
        self.source.attach(self.recorder)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            for _ in self.source:
                pass
        except SourceError as error:
            self.error = error

    def stop(self) -> None:
        self.source.interrupt()
        self.thread.join(10)
        assert not self.thread.is_alive()
        assert not readers()


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_source_that_connects_to_a_silent_server_can_be_stopped(silent_port: int, scheme: str) -> None:
    running = Running(f"{scheme}://127.0.0.1:{silent_port}/x")
    running.recorder.wait_for("connecting")
    running.stop()
    assert running.recorder.states == ["connecting", "ended"]


def test_a_silent_server_is_given_up_after_the_time_limit(silent_port: int) -> None:
    running = Running(f"rtsp://127.0.0.1:{silent_port}/x", open_timeout_s=0.5, reconnect=False)
    running.thread.join(20)
    assert "no answer in time" in str(running.error)
    running.stop()


def test_a_reader_process_that_hangs_is_killed() -> None:
    with mjpeg_camera(numbered_images(5)) as camera:
        running = Running(camera.url)
        running.recorder.wait_for("live")
        readers()[0].suspend()  # as if inside a native call that never returns
        running.stop()


def test_a_reader_process_that_hangs_is_replaced() -> None:
    with mjpeg_camera(numbered_images(5)) as camera:
        running = Running(camera.url, stall_s=0.2, read_timeout_s=0.5)
        running.recorder.wait_for("live")
        hung = readers()[0]
        hung.suspend()
        running.recorder.wait_for("stalled")
        assert running.recorder.wait_for("live", 2).stream_epoch == 1
        assert not psutil.pid_exists(hung.pid)
        running.stop()


def test_a_reader_process_that_crashes_is_replaced_and_the_signal_named() -> None:
    with mjpeg_camera(numbered_images(5)) as camera:
        running = Running(camera.url)
        running.recorder.wait_for("live")
        readers()[0].send_signal(signal.SIGSEGV)
        assert "SIGSEGV" in running.recorder.wait_for("offline").reason
        assert running.recorder.wait_for("live", 2).stream_epoch == 1
        running.stop()


@pytest.mark.parametrize(
    ("part", "reason"), [("anonymous_file", "no shared memory"), ("Child", "cannot start a reader process")]
)
def test_a_reader_process_that_cannot_be_started_is_tried_again(
    part: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = getattr(reader_module, part), [OSError(errno.EAGAIN, "no process left")] * 2

    def short_of(*args: object, **options: object) -> object:
        if failures:
            raise failures.pop()
        return real(*args, **options)

    monkeypatch.setattr(reader_module, part, short_of)
    with mjpeg_camera(numbered_images(5)) as camera:
        running = Running(camera.url)
        assert reason in running.recorder.wait_for("offline").reason
        running.recorder.wait_for("live")
        running.stop()


@pytest.mark.parametrize("reader", ["process", "thread"])
def test_a_camera_that_hangs_up_is_connected_again(reader: str) -> None:
    with mjpeg_camera(numbered_images(5)) as camera:
        running = Running(camera.url, reader=reader)
        running.recorder.wait_for("live")
        camera.hung_up.set()
        running.recorder.wait_for("offline")
        camera.hung_up.clear()
        running.recorder.wait_for("live", 2)
        running.stop()
        assert camera.requests >= 2


def test_a_camera_that_freezes_is_stalled_then_connected_again() -> None:
    with mjpeg_camera(numbered_images(5)) as camera:
        running = Running(camera.url, stall_s=0.2, read_timeout_s=0.6)
        running.recorder.wait_for("live")
        camera.frozen.set()
        running.recorder.wait_for("stalled")
        running.recorder.wait_for("offline")
        camera.frozen.clear()
        running.recorder.wait_for("live", 2)
        running.stop()


def test_mjpeg_over_http_takes_a_password_and_a_wrong_one_is_named() -> None:
    with mjpeg_camera(numbered_images(5), user="admin", password="p@ss:1") as camera:
        frame = next(iter(open_source(camera.url_as("admin", "p%40ss%3A1"))))
        assert frame.width == 320
        source = open_source(camera.url_as("admin", "wrong-one"), reconnect=False)
        with pytest.raises(SourceError, match="refused the user name or password") as caught:
            list(source)
        assert "wrong-one" not in str(caught.value)


def test_a_slow_reader_gets_the_newest_frame_and_the_others_are_counted_as_stale() -> None:
    with mjpeg_camera(numbered_images(400), fps=100) as camera:
        source, recorder = open_source(camera.url), Recorder()
        source.attach(recorder)
        numbers = []
        for frame in source:
            numbers.append(number_in_image(frame.image))
            threading.Event().wait(0.1)
            if len(numbers) == 10:
                break
    assert numbers == sorted(set(numbers)), "no frame comes twice"
    assert numbers[-1] - numbers[0] > 30, "it keeps up with the camera"
    assert recorder.losses["stale"] > 0
    assert frame.frame_id == len(numbers) - 1 + sum(recorder.losses.values())


def test_a_frame_in_use_is_never_overwritten() -> None:
    with mjpeg_camera(numbered_images(200), fps=200) as camera:
        kept = []
        for frame in open_source(camera.url, slots=4):
            kept.append((frame, number_in_image(frame.image)))
            if len(kept) == 60:
                break
    assert [number_in_image(frame.image) for frame, _ in kept] == [number for _, number in kept]
    assert len({number for _, number in kept}) > 30  # on a slow machine the camera begins its 200 images again


def test_pictures_that_grow_and_shrink_are_followed() -> None:
    images = [np.full((60 * (1 + n // 5 % 3), 80 * (1 + n // 5 % 3), 3), 50, np.uint8) for n in range(60)]
    kept: list[Frame] = []
    with mjpeg_camera(images, fps=200) as camera:
        source, recorder = open_source(camera.url), Recorder()
        source.attach(recorder)
        for frame in source:
            kept.append(frame)
            if len(kept) == 40:
                break
    assert {frame.image.shape for frame in kept} == {(60, 80, 3), (120, 160, 3), (180, 240, 3)}
    assert all(abs(int(frame.image.mean()) - 50) < 3 for frame in kept)
    assert any("frame size is now" in status.reason for status in recorder.statuses)


def test_a_file_on_a_server_is_read_whole_and_in_order(tmp_path: Path) -> None:
    encode_clip(tmp_path / "clip.mp4", numbered_images(50))
    with file_server(tmp_path) as base:
        source = open_source(f"{base}/clip.mp4")
        assert not source.info.is_live
        assert [number_in_image(frame.image) for frame in source] == list(range(50))
        with pytest.raises(SourceError, match="404"):
            list(open_source(f"{base}/other.mp4"))


@pytest.mark.parametrize(
    ("size_wh", "rotation"),
    [
        pytest.param((320, 240), 0, id="plain"),
        pytest.param((322, 242), 0, id="padded rows"),
        pytest.param((322, 242), 90, id="turned"),
    ],
)
def test_both_readers_give_the_pictures_of_the_file(tmp_path: Path, size_wh: tuple[int, int], rotation: int) -> None:
    clip = encode_clip(tmp_path / "clip.mp4", numbered_images(4, *size_wh))
    if rotation:
        rotate_mp4(clip, (0, 1, -1, 0))
    of_file = [frame.image for frame in open_source(str(clip))]
    assert of_file[0].shape == (*(size_wh if rotation else size_wh[::-1]), 3)
    with file_server(tmp_path) as base:
        for reader in ("process", "thread"):
            images = [frame.image for frame in open_source(f"{base}/{clip.name}", reader=reader)]
            np.testing.assert_array_equal(images, of_file)


def test_hls_is_read_to_its_end(tmp_path: Path) -> None:
    clip = encode_clip(tmp_path / "live.m3u8", numbered_images(40), container="hls", options={"g": "10"})
    with file_server(tmp_path) as base:
        frames = list(open_source(f"{base}/{clip.name}", ffmpeg={"live_start_index": "0"}))
    assert number_in_image(frames[-1].image) == 39


def test_opening_and_closing_leaves_no_descriptor_process_or_thread() -> None:
    with mjpeg_camera(numbered_images(2), fps=200) as camera:
        me = psutil.Process()

        def cycle() -> None:
            next(iter(open_source(camera.url)))

        cycle()
        gc.collect()
        before = me.num_fds()
        for _ in range(5):
            cycle()
        gc.collect()
        assert not readers()
        # the server's own sockets close when its threads notice; those of the sources are closed already
        waited = threading.Event()
        for _ in range(200):
            if me.num_fds() <= before:
                break
            waited.wait(0.01)
        assert me.num_fds() <= before


# ---- the process and its parents --------------------------------------------------------------------------------

PARENT = """
import sys
from engine.sources.open import open_source
for frame in open_source(sys.argv[1]):
    print(frame.frame_id, flush=True)
"""


def start_parent(url: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "error"}
    return subprocess.Popen(
        [sys.executable, *(arguments or ("-c", PARENT)), url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def child_of(parent: subprocess.Popen[str]) -> psutil.Process:
    assert parent.stdout is not None
    assert parent.stdout.readline().strip().isdigit(), "the first frame, or a newer one where the machine is busy"
    (child,) = psutil.Process(parent.pid).children()
    return child


def test_the_reader_process_dies_with_the_engine() -> None:
    with mjpeg_camera(numbered_images(2)) as camera:
        parent = start_parent(camera.url)
        child = child_of(parent)
        parent.kill()
        parent.communicate()
        psutil.wait_procs([child], timeout=10)
        assert not child.is_running()


def test_the_reader_process_dies_with_the_engine_while_it_connects(silent_port: int) -> None:
    parent = start_parent(f"rtsp://127.0.0.1:{silent_port}/x")
    children: list[psutil.Process] = []
    for _ in range(1000):
        children = psutil.Process(parent.pid).children()
        if children and any(thread for thread in children[0].net_connections()):
            break
        threading.Event().wait(0.01)
    parent.kill()
    parent.communicate()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert children
    assert not alive


def test_ctrl_c_prints_no_traceback_of_the_reader_process() -> None:
    with mjpeg_camera(numbered_images(2)) as camera:
        parent = start_parent(camera.url)
        child = child_of(parent)
        os.killpg(parent.pid, signal.SIGINT)
        _, errors = parent.communicate(timeout=20)
        psutil.wait_procs([child], timeout=10)
    assert errors.count("Traceback") == 1, errors
    assert "reader_process.py" not in errors
    assert "resource_tracker" not in errors


def test_it_works_from_a_script_without_a_main_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(PARENT)
    with mjpeg_camera(numbered_images(2)) as camera:
        parent = start_parent(camera.url, str(tmp_path / "script.py"))
        child_of(parent)
        parent.kill()
        parent.communicate()


def test_it_works_from_a_prompt(tmp_path: Path) -> None:
    lines = "import engine.sources.open as o\nprint(next(iter(o.open_source('{}'))).frame_id)\n"
    with mjpeg_camera(numbered_images(2)) as camera:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, "-i", "-q"],
            input=lines.format(camera.url),
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            timeout=60,
        )
    assert done.stdout.strip().isdigit(), done.stderr


@pytest.mark.parametrize(
    "module",
    [
        pytest.param("engine.sources.live.reader_process", id="reader_process"),
        pytest.param("engine.sinks.camera_video.record_process", id="record_process"),
    ],
)
def test_the_processes_import_neither_numpy_nor_opencv(module: str) -> None:
    heavy = "{'numpy', 'cv2', 'engine.data'}"
    code = f"import sys, {module}, av; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_the_password_is_not_on_the_command_line_of_the_reader_process() -> None:
    with mjpeg_camera(numbered_images(2), user="a", password="hunter2") as camera:
        running = Running(camera.url_as("a", "hunter2"))
        running.recorder.wait_for("live")
        command = " ".join(readers()[0].cmdline())
        running.stop()
    assert "hunter2" not in command
