"""RTSP cameras, served by GStreamer on loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from engine.data import Frame
from engine.errors import SourceError
from engine.sources.open import open_source
from tests.faults.proxy import FaultProxy
from tests.media import Recorder
from tests.rtsp_server import RtspServer

pytestmark = pytest.mark.rtsp
Serve = Callable[..., RtspServer]


def take(url: str, count: int, **options: object) -> tuple[list[Frame], Recorder]:
    source, recorder = open_source(url, **options), Recorder()
    source.attach(recorder)
    frames = []
    for frame in source:
        frames.append(frame)
        if len(frames) == count:
            source.interrupt()
    return frames, recorder


@pytest.mark.parametrize("reader", ["process", "thread"])
@pytest.mark.parametrize("codec", ["h264", "h265", "vp8", "jpeg"])
def test_a_camera_is_read(serve: Serve, codec: str, reader: str) -> None:
    server = serve(codec=codec)
    frames, recorder = take(server.url, 30, reader=reader)
    assert recorder.states == ["connecting", "live", "ended"]
    assert frames[-1].image.shape == (240, 320, 3)
    assert frames[-1].image.max() > 100, "there is a white ball"
    assert frames[-1].frame_id + 1 == 30 + sum(recorder.losses.values())
    times = [frame.pts_ns or 0 for frame in frames]
    assert times == sorted(set(times))
    assert recorder.statuses[-1].info.codec in ("h264", "hevc", "vp8", "mjpeg")


def test_frames_are_current(serve: Serve) -> None:
    server = serve(fps=25)
    frames, _ = take(server.url, 50)
    drift_ns = [frame.captured_ns - (frame.pts_ns or 0) for frame in frames]
    assert max(drift_ns) - min(drift_ns) < 1_000_000_000, "arrival does not fall behind stream time"


def test_the_clock_of_the_camera_is_used_once_it_reports_it(serve: Serve) -> None:
    import av

    if not hasattr(av.Packet, "iter_sidedata"):
        pytest.skip("this PyAV hands out no RTCP times: PyAV 18 does")
    server = serve(fps=25)
    source = open_source(server.url)
    timer = threading.Timer(60, source.interrupt)
    timer.start()
    known = None
    for frame in source:
        if frame.captured_source == "rtcp":
            known = (frame, time.time_ns())
            source.interrupt()
    timer.cancel()
    assert known is not None, "a sender report comes about every 5 s"
    frame, now_ns = known
    assert 0 < now_ns - frame.captured_utc_ns < 5_000_000_000


def test_a_password_is_used_and_a_wrong_one_named_and_hidden(serve: Serve) -> None:
    server = serve(user="admin:sesame")
    address = f"127.0.0.1:{server.port}/stream"
    frames, _ = take(f"rtsp://admin:sesame@{address}", 1)
    assert frames
    with pytest.raises(SourceError, match="refused the user name or password") as caught:
        take(f"rtsp://admin:hunter2@{address}", 1, reconnect=False)
    assert "hunter2" not in str(caught.value)


def test_a_wrong_path_is_named(serve: Serve) -> None:
    server = serve()
    with pytest.raises(SourceError, match="no such stream"):
        take(server.url + "2", 1, reconnect=False)


def test_a_server_that_dies_is_connected_again_when_it_is_back(serve: Serve) -> None:
    server = serve()
    source, recorder = open_source(server.url), Recorder()
    source.attach(recorder)
    frames: list[Frame] = []
    thread = threading.Thread(target=lambda: frames.extend(source))
    thread.start()
    recorder.wait_for("live")
    server.kill()
    recorder.wait_for("offline", 2)
    server.start()
    assert recorder.wait_for("live", 2).stream_epoch == 1
    source.interrupt()
    thread.join(10)
    assert not thread.is_alive()
    assert frames[-1].frame_id + 1 == len(frames) + sum(recorder.losses.values())


def test_a_server_that_freezes_is_stalled_and_goes_on(serve: Serve) -> None:
    server = serve()
    source, recorder = open_source(server.url, stall_s=0.3, read_timeout_s=10), Recorder()
    source.attach(recorder)
    thread = threading.Thread(target=lambda: [None for _ in source])
    thread.start()
    recorder.wait_for("live")
    server.pause()
    recorder.wait_for("stalled")
    server.resume()
    assert recorder.wait_for("live", 2).stream_epoch == 0, "the connection was kept"
    source.interrupt()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("reader", ["thread", "process"])
def test_a_camera_that_drips_and_completes_no_frame_is_connected_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    monkeypatch.setattr("tests.faults.proxy._CHUNK", 1000)
    proxy = FaultProxy(serve(size="640x480", pattern="snow", kbps=8000).port)
    source = open_source(f"rtsp://127.0.0.1:{proxy.port}/stream", reader=reader, read_timeout_s=1.0)
    recorder = Recorder()
    source.attach(recorder)
    thread = threading.Thread(target=lambda: [None for _ in source])
    thread.start()
    recorder.wait_for("live")
    proxy.bytes_per_s = 4000  # a frame takes seconds, its parts come every 0.25 s
    recorder.wait_for("offline")
    source.interrupt()
    proxy.close()
    thread.join(10)
    assert not thread.is_alive()
