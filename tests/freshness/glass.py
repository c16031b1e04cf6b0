"""Glass to subscriber: the age of a result when a subscriber has it, from a clock that the frame itself carries.

A camera outside the engine paints the time into each frame. A subscriber gets the message of each frame and the
frame's JPEG, reads the painted time, and compares: is the age the one that `latency_ms` reports?
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import cv2
import numpy as np

from engine.subscriber import NoMessageError, Subscriber
from engine.wire import FrameMessage, ImageMessage
from engine.wire.codec import decode
from tests.freshness.engine_process import EngineProcess
from tests.freshness.pixel_clock import luma, moment_us, now_us
from tests.media import Camera, served
from tests.rtsp_server import RtspServer

SIZE = (320, 240)
CAMERAS = ("mjpeg", "rtsp-jpeg", "rtsp-h264", "rtsp-h265")
WARM_UP_S = 2.5  # the engine's first frames, and until it knows how this camera splits its frames into packets


@dataclass(frozen=True)
class Spread:
    """Median, 95th percentile, minimum and maximum of a figure in ms."""

    p50: float
    p95: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.p50:7.1f} {self.p95:7.1f} {self.least:7.1f} {self.most:7.1f}"


@dataclass(frozen=True)
class Glass:
    """A subscriber's measurements.

    Attributes:
        camera: kind of the camera.
        fps: its rate.
        count: frames compared.
        unreadable: frames whose clock could not be read.
        age_ms: from painting to the subscriber.
        latency_ms: the wire's value, from capture to publishing.
        transport_ms: from publishing to the subscriber.
        unknown_ms: age less latency and transport: from painting to the time that the engine takes for the capture.
        difference_ms: age less latency.
    """

    camera: str
    fps: float
    count: int
    unreadable: int
    age_ms: Spread
    latency_ms: Spread
    transport_ms: Spread
    unknown_ms: Spread
    difference_ms: Spread


class PaintedNow(Sequence[bytes]):
    """JPEGs that are painted when they are requested."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: object) -> bytes:  # type: ignore[override]
        width, height = SIZE
        grey = np.frombuffer(luma(width, height, now_us()), np.uint8).reshape(height, width)
        return bytes(cv2.imencode(".jpg", grey)[1])


@contextmanager
def clocked_camera(kind: str, fps: int) -> Iterator[str]:
    """Serve a camera with a clock in its frames, and yield its address."""
    if kind == "mjpeg":
        with served(Camera(PaintedNow(), fps=fps)) as camera:
            yield camera.url
        return
    codec = kind.removeprefix("rtsp-")
    size = f"{SIZE[0]}x{SIZE[1]}"
    with closing(RtspServer(codec=codec, size=size, fps=fps, gop=max(fps // 2, 1), pixel_clock=True)) as server:
        yield server.url


def glass_to_subscriber(kind: str, seconds: float, *, fps: int = 25, model: str = "motion") -> Glass:
    """Run `framewire run` on a camera that paints its clock, and return a subscriber's measurements."""
    pictures = ("publish.pictures.images_per_s=60", f"publish.pictures.max_side={SIZE[0]}")
    with (
        clocked_camera(kind, fps) as uri,
        EngineProcess({"camera": uri}, *pictures, model=model) as engine,
        engine.subscriber(("v1/frame/", "v1/image/")) as subscriber,
    ):
        list(_pairs(subscriber, WARM_UP_S))
        rows = list(_pairs(subscriber, seconds))
        engine.end()
    sure = np.array([row for row in rows if row is not None])
    age, latency, transport = sure.T
    return Glass(
        kind,
        fps,
        len(sure),
        len(rows) - len(sure),
        _spread(age),
        _spread(latency),
        _spread(transport),
        _spread(age - latency - transport),
        _spread(age - latency),
    )


def _pairs(subscriber: Subscriber, seconds: float) -> Iterator[tuple[float, float, float] | None]:
    """Yield age, latency and transport of each frame in ms; None if its clock cannot be read."""
    end = time.monotonic() + seconds
    frame: tuple[FrameMessage, int, int] | None = None
    while (left_s := end - time.monotonic()) > 0:
        try:
            parts = subscriber.receive_parts(left_s)
        except NoMessageError:
            return
        received_ns, received_utc_ns = time.monotonic_ns(), time.time_ns()
        assert parts is not None
        message = decode(parts[1])
        if isinstance(message, FrameMessage):
            frame = (message, received_ns, received_utc_ns)
        elif isinstance(message, ImageMessage) and frame is not None and frame[0].frame_id == message.frame_id:
            yield _ages(*frame, parts[2])


def _ages(message: FrameMessage, at_ns: int, at_utc_ns: int, jpeg: bytes) -> tuple[float, float, float] | None:
    painted_us = moment_us(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))
    if painted_us is None:
        return None
    return at_ns / 1e6 - painted_us / 1e3, message.latency_ms, (at_utc_ns - message.published_utc_ns) / 1e6


def _spread(values: np.ndarray) -> Spread:
    p50, p95 = np.percentile(values, (50, 95))
    return Spread(float(p50), float(p95), float(values.min()), float(values.max()))
