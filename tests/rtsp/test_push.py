"""Annotated video pushed to GStreamer's RTSP server and to FFmpeg's RTMP server, and read back."""

from __future__ import annotations

import itertools
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from engine.data import Detections, Frame, Packet, Run, Tracks
from engine.errors import ConfigError
from engine.flow.pipeline import Pipeline
from engine.sinks.video_push.push import VideoPush, summary_of
from engine.sinks.video_push.push_process import Pictures, messages_of
from engine.sinks.video_push.pusher import push_address
from engine.video.options import SourceOptions
from pipelines.build.pipeline import build_pipeline
from pipelines.build.push import check_push
from pipelines.config.file import load_config
from tests.hostile.certificates import self_signed
from tests.imaging.markers import READABLE, FindsPeople, correlation, people, scene
from tests.media import encode_clip
from tests.rtsp_server import PYTHON, kill

SCRIPT = Path(__file__).with_name("record_server.py")
FRAMES, FPS, BITS, CELL = 16, 10, 5, 10
PATIENCE_S = 60.0
DRAWN = 45.0  # of `drawn_at`: about 25 without a box, 90 or more with one


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


class RecordServer:
    """Takes pushed video and writes every connection into a file of its folder."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        line = [PYTHON, str(SCRIPT), str(folder), "--port", str(port)]
        self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline().split()[1])
        self.url = f"rtsp://127.0.0.1:{self.port}/gate"

    def say(self, what: signal.Signals) -> None:
        self._process.send_signal(what)

    def kill(self) -> None:
        kill(self._process)


@pytest.fixture
def record(rtsp_available: None, tmp_path: Path) -> Iterator[Callable[..., RecordServer]]:
    servers: list[RecordServer] = []

    def start(port: int = 0) -> RecordServer:
        folder = tmp_path / f"server{len(servers)}"
        folder.mkdir()
        servers.append(RecordServer(folder, port))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people who walk, and the number of the frame as squares in the lower left corner."""
    images = []
    for number in range(FRAMES):
        image = scene(number)
        for bit in range(BITS):
            image[-CELL:, bit * CELL : (bit + 1) * CELL] = 255 * (number >> bit & 1)
        images.append(image)
    return encode_clip(tmp_path_factory.mktemp("input") / "walk.mp4", images, rate=FPS, options={"crf": "4"})


def number_of(image: np.ndarray) -> int:
    cells = [image[-CELL + 3 : -3, bit * CELL + 3 : (bit + 1) * CELL - 3].mean() for bit in range(BITS)]
    return sum(1 << bit for bit, mean in enumerate(cells) if mean > 128)


def drawn_at(image: np.ndarray, number: int) -> float:
    """Return how much of the outline of a frame's person is drawn on an image."""
    changed = np.abs(image.astype(int) - scene(number_of(image))).max(axis=2)
    x1, y1, x2, y2 = people(number)[0]
    left, right = (changed[y1 + 10 : y2, x - 4 : x + 5].max(axis=1).mean() for x in (x1, x2))
    return float(left + right)


