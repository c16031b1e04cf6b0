"""JPEGs to send with the messages: frames and a crop of each new track, limited in rate and size, blurred by class."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_S
from engine.data import NO_DETECTION, Packet
from engine.errors import ConfigError
from engine.imaging.faces import FACE, FACE_ID
from engine.imaging.mosaic import mosaic, with_margin
from engine.imaging.square import jpeg_of
from engine.wire import CropMessage, ImageMessage, schema_of
from engine.wire.convert import owner_of

logger = logging.getLogger(__name__)
MAX_SIDE = 640
MAX_UNNAMED = 10_000  # classes of a model without names are identified by number
QUALITY = 80
CROP_MARGIN = 0.1
CROP_AFTER_S = 1.0
MAX_CROPS_WAITING = 100
MAX_TRACKS_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A JPEG and a description of what it shows.

    Attributes:
        kind: `image` or `crop`.
        jpeg: the encoded file.
        size_wh: width and height in pixels, which are square.
        region: (x1, y1, x2, y2) of the source frame.
        frame_id: the frame shown.
        captured_utc_ns: capture time of that frame.
        blurred: classes with at least one blurred object in it.
        track: id, class name and score, for a crop.
    """

    kind: str
    jpeg: bytes
    size_wh: tuple[int, int]
    region: tuple[int, int, int, int]
    frame_id: int
    captured_utc_ns: int
    blurred: tuple[str, ...] = ()
    track: tuple[int, str, float] | None = None

    def message(self, packet: Packet, seq: int, published_utc_ns: int) -> ImageMessage:
        """Return the message that goes before the JPEG; `packet` must be of the same source and run."""
        fields: dict[str, Any] = {
            "schema": schema_of(self.kind),
            "engine_id": packet.run.engine_id,
            "run_epoch": packet.run.run_epoch,
            "owner_epoch": owner_of(packet.run),
            "source_id": packet.frame.source_id,
            "stream_epoch": packet.frame.stream_epoch,
            "seq": seq,
            "published_utc_ns": published_utc_ns,
            "frame_id": self.frame_id,
            "captured_utc_ns": self.captured_utc_ns,
            "width": self.size_wh[0],
            "height": self.size_wh[1],
            "region": [float(value) for value in self.region],
            "blurred": list(self.blurred),
        }
        if self.track is None:
            return ImageMessage(**fields)
        track_id, class_name, score = self.track
        return CropMessage(track_id=track_id, class_name=class_name, score=round(score, 4), **fields)


@dataclass(slots=True)
class _Source:
    """The state kept for one source."""

    image_due_ns: int
    seen: dict[int, None]
    waiting: dict[int, tuple[int, float, Snapshot]]


@dataclass(frozen=True, slots=True)
class _Shown:
    """A frame after blurring, and the boxes that were blurred on it, with their classes."""

    image: NDArray[np.uint8]
    hidden: list[tuple[str, NDArray[np.float32]]]

    def hidden_in(self, region: tuple[int, int, int, int]) -> tuple[str, ...]:
        """Return the classes of which an object was blurred in a region (x1, y1, x2, y2)."""
        x1, y1, x2, y2 = region
        return tuple(sorted({name for name, b in self.hidden if b[0] < x2 and b[1] < y2 and b[2] > x1 and b[3] > y1}))


