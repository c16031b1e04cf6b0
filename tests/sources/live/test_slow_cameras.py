"""Cameras of about one frame per second, as at night: opened soon, and no frame lost to wrong times."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import av
import pytest

from engine.data import Frame
from engine.sources.open import open_source
from tests.media import Recorder, encode_clip, mjpeg_camera, numbered_images

SLOW_S = 0.7  # more than the half second from which a wait could be a standstill of the network


@contextmanager
def sender(packets: Sequence[bytes], interval_s: float) -> Iterator[tuple[int, list[int]]]:
    """Send packets to each client repeatedly, one per interval; yields the port and what was sent."""
    sent: list[int] = []
    ended = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.1)

    def serve() -> None:
        while not ended.is_set():
            with suppress(OSError):
                client, _ = server.accept()
                with client:
                    while not ended.wait(interval_s):
                        client.sendall(packets[len(sent) % len(packets)])
                        sent.append(len(sent))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1], sent
    finally:
        ended.set()
        thread.join()
        server.close()


def taken(uri: str, count: int, reader: str) -> tuple[list[Frame], Recorder]:
    source, recorder, frames = open_source(uri, reader=reader), Recorder(), []
    source.attach(recorder)
    for frame in source:
        frames.append(frame)
        if len(frames) == count:
            break
    return frames, recorder


@pytest.mark.parametrize("reader", ["process", "thread"])
def test_a_slow_mjpeg_camera_has_every_frame_and_its_real_times(reader: str) -> None:
    """FFmpeg stamps MJPEG with 40 ms per frame: captured_ns must not follow that."""
    with mjpeg_camera(numbered_images(5), fps=1 / SLOW_S) as camera:
        frames, recorder = taken(camera.url, 6, reader)
    assert [frame.frame_id for frame in frames] == list(range(6))
    assert not recorder.losses
    steps_s = [(after.captured_ns - before.captured_ns) / 1e9 for before, after in pairwise(frames)]
    assert min(steps_s) > SLOW_S / 2


def test_a_slow_stream_without_container_opens_after_a_few_frames(tmp_path: Path) -> None:
    clip = encode_clip(
        tmp_path / "a.h264", numbered_images(20), container="h264", options={"tune": "zerolatency", "g": "1"}
    )
    with av.open(str(clip)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    with sender(packets, 0.3) as (port, sent):
        frames, _ = taken(f"tcp://127.0.0.1:{port}", 1, "thread")
        assert len(sent) < 10
    assert frames[0].pts_ns is None


def test_a_damaged_frame_of_a_slow_camera_costs_no_connection() -> None:
    """A pause after a damaged frame is not damage: the next frame is two seconds and more away."""
    with mjpeg_camera(numbered_images(4), fps=1 / 2.2) as camera:
        camera.images = [camera.images[0], camera.images[1][: len(camera.images[1]) // 2], *camera.images[2:]]
        frames, recorder = taken(camera.url, 3, "thread")
    assert recorder.losses == {"corrupt": 1}
    assert "offline" not in recorder.states
    assert {frame.stream_epoch for frame in frames} == {0}
