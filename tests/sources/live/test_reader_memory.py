"""What a connection has used is freed when it ends, at once: decoders are large, and garbage is rarely collected."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from engine.video.address import VideoAddress
from engine.video.decode import VideoReader
from tests.media import Camera, mjpeg_camera, numbered_images


@pytest.fixture
def camera() -> Iterator[Camera]:
    with mjpeg_camera(numbered_images(3)) as camera:
        yield camera


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("ending", ["silent", "hung up", "stopped"])
def test_a_reader_is_freed_when_its_connection_has_ended(camera: Camera, ending: str) -> None:
    reader = VideoReader(VideoAddress(camera.url, format="mpjpeg", live=True, open_timeout_s=5.0, read_timeout_s=0.5))
    items = reader.frames()
    next(items)
    if ending == "silent":
        camera.frozen.set()
    if ending == "hung up":
        camera.hung_up.set()
    if ending != "stopped":
        assert all(True for _ in items), "reads to the end"
    assert ending != "silent" or reader.failure is not None
    reader.close()
    freed = weakref.ref(reader)
    del reader, items
    assert freed() is None