class Pictures:
    """Makes the JPEGs that are due with each packet. Each takes a few ms of the publishing thread, so keep them rare.

    Args:
        images_per_s: JPEGs of whole frames per source; 0 sends none.
        crops: also send the best crop of each new track, a second after it appeared.
        max_side: longer side of a JPEG in pixels; larger ones are shrunk.
        quality: of the JPEG, 1 to 100.
        blur: names of classes that are blurred in every JPEG before it is encoded; crops of those tracks are not sent.
            Only what the detector finds on the frame is blurred: objects excluded by `FrameGate` or by a choice of
                classes are not.
        blur_regions: by source, boxes (x1, y1, x2, y2) in pixels that are always blurred. If any of its boxes lies
            outside a source's frames, no image of that source is sent, because the boxes were drawn for another size.

    Raises:
        ConfigError: a number is out of range; from `of`, a class of `blur` that the model of the run does not have.
    """

    def __init__(
        self,
        *,
        images_per_s: float = 1.0,
        crops: bool = False,
        max_side: int = MAX_SIDE,
        quality: int = QUALITY,
        blur: Sequence[str] = (),
        blur_regions: Mapping[str, Sequence[tuple[float, float, float, float]]] | None = None,
    ) -> None:
        if not 0 <= images_per_s <= 60 or not 16 <= max_side <= 8192 or not 1 <= quality <= 100:
            raise ConfigError(
                f"images_per_s {images_per_s}, max_side {max_side}, quality {quality}:"
                " give 0 to 60, 16 to 8192 and 1 to 100"
            )
        self._interval_ns = int(NS_PER_S / images_per_s) if images_per_s else None
        self._crops = crops
        self._max_side = max_side
        self._quality = quality
        self._blur = frozenset(blur)
        self._blur_regions = dict(blur_regions or {})
        for x1, y1, x2, y2 in (box for boxes in self._blur_regions.values() for box in boxes):
            if not (x1 < x2 and y1 < y2):
                raise ConfigError(
                    f"blur region {(x1, y1, x2, y2)} has no area: give x1, y1, x2, y2 with x1 < x2, y1 < y2"
                )
            if max(x1, y1, x2, y2) <= 1:
                raise ConfigError(
                    f"blur region {(x1, y1, x2, y2)} is at most a pixel: give pixels of the frame, not fractions of it"
                )
        self._sources: dict[str, _Source] = {}
        self._checked: tuple[str, ...] | None = None
        self._held_back: set[tuple[str, int, int]] = set()

    def whole(self, packet: Packet, max_side: int) -> Snapshot | None:
        """Return the whole frame as a JPEG of at most `max_side` pixels.

        None if it cannot hide everything that it must.
        """
        if not self._can_hide(packet):
            return None
        shown, region = self._blurred(packet), (0, 0, packet.frame.width, packet.frame.height)
        jpeg, size_wh = jpeg_of(shown.image, max_side, self._quality, packet.frame.pixel_aspect)
        frame, blurred = packet.frame, shown.hidden_in(region)
        return Snapshot("image", jpeg, size_wh, region, frame.frame_id, frame.captured_utc_ns, blurred)

    def of(self, packet: Packet, now_ns: int) -> Iterator[Snapshot]:
        """Yield the JPEGs that are due with this packet."""
        source = self._sources.setdefault(packet.frame.source_id, _Source(now_ns, {}, {}))
        is_image_due = self._interval_ns is not None and now_ns >= source.image_due_ns
        if not (is_image_due or self._crops) or not self._can_hide(packet):
            return
        shown = self._blurred(packet)
        if is_image_due and self._interval_ns is not None:
            source.image_due_ns = now_ns + self._interval_ns
            yield self._picture("image", packet, shown, (0, 0, packet.frame.width, packet.frame.height))
        if self._crops:
            yield from self._finished_crops(source, packet, shown, now_ns)

    def _can_hide(self, packet: Packet) -> bool:
        """Return whether everything that must be blurred can be on this frame; if not, nothing may be sent."""
        names = packet.run.class_names
        if self._blur and names != self._checked:
            unknown = sorted(name for name in self._blur if name not in (names or map(str, range(MAX_UNNAMED))))
            if unknown:
                close = get_close_matches(unknown[0].lower(), names, n=1) or names[:8]
                raise ConfigError(f"blur: the model has no class {unknown[0]!r}: did you mean {' or '.join(close)}?")
            self._checked = tuple(names)
        frame = packet.frame
        boxes = self._blur_regions.get(frame.source_id, ())
        if all(x1 < frame.width and y1 < frame.height and x2 > 0 and y2 > 0 for x1, y1, x2, y2 in boxes):
            return True
        key = frame.source_id, frame.width, frame.height
        if key not in self._held_back:
            self._held_back.add(key)
            size = f"{frame.width}x{frame.height}"
            logger.error("%s: a blur region is outside its frames of %s: no images are sent", frame.source_id, size)
        return False

    def _finished_crops(self, source: _Source, packet: Packet, shown: _Shown, now_ns: int) -> Iterator[Snapshot]:
        self._look(source, packet, shown, now_ns)
        for track_id, (first_ns, _, picture) in list(source.waiting.items()):
            if now_ns - first_ns >= CROP_AFTER_S * NS_PER_S:
                del source.waiting[track_id]
                yield picture

    def _look(self, source: _Source, packet: Packet, shown: _Shown, now_ns: int) -> None:
        """Keep the best crop of each new track."""
        tracks = packet.tracks
        for row in range(len(tracks)):
            track_id, score = int(tracks.track_id[row]), float(tracks.score[row])
            name = packet.run.class_name(int(tracks.class_id[row]))
            if track_id < 0 or tracks.detection_index[row] == NO_DETECTION or name in self._blur:
                continue
            waiting = source.waiting.get(track_id)
            if waiting is None and (track_id in source.seen or len(source.waiting) >= MAX_CROPS_WAITING):
                continue
            region = with_margin(tracks.xyxy[row], packet.frame.width, packet.frame.height, CROP_MARGIN)
            worth = score * (region[2] - region[0]) * (region[3] - region[1])
            if worth > 0 and (waiting is None or worth > waiting[1]):
                picture = self._picture("crop", packet, shown, region, (track_id, name, score))
                source.waiting[track_id] = (waiting[0] if waiting else now_ns, worth, picture)
                source.seen[track_id] = None
        while len(source.seen) > MAX_TRACKS_REMEMBERED:
            del source.seen[next(iter(source.seen))]

    def _picture(
        self,
        kind: str,
        packet: Packet,
        shown: _Shown,
        region: tuple[int, int, int, int],
        track: tuple[int, str, float] | None = None,
    ) -> Snapshot:
        x1, y1, x2, y2 = region
        frame, blurred = packet.frame, shown.hidden_in(region)
        part = shown.image[y1:y2, x1:x2]
        jpeg, size_wh = jpeg_of(part, self._max_side, self._quality, frame.pixel_aspect)
        return Snapshot(kind, jpeg, size_wh, region, frame.frame_id, frame.captured_utc_ns, blurred, track)

    def _blurred(self, packet: Packet) -> _Shown:
        """Return the image with everything that must be blurred in coarse blocks, and the blurred boxes."""
        image = packet.frame.image
        hidden = [
            (packet.run.class_name(class_id), xyxy)
            for rows in (packet.detections, packet.tracks)
            for xyxy, class_id in zip(rows.xyxy, rows.class_id.tolist(), strict=True)
            if packet.run.class_name(class_id) in self._blur
        ]
        boxes = [xyxy for _, xyxy in hidden]
        boxes += [np.asarray(box, np.float32) for box in self._blur_regions.get(packet.frame.source_id, ())]
        if boxes:
            image = mosaic(image, boxes, CROP_MARGIN)
        return _Shown(image, [*hidden, *_hidden_before(packet)])


def _hidden_before(packet: Packet) -> list[tuple[str, NDArray[np.float32]]]:
    """Return the classes and boxes that privacy has already hidden in the frame."""
    if packet.hidden is None:
        return []
    rows = zip(packet.hidden.class_id.tolist(), packet.hidden.xyxy, strict=True)
    return [
        (FACE if class_id == FACE_ID else packet.run.class_name(class_id), xyxy)
        for class_id, xyxy in rows
        if class_id >= 0 or class_id == FACE_ID
    ]
