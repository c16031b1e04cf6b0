"""A scene with known ground truth: boxes that move at constant speed and bounce off the borders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.data import CapturedSource, Detections, Frame, SourceInfo, Tracks
from engine.errors import ConfigError
from engine.sources.base import SourceBase
from engine.video.timing.arrivals import Stamp

BACKGROUND = 40
_DIGIT_BITS = 32
_BIT_PX = 4


@dataclass(frozen=True, slots=True)
class Scene:
    """Parameters of a synthetic scene, as in `synthetic://?width=640&count=100`.

    Attributes:
        width: pixels per row.
        height: rows.
        fps: frames per second of stream time.
        count: number of frames, 0 for an endless source.
        objects: number of moving boxes.
        classes: number of classes; class ids start at 0.
        seed: for sizes, positions, speeds and colours.
        realtime: 1 to deliver the frames at their rate, like a camera; 0 as fast as they are consumed.
    """

    width: int = 640
    height: int = 480
    fps: float = 25.0
    count: int = 0
    objects: int = 5
    classes: int = 3
    seed: int = 0
    realtime: int = 0

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1 or not self.fps > 0 or self.count < 0 or self.objects < 0:
            raise ConfigError(
                f"synthetic scene {self.width}x{self.height} at {self.fps} fps, count {self.count}, objects "
                f"{self.objects}: expected sizes and fps above 0, count and objects 0 or more"
            )
        if self.classes < 1:
            raise ConfigError(f"synthetic scene has {self.classes} classes: expected 1 or more")


def scene_from_uri(uri: str) -> Scene:
    """Return the scene that a `synthetic://?name=value&...` URI describes.

    >>> scene_from_uri("synthetic://?width=320&height=240&objects=2").width
    320

    Raises:
        ConfigError: a name is unknown, or a value is not a number.
    """
    kinds: dict[str, type] = {item.name: float if item.name == "fps" else int for item in fields(Scene)}
    values: dict[str, Any] = {}
    for name, value in parse_qsl(urlsplit(uri).query, keep_blank_values=True):
        if name not in kinds:
            raise ConfigError(f"{uri}: unknown parameter {name!r}, expected one of {', '.join(kinds)}")
        try:
            values[name] = kinds[name](value)
        except ValueError as error:
            raise ConfigError(f"{uri}: {name} is {value!r}, expected a number") from error
    return Scene(**values)


class SyntheticSource(SourceBase):
    """Frames of a `Scene`; `truth(frame_id)` returns their ground truth.

    Each box has its own solid colour. If the frame is wide enough, its number is drawn as 32 black and white squares at
    the top left (`number_in_image` reads it), to follow a frame through a pipeline.
    """

    def __init__(
        self, scene: Scene, source_id: str = "synthetic", *, uri: str = "synthetic://", clock: Clock = SYSTEM_CLOCK
    ) -> None:
        super().__init__(
            SourceInfo(
                source_id,
                uri,
                is_live=bool(scene.realtime),
                width=scene.width,
                height=scene.height,
                fps=scene.fps,
                frame_count=scene.count or None,
                decoder="synthetic",
            ),
            clock,
        )
        self.scene = scene
        rng = np.random.default_rng(scene.seed)
        limit = np.array([scene.width, scene.height], np.float64)
        self._size = np.maximum(np.round(rng.uniform(0.08, 0.3, (scene.objects, 2)) * limit), 1)
        self._start = rng.uniform(0, 1, (scene.objects, 2)) * (limit - self._size)
        self._speed = rng.uniform(-0.25, 0.25, (scene.objects, 2)) * limit
        self._colour = rng.integers(90, 256, (scene.objects, 3)).astype(np.uint8)
        self._class_id = np.arange(scene.objects, dtype=np.int32) % scene.classes

    def truth(self, frame_id: int) -> Detections:
        """Return the boxes on frame `frame_id`, in whole pixels, all with score 1; later ones hide earlier ones."""
        return Detections(self._xyxy(frame_id), np.ones(self.scene.objects, np.float32), self._class_id)

    def truth_tracks(self, frame_id: int) -> Tracks:
        """Return the same boxes with their identity: `track_id` is 1 for the first box, and so on."""
        count = self.scene.objects
        return Tracks(self._xyxy(frame_id), np.ones(count), self._class_id, np.arange(1, count + 1))

    def image(self, frame_id: int) -> NDArray[np.uint8]:
        """Return the (H, W, 3) image of frame `frame_id`."""
        image = np.full((self.scene.height, self.scene.width, 3), BACKGROUND, np.uint8)
        for (x1, y1, x2, y2), colour in zip(self._xyxy(frame_id).astype(int), self._colour, strict=True):
            image[y1:y2, x1:x2] = colour
        _draw_number(image, frame_id)
        return image

    def _xyxy(self, frame_id: int) -> NDArray[np.float32]:
        """Return (N, 4) boxes: each follows a straight path, folded at the borders."""
        room = np.maximum(np.array([self.scene.width, self.scene.height]) - self._size, 0)
        path = self._start + self._speed * (frame_id / self.scene.fps)
        period = np.maximum(2 * room, 1e-9)
        folded = np.abs((path + room) % period - room)
        corner = np.round(np.minimum(folded, room))
        xyxy: NDArray[np.float32] = np.concatenate((corner, corner + self._size), axis=1).astype(np.float32)
        return xyxy

    def _frames(self) -> Iterator[Frame]:
        first_ns = self._clock.monotonic_ns()
        number = 0
        while not self._interrupted.is_set() and not (self.scene.count and number >= self.scene.count):
            pts_ns = round(number * NS_PER_S / self.scene.fps)
            if self.scene.realtime:
                self._clock.wait(self._interrupted, (first_ns + pts_ns - self._clock.monotonic_ns()) / NS_PER_S)
                if self._interrupted.is_set():
                    return
            image = self.image(number)
            known: CapturedSource = "arrival" if self.scene.realtime else "file"
            yield self._frame(image, Stamp(self._clock.monotonic_ns(), self._clock.utc_ns(), pts_ns, known))
            number += 1


def _draw_number(image: NDArray[np.uint8], number: int) -> None:
    if image.shape[1] < _DIGIT_BITS * _BIT_PX or image.shape[0] < _BIT_PX:
        return
    bits = (number >> np.arange(_DIGIT_BITS)) & 1
    image[:_BIT_PX, : _DIGIT_BITS * _BIT_PX] = np.repeat(bits * 255, _BIT_PX)[None, :, None].astype(np.uint8)


def number_in_image(image: NDArray[np.uint8]) -> int:
    """Return the frame number that `SyntheticSource` has drawn into an image, (H, W, 3) uint8; H.264 keeps it readable.

    >>> number_in_image(SyntheticSource(Scene()).image(1234))
    1234
    """
    cells = image[:_BIT_PX, : _DIGIT_BITS * _BIT_PX].reshape(_BIT_PX, _DIGIT_BITS, _BIT_PX, 3)
    bits = cells[1:-1, :, 1:-1].mean(axis=(0, 2, 3)) > 127
    return int((bits.astype(np.int64) << np.arange(_DIGIT_BITS)).sum())
