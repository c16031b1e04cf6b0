"""Folders of images and single images: in natural order, of any sizes; a growing folder is watched."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.data import Frame, SourceInfo
from engine.errors import SourceError
from engine.paths import utf8_text
from engine.sources.base import SourceBase
from engine.video.read_image import IMAGE_SUFFIXES, read_image
from engine.video.sizes.image_header import image_size_wh
from engine.video.sizes.limits import MAX_PIXELS
from engine.video.timing.arrivals import Stamp

logger = logging.getLogger(__name__)
_POLL_S = 0.1
_DIGITS = re.compile(r"(\d+)")


def natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts `img2` before `img10`.

    >>> [p.name for p in sorted(map(Path, ["img10.png", "img2.png", "b.png"]), key=natural_key)]
    ['b.png', 'img2.png', 'img10.png']
    """
    parts = _DIGITS.split(path.as_posix().lower())
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)


def is_of_images(uri: str) -> bool:
    """Return whether an address names images: an image file, a folder, or a glob pattern.

    >>> is_of_images("a/*.jpg"), is_of_images("rtsp://192.0.2.10/stream")
    (True, False)
    """
    if "://" in uri:
        return False
    place = Path(uri)
    return place.suffix.lower() in IMAGE_SUFFIXES or place.is_dir()


SEQUENCE_SAMPLE = 3
HEADER_BYTES = 1 << 20


class ImagesSource(SourceBase):
    """One frame per image file. An image that cannot be read is reported as lost with cause `corrupt`.

    Args:
        place: an image, a folder of images, or a glob pattern.
        source_id: its name.
        fps: nominal rate, from which the frames get stream times.
        grow_s: wait for new images until none has arrived for this long; None: read only those present.
        max_pixels: largest width times height of an image; larger images are skipped like damaged ones.
        clock: time, for tests.
    """

    def __init__(
        self,
        place: Path,
        source_id: str,
        *,
        fps: float | None = None,
        grow_s: float | None = None,
        max_pixels: int = MAX_PIXELS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(SourceInfo(source_id, utf8_text(str(place)), is_live=False, fps=fps, decoder="opencv"), clock)
        self._place = place
        self._grow_s = grow_s
        self._max_pixels = max_pixels

    def is_sequence(self) -> bool:
        """Return whether the images look like frames of one video: numbered, and the first ones all of one size.

        Unrelated photos have no objects to track from one to the next.
        """
        first = self.paths()[:SEQUENCE_SAMPLE]
        if self._grow_s is not None:
            return True
        if len(first) < SEQUENCE_SAMPLE or not all(path.stem[-1:].isdigit() for path in first):
            return False
        return len({_size_wh(path) for path in first}) == 1

    def paths(self) -> list[Path]:
        """Return the image files present now, in natural order."""
        place = self._place
        if place.is_file():
            return [place]
        if place.is_dir():
            found = list(place.iterdir())
        else:
            anchor = Path(place.anchor) if place.is_absolute() else Path()
            found = list(anchor.glob(str(place.relative_to(anchor))))
        return sorted((p for p in found if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()), key=natural_key)

    def _frames(self) -> Iterator[Frame]:
        number = -1
        for number, path in enumerate(self._following() if self._grow_s else self._once()):
            if self._interrupted.is_set():
                return
            try:
                image = read_image(path, self._max_pixels)
            except (OSError, ValueError) as error:
                logger.warning("%s is skipped: %s", utf8_text(str(path)), error)
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
        """Yield images as they appear, each once it has stopped growing."""
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
    """Return the size of a file in bytes, 0 if it no longer exists."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _size_wh(path: Path) -> tuple[int, int] | None:
    """Return the size that an image's header claims, None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return image_size_wh(file.read(HEADER_BYTES))
    except OSError:
        return None
