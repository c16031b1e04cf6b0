"""Frames whose image is converted when it is first read keep every promise of `Frame`."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.clock import SYSTEM_CLOCK
from engine.data import Frame, SourceInfo
from engine.flow.attention.gate import FrameGate, MotionGate
from engine.flow.pipeline import Pipeline
from engine.lazy_image import LazyImage
from engine.sources.base import SourceBase
from engine.sources.live.pixels import DecodedImage, lazy_image_from_frame
from engine.tracking.untracked import Untracked
from engine.video.timing.arrivals import Stamp
from engine.video.to_bgr import BgrConverter
from tests.fakes import PixelDetector


class Counted(LazyImage):
    """A grey image that counts how often it was converted."""

    def __init__(self, grey: int, *, has_luma: bool = True) -> None:
        self.width, self.height = 64, 48
        self.conversions = 0
        self._grey, self._has_luma = grey, has_luma
        self._image: NDArray[np.uint8] | None = None

    def image(self) -> NDArray[np.uint8]:
        if self._image is None:
            self.conversions += 1
            self._image = np.full((self.height, self.width, 3), self._grey, np.uint8)
            self._image.flags.writeable = False
        return self._image

    def luma(self) -> NDArray[np.uint8] | None:
        return np.full((self.height, self.width), self._grey, np.uint8) if self._has_luma else None


def lazy(picture: LazyImage, frame_id: int = 0) -> Frame:
    return Frame(picture, "gate", frame_id)  # type: ignore[arg-type]


def decoded(pixel_format: str = "yuv420p", size_wh: tuple[int, int] = (70, 50)) -> av.VideoFrame:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)
    return av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format=pixel_format)


def test_size_and_brightness_need_no_conversion_and_the_image_needs_one() -> None:
    picture = Counted(7)
    frame = lazy(picture)
    assert (frame.width, frame.height, picture.conversions) == (64, 48, 0)
    assert frame.luma is not None
    assert frame.luma.shape == (48, 64)
    assert picture.conversions == 0
    assert frame.image is frame.image
    assert (frame.width, frame.height, picture.conversions) == (64, 48, 1)
    assert not frame.image.flags.writeable
    assert frame.luma is None


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))])
def test_copies_have_the_image(copied: object) -> None:
    frame = copied(lazy(Counted(7), 3))  # type: ignore[operator]
    assert (frame.frame_id, frame.width, frame.luma) == (3, 64, None)
    assert (frame.image == 7).all()


def test_a_frame_with_another_image_has_nothing_of_the_decoded_picture() -> None:
    """A frame in which people were hidden must give no access to the image that shows them."""
    hidden = replace(lazy(Counted(7)), image=np.zeros((48, 64, 3), np.uint8))
    assert hidden.luma is None
    assert (hidden.image == 0).all()
    assert replace(lazy(Counted(7)), frame_id=9).image[0, 0, 0] == 7


def test_a_frame_with_other_times_shares_the_picture() -> None:
    picture = Counted(7)
    frame = lazy(picture)
    later = frame.restamped(frame_id=9, captured_ns=5)
    assert (later.frame_id, later.captured_ns, later.source_id) == (9, 5, "gate")
    assert later.luma is not None
    assert picture.conversions == 0
    assert later.image is frame.image
    eager = Frame(frame.image, "gate").restamped(pts_ns=3)
    assert eager.pts_ns == 3
    assert np.shares_memory(eager.image, frame.image)


def test_an_unknown_attribute_is_still_an_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        lazy(Counted(7)).nothing  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv444p", "nv12", "rgb24", "yuv420p10le"])
def test_a_decoded_picture_is_what_the_converter_makes_of_it(pixel_format: str) -> None:
    given, convert = decoded(pixel_format), BgrConverter()
    frame = lazy(DecodedImage(given, convert))
    expected = given.reformat(format="bgr24").to_ndarray()
    has_luma = pixel_format not in ("rgb24", "yuv420p10le")
    assert (frame.luma is not None) == has_luma
    if frame.luma is not None and pixel_format != "yuv444p":  # which PyAV returns with channels last
        assert np.array_equal(frame.luma.ravel(), given.to_ndarray().ravel()[: given.width * given.height])
    assert np.array_equal(frame.image, expected)


@pytest.mark.parametrize("size_wh", [(70, 50), (71, 51)], ids=str)
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "nv12"])
def test_planes_are_those_of_the_decoder(pixel_format: str, size_wh: tuple[int, int]) -> None:
    given = decoded(pixel_format, size_wh)
    planes = lazy(DecodedImage(given, BgrConverter())).planes
    assert planes is not None
    assert planes.luma.shape == (size_wh[1], size_wh[0])
    assert planes.chroma.is_interleaved == (pixel_format == "nv12")
    assert planes.chroma.is_full_range == (pixel_format == "yuvj420p")
    for plane, array in zip(given.planes, (planes.luma, *planes.colours), strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        assert np.array_equal(array.reshape(len(array), -1), rows[: len(array), : array[0].size])
        assert not array.flags.writeable
    assert planes.nbytes == sum(array.size for array in (planes.luma, *planes.colours))


def test_planes_of_other_kinds_and_of_converted_frames_are_none() -> None:
    kinds = ("yuv444p", "yuv422p", "rgb24", "yuv420p10le", "gray")
    assert [lazy(DecodedImage(decoded(kind), BgrConverter())).planes for kind in kinds] == [None] * len(kinds)
    wide = decoded()
    wide.colorspace = 9  # BT.2020
    assert lazy(DecodedImage(wide, BgrConverter())).planes is None
    frame = lazy(DecodedImage(decoded(), BgrConverter()))
    assert frame.planes is not None
    assert frame.image.shape == (50, 70, 3)
    assert frame.planes is None
    assert lazy(Counted(7)).planes is None
    assert Frame(np.zeros((4, 4, 3), np.uint8)).planes is None


def test_threads_that_read_the_image_at_once_get_the_same_array() -> None:
    unread = lazy_image_from_frame(decoded(size_wh=(640, 480)), BgrConverter())
    assert isinstance(unread, DecodedImage)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(id(unread.image()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1


def test_brightness_moves_the_gate_as_the_image_does() -> None:
    random = np.random.default_rng(1)
    picture = random.integers(40, 200, (270, 480), np.uint8)
    for gate, shown in ((MotionGate(), picture), (MotionGate(), np.repeat(picture[..., None], 3, axis=2))):
        moved = shown.copy()
        moved[100:140, 200:220] = 255
        assert gate.is_due(shown, 0)
        assert not gate.is_due(shown, 1)
        assert gate.is_due(moved, 2)
        assert not gate.is_due(moved, 3)


class Pictures(SourceBase):
    """Ten grey images, the last five brighter."""

    def __init__(self) -> None:
        super().__init__(SourceInfo("gate", "pictures", is_live=False, width=64, height=48, fps=10))
        self.pictures = [Counted(60 if number < 5 else 160) for number in range(10)]

    def _frames(self) -> Iterator[Frame]:
        for number, picture in enumerate(self.pictures):
            yield self._frame(
                picture, Stamp(SYSTEM_CLOCK.monotonic_ns(), SYSTEM_CLOCK.utc_ns(), number * 10**8, "file")
            )


def test_only_frames_that_are_detected_are_converted() -> None:
    source = Pictures()
    rules = {"gate": FrameGate(motion_gate=MotionGate())}
    with Pipeline(source, PixelDetector(), Untracked(), rules=rules) as pipeline:
        held = [packet.is_held for packet in pipeline]
    assert held == [False, True, True, True, True] * 2
    assert [picture.conversions for picture in source.pictures] == [1, 0, 0, 0, 0] * 2