def pictures_in(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as video:
        frames = list(video.decode(video=0))
    return [frame.to_ndarray(format="bgr24") for frame in frames], [float(frame.time) for frame in frames]


def configured(clip: Path, **values: Any) -> Any:
    source = {"uri": str(clip), "source_id": "gate", "realtime": True, "loop": True}
    overlay = {"labels": False, "trace": False}
    given = {"sources": [source], "publish": {"address": "none", **values}, "output": {"overlay": overlay}}
    return load_config(None, given)


def sent(pipeline: Pipeline, at: int = 0) -> int:
    found = summary_of(pipeline.sinks).get("push", {})
    return int(found["gate"]["to"][at]["sent"]) if found.get("gate", {}).get("to") else 0


def test_the_boxes_that_come_back_are_on_the_right_frames_at_the_same_rate(
    clip: Path, record: Callable[..., RecordServer]
) -> None:
    server = record()
    with build_pipeline(configured(clip, rtsp=server.url), make_detector=lambda *_: FindsPeople()) as pipeline:
        pipeline.start()
        eventually(lambda: sent(pipeline) >= 30)
    images, times = pictures_in(server.folder / "1.mkv")
    assert len(images) >= 15
    assert np.median(np.diff(times)) == pytest.approx(1 / FPS, rel=0.15)
    numbers = [number_of(image) for image in images]
    steps = {(after - before) % FRAMES for before, after in itertools.pairwise(numbers)}
    assert 1 in steps
    nearest = []  # for images with boxes: the first image of a new track has none
    for image, number in zip(images, numbers, strict=True):
        drawn = {at: drawn_at(image, at) for at in range(number - 3, number + 4) if 0 <= at < FRAMES}
        if max(drawn.values()) > DRAWN:
            nearest.append((number, max(drawn, key=lambda at: drawn[at])))
    assert len(nearest) >= len(images) / 2
    assert sum(number == at for number, at in nearest) >= 0.95 * len(nearest)


def test_nobody_waits_for_a_server_that_hangs_and_one_that_returns_is_found(
    clip: Path, record: Callable[..., RecordServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.sinks.video_push.pusher.SILENT_S", 2.0)
    server = record()
    with build_pipeline(configured(clip, rtsp=server.url), make_detector=lambda *_: FindsPeople()) as pipeline:
        pipeline.start()
        eventually(lambda: sent(pipeline) >= 5)
        server.say(signal.SIGSTOP)
        before = pipeline.stats.source("gate").published
        eventually(lambda: pipeline.stats.source("gate").published >= before + 15)
        server.kill()
        again = record(server.port)
        before = sent(pipeline)
        eventually(lambda: sent(pipeline) >= before + 10)
        [figures] = summary_of(pipeline.sinks)["push"]["gate"]["to"]
        assert figures["reconnects"] >= 1
    assert len(pictures_in(again.folder / "1.mkv")[0]) >= 1


def test_rtmp_gets_the_same_pictures_and_its_key_is_told_nobody(
    clip: Path, tmp_path: Path, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    url, target = f"rtmp://127.0.0.1:{free_port}/live/sesame-1234", tmp_path / "out.mkv"
    line = [sys.executable, str(SCRIPT.with_name("rtmp_server.py")), url, str(target)]
    server = subprocess.Popen(line, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with build_pipeline(configured(clip, rtmp=url), make_detector=lambda *_: FindsPeople()) as pipeline:
            pipeline.start()
            eventually(lambda: sent(pipeline) >= 15)
            told = str(summary_of(pipeline.sinks))
        server.wait(PATIENCE_S)
    finally:
        server.kill()
        server.wait()
    images, times = pictures_in(target)
    assert len(images) >= 12
    assert np.median(np.diff(times)) == pytest.approx(1 / FPS, abs=0.003)
    assert "sesame" not in told + caplog.text
    assert "/live/***" in told


def test_a_server_whose_certificate_is_not_trusted_gets_nothing(tmp_path: Path) -> None:
    context, trusted = self_signed(tmp_path)
    heard: list[bytes] = []
    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        thread = threading.Thread(target=_listen, args=(listener, context, heard, is_over))
        thread.start()
        url = f"rtsps://me:opensesame@127.0.0.1:{listener.getsockname()[1]}/gate"
        try:
            told = pushed(url, "verify", lambda told: "not trusted" in told)
            assert not any(heard)
            pushed(url, {"ca": trusted}, lambda _: any(heard))
        finally:
            is_over.set()
            thread.join()
    assert any(data.startswith((b"OPTIONS rtsps://", b"ANNOUNCE rtsps://")) for data in heard)
    assert "opensesame" not in told


def pushed(url: str, tls: Any, holds: Callable[[str], bool]) -> str:
    """Push until something holds for the summary, and return that."""
    push = VideoPush(lambda _: [push_address(url, "rtsp", SourceOptions(tls=tls))], lambda one: one.frame.image)
    push.open(Run("e", 0))

    def is_there() -> bool:
        push.write(packet(0))
        return holds(str(push.summary()))

    try:
        eventually(is_there)
        return str(push.summary())
    finally:
        push.close()


def _listen(listener: socket.socket, context: ssl.SSLContext, heard: list[bytes], is_over: threading.Event) -> None:
    while not is_over.is_set():
        try:
            with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                connection.settimeout(1)
                heard.append(connection.recv(1000))
        except OSError:
            continue


def packet(number: int) -> Packet:
    frame = Frame(scene(number), "gate", number, number * 100_000_000)
    return Packet(frame, Detections.empty(), Tracks.empty(), Run("e", 0))


def test_writing_never_waits_and_what_is_too_much_is_skipped() -> None:
    slow = threading.Event()

    def draw(one: Packet) -> np.ndarray:
        slow.wait(PATIENCE_S)
        return one.frame.image

    push = VideoPush(lambda _: [], draw)
    push.open(Run("e", 0))
    began = time.monotonic()
    for number in range(200):
        push.write(packet(number % FRAMES))
    assert time.monotonic() - began < PATIENCE_S
    slow.set()
    push.close()


def test_pictures_cross_in_parts_and_those_that_lack_one_are_dropped() -> None:
    from engine.sinks.video_push.encoder import Encoded

    whole, parts = Encoded(bytes(range(250)) * 700, 900, True), Pictures()
    messages = list(messages_of(whole))
    assert len(messages) == 3
    found = [parts.add(message) for message in messages]
    assert found[:2] == [None, None]
    assert found[2] == whole
    assert [parts.add(message) for message in (messages[0], messages[2], *messages)][-1] == whole
    assert all(parts.add(message) is None for message in (b"", b"C", b"K", b"Kx", b"?" * 20))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"rtsp": "http://host/x"}, "publish.rtsp: http://host/x: expected an address that begins with rtsp://"),
        ({"rtsp": "rtsp://host"}, r"publish.rtsp: rtsp://host: expected rtsp://HOST:PORT/NAME"),
        ({"rtmp": "rtsp://host/x"}, "publish.rtmp: rtsp://host/x: expected an address that begins with rtmp://"),
        ({"rtsp": "rtsp://host:99999/x"}, "publish.rtsp: rtsp://host:99999/x: Port out of range"),
    ],
)
def test_addresses_that_cannot_work_are_refused(given: dict[str, str], reason: str, clip: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_push(configured(clip, **given))


def test_several_sources_need_an_address_each_or_a_grid(clip: Path) -> None:
    given = {
        "sources": [{"uri": str(clip), "source_id": name} for name in ("a", "b")],
        "publish": {"address": "none", "rtsp": "rtsp://host/x"},
    }
    with pytest.raises(ConfigError, match="publish.rtsp: several sources cannot share one stream"):
        check_push(load_config(None, given))
    check_push(load_config(None, {**given, "output": {"grid": True}}))
    check_push(load_config(None, {**given, "publish": {"address": "none", "rtsp": "rtsp://host/{source_id}"}}))


def test_the_pictures_are_those_that_privacy_lets_through(clip: Path, record: Callable[..., RecordServer]) -> None:
    server = record()
    config = configured(clip, rtsp=server.url)
    config = config.model_copy(update={"privacy": load_config(None, {"privacy": {"mode": "blur"}}).privacy})
    with build_pipeline(config, make_detector=lambda *_: FindsPeople()) as pipeline:
        pipeline.start()
        eventually(lambda: sent(pipeline) >= 20)
    images, _ = pictures_in(server.folder / "1.mkv")
    assert len(images) >= 5
    assert max(map(correlation, images)) < READABLE
    assert all(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).std() > 5 for image in images)
