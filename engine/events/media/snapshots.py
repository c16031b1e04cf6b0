"""Images of events: the frame that triggered each event, and the frame that shows its objects best.

One thread uses it. Encoding is what costs, so the best frames wait as copies, within a limit of memory, until their
event ends or they have been the best for 10 s; a frame that several events share is encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_MS, NS_PER_S
from engine.data import Packet
from engine.events.media.best_frame import Observed, Quality
from engine.events.media.drawing import drawn
from engine.events.media.names import SnapshotKind
from engine.events.store.rows import EventRow
from engine.imaging.square import jpeg_of

BETTER = 1.15  # a new image must be this much better than the best to be worth encoding
SPARE = 4
LEAST_APART_NS = 500 * NS_PER_MS
RAW_BYTES = 64_000_000
MAX_OPEN = 2000
SETTLED_NS = 10 * NS_PER_S
"""A frame that has been the best for so long is stored before its event ends, so that a crash cannot lose it."""
Store = Callable[[EventRow, SnapshotKind, bytes, int], None]
"""Receives an event, which of its images this is, the JPEG, and when the frame was captured."""


@dataclass(frozen=True, slots=True)
class SnapshotOptions:
    """Which events get images, and how these are encoded.

    Attributes:
        severities: of the events that get images.
        max_side: longer side in pixels; larger frames are scaled down.
        quality: of the JPEG, 1 to 100.
    """

    severities: Collection[str] = ("info", "notice", "alert")
    max_side: int = 1280
    quality: int = 85


@dataclass(eq=False)
class _Best:
    """The best frame of an open event so far: as pixels, or encoded if memory was short."""

    event: EventRow
    quality: Quality = field(default_factory=Quality)
    worth: float = 0.0
    at_ns: int = 0
    utc_ns: int = 0
    image: NDArray[np.uint8] | None = None
    pixel_aspect: float = 1.0
    jpeg: bytes = b""
    is_stored: bool = False

    def is_due(self, now_ns: int) -> bool:
        """Return whether enough time has passed since the last choice."""
        return not self.worth or now_ns - self.at_ns >= LEAST_APART_NS


class Snapshots:
    """Chooses and encodes the images of events.

    Args:
        options: which, and how.
        store: receives each finished image.
    """

    def __init__(self, options: SnapshotOptions, store: Store) -> None:
        self._options = options
        self._store = store
        self._open: dict[str, _Best] = {}
        self._buffers = _Buffers()

    def raised(self, packet: Packet, events: Sequence[EventRow]) -> None:
        """Store the image of events that began, or happened, on this packet's frame."""
        wanted = [event for event in events if event.severity in self._options.severities]
        if not wanted:
            return
        image = self._buffers.copy(packet.frame.image)
        jpeg = self._encoded(drawn(packet, wanted, image), packet.frame.pixel_aspect)
        self._buffers.give_back(image)
        for event in wanted:
            self._store(event, "trigger", jpeg, packet.scene_utc_ns)
            if event.phase != "point" and len(self._open) < MAX_OPEN:
                self._open[event.event_id] = self._first_best(event)
        self.look(packet, wanted)

    def _first_best(self, event: EventRow) -> _Best:
        """Return the state of a new event, with what another one about the same objects has seen since it began."""
        for other in self._open.values():
            about, others = event.track_ids, other.event.track_ids
            is_same = about == others and (event.source_id, event.place) == (other.event.source_id, other.event.place)
            if is_same and other.worth and other.utc_ns >= event.began_utc_ns:
                return replace(other, event=event, quality=copy(other.quality), is_stored=False)
        return _Best(event)

    def updated(self, event: EventRow) -> None:
        """Record that an open event now concerns different objects."""
        if event.event_id in self._open:
            self._open[event.event_id].event = event

    def look(self, packet: Packet, events: Sequence[EventRow] | None = None) -> None:
        """Keep this frame for the open events that it shows better than any earlier frame did.

        None: consider all events of its source.
        """
        image: NDArray[np.uint8] | None = None
        source_id, now_ns = packet.frame.source_id, packet.frame.scene_ns
        chosen = self._open.values() if events is None else [self._open.get(event.event_id) for event in events]
        seen = Observed(packet)
        for best in list(chosen):
            if best is None or best.event.source_id != source_id or not best.is_due(now_ns):
                continue
            if now_ns - best.at_ns >= SETTLED_NS and best.worth and not best.is_stored:
                self._store_best(best, best.event)
            worth = best.quality.of(seen, best.event, BETTER * best.worth)
            if worth > BETTER * best.worth:
                image = self._buffers.copy(packet.frame.image) if image is None else image
                best.worth, best.at_ns, best.utc_ns = worth, now_ns, packet.scene_utc_ns
                best.is_stored, best.pixel_aspect = False, packet.frame.pixel_aspect
                self._replace(best, image)
        if image is not None:
            self._limit_memory()

    def ended(self, event: EventRow) -> int | None:
        """Store the best image of an event that has ended; return when it was captured, None if there is none."""
        best = self._open.pop(event.event_id, None)
        if best is None or not best.worth:
            return None
        self._store_best(best, event)  # rewritten even if it exists, because its facts are those of an open event
        return best.utc_ns

    def _store_best(self, best: _Best, event: EventRow) -> None:
        self._encode(best)
        self._store(replace(event, snapshot=best.event.snapshot), "best", best.jpeg, best.utc_ns)
        best.is_stored = True

    def _encode(self, best: _Best) -> None:
        """Encode the frame of an event, for all events that share it."""
        if best.image is None:
            return
        image, jpeg = best.image, self._encoded(best.image, best.pixel_aspect)
        for each in (best, *self._open.values()):
            if each.image is image:
                each.image, each.jpeg = None, jpeg
        self._buffers.give_back(image)

    @property
    def raw_bytes(self) -> int:
        """Memory of the frames kept as pixels."""
        return sum(
            {id(best.image): best.image.nbytes for best in self._open.values() if best.image is not None}.values()
        )

    def _encoded(self, image: NDArray[np.uint8], pixel_aspect: float) -> bytes:
        return jpeg_of(image, self._options.max_side, self._options.quality, pixel_aspect)[0]

    def _replace(self, best: _Best, image: NDArray[np.uint8] | None) -> None:
        """Keep another frame for an event; the memory of frames that no event needs is reused."""
        before, best.image, best.jpeg = best.image, image, b""
        if before is not None and all(other.image is not before for other in self._open.values()):
            self._buffers.give_back(before)

    def _limit_memory(self) -> None:
        """Encode the longest-waiting frames while their total exceeds the limit."""
        if self.raw_bytes <= RAW_BYTES:
            return
        waiting = sorted((best for best in self._open.values() if best.image is not None), key=lambda best: best.at_ns)
        for best in waiting:
            self._encode(best)
            if self.raw_bytes <= RAW_BYTES:
                return


class _Buffers:
    """Reused memory for copies of frames: fresh memory costs more than the copy."""

    def __init__(self) -> None:
        self._spare: list[NDArray[np.uint8]] = []

    def copy(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a writeable copy of an image (H, W, 3) uint8."""
        if not self._spare or self._spare[-1].shape != image.shape:
            return image.copy()
        into = self._spare.pop()
        np.copyto(into, image)
        return into

    def give_back(self, image: NDArray[np.uint8]) -> None:
        """Take back a copy that is no longer used."""
        if len(self._spare) >= SPARE:
            self._spare.pop(0)
        self._spare.append(image)
