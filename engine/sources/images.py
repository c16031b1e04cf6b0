"""Folders of images, and single images: in natural order, of any sizes; a growing folder is followed."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.data import Frame, SourceInfo
from engine.errors import SourceError
from engine.sources.base import SourceBase
from engine.video.arrivals import Stamp

logger = logging.getLogger(__name__)
SUFFIXES = frozenset(
    (".bmp", ".jpeg", ".jpg", ".jpe", ".jp2", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
_POLL_S = 0.1
_DIGITS = re.compile(r"(\d+)")


def natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts `img2` before `img10`.

    >>> [p.name for p in sorted(map(Path, ["img10.png", "img2.png", "b.png"]), key=natural_key)]
    ['b.png', 'img2.png', 'img10.png']
    """
    parts = _DIGITS.split(path.as_posix().lower())
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)


SEQUENCE_SAMPLE = 3


class ImagesSource(SourceBase):
    """One frame per image file. An image that cannot be read is reported as lost with cause `corrupt`.

    Args:
        place: an image, a folder of images, or a glob pattern.
        source_id: its name.
        fps: nominal rate; gives the frames stream times.
        grow_s: wait for new images until none came for that long; None: read what is there.
        clock: time, for tests.
    """

    def __init__(
        self,
        place: Path,
        source_id: str,
        *,
        fps: float | None = None,
        grow_s: float | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(SourceInfo(source_id, str(place), is_live=False, fps=fps, decoder="opencv"), clock)
        self._place = place
        self._grow_s = grow_s

    def is_sequence(self) -> bool:
        """Return whether the images look like the frames of one video: numbered, and the first ones of one size.

        Unrelated photos have nothing to track from one to the next.
        """
        first = self.paths()[:SEQUENCE_SAMPLE]
        if self._grow_s is not None:
            return True
        if len(first) < SEQUENCE_SAMPLE or not all(path.stem[-1:].isdigit() for path in first):
            return False
        import cv2

        images = [cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_8) for path in first]
        return len({None if image is None else image.shape for image in images}) == 1

    def paths(self) -> list[Path]:
        """Return the image files that are there now, in natural order."""
        place = self._place
        if place.is_file():
            return [place]
        if place.is_dir():
            found = list(place.iterdir())
        else:
            anchor = Path(place.anchor) if place.is_absolute() else Path()
            found = list(anchor.glob(str(place.relative_to(anchor))))
        return sorted((p for p in found if p.suffix.lower() in SUFFIXES and p.is_file()), key=natural_key)

    def _frames(self) -> Iterator[Frame]:
        number = -1
        for number, path in enumerate(self._following() if self._grow_s else self._once()):
            if self._interrupted.is_set():
                return
            image = _read(path)
            if image is None:
                logger.warning("%s is no image that can be read: it is skipped", path)
                self._lose(1, "corrupt")
                continue
            fps = self.info.fps
            pts_ns = None if fps is None else round(number * NS_PER_S / fps)
            yield self._frame(image, Stamp(self._clock.monotonic_ns(), self._clock.utc_ns(), pts_ns, "file"))
        if number < 0:
            raise SourceError(f"{self._place} has no images: expected files such as *.jpg or *.png")

    def _once(self) -> Iterator[Path]:
        paths = self.paths()
        self._describe(frame_count=len(paths))
        yield from paths

    def _following(self) -> Iterator[Path]:
        """Yield images as they appear; the newest one waits until it has stopped growing."""
        seen: dict[Path, int] = {}
        idle_ns = self._clock.monotonic_ns()
        limit_ns = int((self._grow_s or 0) * NS_PER_S)
        while self._clock.monotonic_ns() - idle_ns < limit_ns and not self._interrupted.is_set():
            for path in self.paths():
                size = _size(path)
                if seen.get(path) == size and size > 0:
                    seen[path] = -1
                    idle_ns = self._clock.monotonic_ns()
                    yield path
                elif seen.get(path) != -1:
                    seen[path] = size
            self._clock.wait(self._interrupted, _POLL_S)


def _size(path: Path) -> int:
    """Return the bytes of a file, 0 if it has been taken away."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read(path: Path) -> NDArray[np.uint8] | None:
    """Return the image as (H, W, 3) BGR, upright as its EXIF says, or None."""
    import cv2

    try:
        encoded = np.fromfile(path, np.uint8)
    except OSError:
        return None
    if encoded.size == 0:
        return None
    try:
        image: NDArray[np.uint8] | None = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return image
