"""Privacy: makes people unrecognisable, once per frame, before any output sees it.

It hides what the detector finds. An object that the detector misses for longer than `hold_s` is not hidden, except in
the modes `silhouette` and `no_images`, which show no pixel of the frame.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.boxes import Boxes
from engine.clock import NS_PER_MS, NS_PER_S
from engine.data import NO_DETECTION, Detections, Packet
from engine.errors import ConfigError
from engine.imaging.background import GREY, Background
from engine.imaging.faces import FACE, Faces
from engine.imaging.mosaic import Image, mosaic
from engine.imaging.people import Places, Recent, as_detections, places_of, seen_later

logger = logging.getLogger(__name__)
Mode = Literal["none", "blur", "silhouette", "no_images"]
MODES: tuple[Mode, ...] = ("none", "blur", "silhouette", "no_images")
MARGIN = 0.15
MAX_WAITING = 64
LEAST_AREA = 1e-6  # fraction of the frame's area: two pixels of Full HD
SILHOUETTE = (190, 140, 70)


@dataclass(frozen=True, slots=True)
class PrivacyRules:
    """What to hide on the frames of a source.

    Attributes:
        mode: `blur` replaces objects of `classes` with coarse blocks, `silhouette` draws flat shapes on a background
            without objects, `no_images` shows a grey image, `none` changes nothing.
        classes: names or ids; a source whose model lacks one of them shows nothing. For `face`, the model does not need
            that class if `Privacy` has a face detector.
        regions: polygons, in fractions of the frame, that are painted black.
        score_floor: lowest score of an object that is hidden; trackers and rules still see only those above the
            threshold of the detector.
        hold_s: how long an object stays hidden after it was last found.
        delay_s: how long packets wait, so that objects found only on later frames are hidden on them too.
    """

    mode: Mode = "blur"
    classes: tuple[str | int, ...] = ("person",)
    regions: tuple[tuple[tuple[float, float], ...], ...] = ()
    score_floor: float = 0.1
    hold_s: float = 1.0
    delay_s: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"privacy mode is {self.mode!r}: expected one of: {', '.join(MODES)}")
        for polygon in self.regions:
            points = np.asarray(polygon, float).reshape(-1, 2)
            if len(points) < 3 or not ((points >= 0) & (points <= 1)).all():
                raise ConfigError(
                    f"privacy region {polygon}: expected 3 or more points [x, y] in fractions of the frame, 0 to 1"
                )
            x, y = points.T
            if abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) < 2 * LEAST_AREA:
                raise ConfigError(
                    f"privacy region {polygon} has no area, so it hides nothing: give its corners in order"
                )
        if not (0 <= self.score_floor <= 1 and 0 <= self.hold_s <= 60 and 0 <= self.delay_s <= 1):
            raise ConfigError(
                f"score_floor {self.score_floor}, hold_s {self.hold_s}, delay_s {self.delay_s}: "
                "expected 0 to 1, 0 to 60 and 0 to 1"
            )
        if self.mode == "blur" and not self.classes and not self.regions:
            raise ConfigError("privacy mode blur needs classes or regions to hide")

    @property
    def shows_frames(self) -> bool:
        """Whether pixels of the frame may be seen unchanged."""
        return self.mode in ("none", "blur")


NO_PRIVACY = PrivacyRules("none")


@dataclass(slots=True, eq=False)
class _Waiting:
    """A packet that has not been passed on, and where people may be on its frame."""

    packet: Packet
    now: Places
    missing: Places
    spent_ns: int = 0


@dataclass(slots=True, eq=False)
class _Source:
    """The state kept for one source."""

    recent: Recent
    background: Background
    waiting: deque[_Waiting] = field(default_factory=deque)
    hidden: int = 0
    withheld: int = 0


class Privacy:
    """Hides people on the frames of all sources; used by one thread, except for `change` and `summary`.

    A frame on which hiding fails is replaced by a black one: it never passes unchanged.

    Args:
        rules: of sources without their own.
        sources: rules by source.
        faces: finds faces on every frame of sources that hide the class `face` but whose model lacks it.
    """

    def __init__(
        self, rules: PrivacyRules, sources: Mapping[str, PrivacyRules] | None = None, faces: Faces | None = None
    ) -> None:
        self._rules = rules
        self._faces = faces
        self._of: dict[str, PrivacyRules] = dict(sources or {})
        self._sources: dict[str, _Source] = {}
        self._logged: set[tuple[str, str]] = set()

    def change(self, sources: Mapping[str, PrivacyRules]) -> None:
        """Replace the rules of sources that have their own, from their next frame on."""
        self._of = dict(sources)

    def rules_of(self, source_id: str) -> PrivacyRules:
        """Return the rules of a source."""
        return self._of.get(source_id, self._rules)

    def hide(self, packet: Packet) -> Packet:
        """Return a packet with people hidden on its frame, without looking at other frames."""
        rules = self.rules_of(packet.frame.source_id)
        if rules.mode == "none":
            return packet
        self._source(packet.frame.source_id, rules).recent = Recent(rules.hold_s)
        return self._finished(rules, self._begun(rules, packet, follow=False), ())

    def take(self, packet: Packet) -> list[Packet]:
        """Take the next packet of a source and return the hidden ones that are ready."""
        rules = self.rules_of(packet.frame.source_id)
        if rules.mode == "none":
            packet.detections.unreported = None
            return [*self.end(packet.frame.source_id), packet]
        waiting = self._source(packet.frame.source_id, rules).waiting
        waiting.append(self._begun(rules, packet))
        delay_ns = int(rules.delay_s * NS_PER_S)
        newest_ns = packet.frame.scene_ns
        ready = 0
        while ready < len(waiting) and (
            len(waiting) - ready > MAX_WAITING or abs(newest_ns - waiting[ready].packet.frame.scene_ns) >= delay_ns
        ):
            ready += 1
        return self._release(rules, waiting, ready)

    def late(self, now_ns: int) -> list[Packet]:
        """Return the packets of live sources whose delay has passed at this monotonic time."""
        found: list[Packet] = []
        for source_id, source in self._sources.items():
            rules = self.rules_of(source_id)
            delay_ns = int(rules.delay_s * NS_PER_S)
            due = sum(_is_live(one.packet) and _age(one.packet, now_ns) >= delay_ns for one in source.waiting)
            found += self._release(rules, source.waiting, due)
        return found

    def wait_s(self, now_ns: int) -> float | None:
        """Return the seconds until `late` has something to return, or None if nothing waits for a clock."""
        waits = [
            max(self.rules_of(source_id).delay_s - _age(source.waiting[0].packet, now_ns) / NS_PER_S, 0.001)
            for source_id, source in self._sources.items()
            if source.waiting and _is_live(source.waiting[0].packet)
        ]
        return min(waits, default=None)

    def end(self, source_id: str | None = None) -> list[Packet]:
        """Return the waiting packets of a source, or of all, with people hidden; the sources' state is kept."""
        names = list(self._sources) if source_id is None else [source_id]
        return [
            packet
            for name in names
            if (source := self._sources.get(name)) is not None
            for packet in self._release(self.rules_of(name), source.waiting, len(source.waiting))
        ]

    def summary(self) -> dict[str, dict[str, int]]:
        """Return, by source, the number of frames with hidden people, and of frames withheld because hiding failed."""
        return {
            name: {"hidden": source.hidden, "withheld": source.withheld}
            for name, source in list(self._sources.items())
            if self.rules_of(name).mode != "none" or source.withheld
        }

    def _source(self, source_id: str, rules: PrivacyRules) -> _Source:
        found = self._sources.get(source_id)
        if found is None:
            found = self._sources[source_id] = _Source(Recent(rules.hold_s), Background(MARGIN))
        return found

    def _begun(self, rules: PrivacyRules, packet: Packet, *, follow: bool = True) -> _Waiting:
        """Return a packet with the positions of people; without its frame if they cannot be determined."""
        source, started_ns = self._source(packet.frame.source_id, rules), time.monotonic_ns()
        try:
            places = self._places(rules, packet, follow=follow)
            now, missing = source.recent.add(places, packet.frame.scene_ns, is_held=packet.is_held)
            if rules.mode == "silhouette":
                everything = np.concatenate((places_of(packet, None).xyxy, missing.at(packet.frame.scene_ns)))
                source.background.add(packet.frame.image, everything, packet.frame.scene_ns)
            return _Waiting(packet, now, missing, time.monotonic_ns() - started_ns)
        except Exception as error:  # noqa: BLE001 - whatever fails, the frame must not pass
            nothing = places_of(_without_rows(packet), None)
            return _Waiting(self._withheld(packet, error), nothing, nothing)

    def _places(self, rules: PrivacyRules, packet: Packet, *, follow: bool) -> Places:
        """Return what to hide on a packet's frame."""
        if not rules.shows_frames:
            return places_of(packet, None)
        names = [name.lower() for name in packet.run.class_names]
        wanted = [str(entry).strip().lower() if isinstance(entry, str) else entry for entry in rules.classes]
        looks_for_faces = self._faces is not None and FACE in wanted and FACE not in names
        if looks_for_faces:
            wanted = [entry for entry in wanted if entry != FACE]
        places = places_of(packet, _class_ids(wanted, names))
        if self._faces is not None and looks_for_faces:
            places = places + self._faces.find(packet, rules.score_floor, follow=follow)
        return places

    def _release(self, rules: PrivacyRules, waiting: deque[_Waiting], count: int) -> list[Packet]:
        """Return the first waiting packets, hiding what the later ones show as well."""
        packets = []
        for _ in range(count):
            first = waiting.popleft()
            packets.append(self._finished(rules, first, [one.now for one in waiting]))
        return packets

    def _finished(self, rules: PrivacyRules, one: _Waiting, later: Sequence[Places]) -> Packet:
        packet = one.packet
        packet.detections.unreported = None
        if packet.hidden is not None:  # withheld
            return packet
        source = self._sources[packet.frame.source_id]
        started_ns = time.monotonic_ns()
        try:
            hidden = _hidden(rules, one, later)
            image = _picture(rules, one, hidden.xyxy, source.background)
            source.hidden += 1 if len(hidden) or rules.regions or not rules.shows_frames else 0
        except Exception as error:  # noqa: BLE001 - whatever fails, the frame must not pass
            return self._withheld(packet, error)
        spent_ms = (one.spent_ns + time.monotonic_ns() - started_ns) / NS_PER_MS
        stage_ms = {**packet.stage_ms, "privacy": spent_ms}
        return replace(packet, frame=replace(packet.frame, image=image), hidden=hidden, stage_ms=stage_ms)

    def _withheld(self, packet: Packet, error: Exception) -> Packet:
        """Return the packet with a black frame, and log the reason once."""
        frame = packet.frame
        self._sources[frame.source_id].withheld += 1
        key = frame.source_id, str(error)
        if key not in self._logged and len(self._logged) < 1000:
            self._logged.add(key)
            logger.error("%s: privacy cannot be applied (%s): its frames are withheld", frame.source_id, error)
        black = np.zeros(frame.image.shape, np.uint8)
        return replace(packet, frame=replace(frame, image=black), hidden=Detections.empty())


def _is_live(packet: Packet) -> bool:
    return packet.frame.captured_source != "file"


def _age(packet: Packet, now_ns: int) -> int:
    return now_ns - packet.frame.captured_ns


def _without_rows(packet: Packet) -> Packet:
    return replace(packet, detections=Detections.empty(), tracks=packet.tracks[:0])


def _class_ids(wanted: Sequence[str | int], names: Sequence[str]) -> NDArray[np.int32]:
    """Return the ids of the classes to hide. Raises `ConfigError` if the model lacks one."""
    lacking = [entry for entry in wanted if isinstance(entry, str) and entry not in names]
    if lacking:
        raise ConfigError(f"the model has no class {lacking[0]!r}")
    return np.array([entry if isinstance(entry, int) else names.index(entry) for entry in wanted], np.int32)


def _hidden(rules: PrivacyRules, one: _Waiting, later: Sequence[Places]) -> Detections:
    """Return the boxes that are hidden on a frame, with their classes.

    Boxes from later frames have class -1, and faces found by the face detector have `FACE_ID`.
    """
    now_ns = one.packet.frame.scene_ns
    ahead = seen_later(one.now, one.missing, later, now_ns) if rules.delay_s else np.zeros((0, 4), np.float32)
    xyxy = np.concatenate((one.now.xyxy, one.missing.at(now_ns), ahead))
    class_id = np.concatenate((one.now.class_id, one.missing.class_id, np.full(len(ahead), -1, np.int32)))
    return as_detections(xyxy, class_id)


def _picture(rules: PrivacyRules, one: _Waiting, boxes: Boxes, background: Background) -> Image:
    frame = one.packet.frame
    if rules.mode == "no_images":
        return np.full(frame.image.shape, GREY, np.uint8)
    if rules.mode == "silhouette":
        image = background.picture(frame.width, frame.height)
        _draw_silhouettes(image, one.packet)
    else:
        image = mosaic(frame.image, np.unique(boxes, axis=0), MARGIN)
    for polygon in rules.regions:
        points = (np.asarray(polygon, float) * (frame.width, frame.height)).round().astype(np.int32)
        cv2.fillPoly(image, [points], (0, 0, 0))
        cv2.polylines(image, [points], True, (0, 0, 0), 2)
    return image


def _draw_silhouettes(image: Image, packet: Packet) -> None:
    """Draw a flat shape for every reported object: its mask if the model provides one, else an ellipse in its box."""
    masks = packet.detections.extra.get("mask")
    boxes = np.concatenate((packet.detections.xyxy, packet.tracks.xyxy))
    if masks is not None and len(masks):
        image[np.asarray(masks, bool).any(axis=0)] = SILHOUETTE
        boxes = packet.tracks.xyxy[packet.tracks.detection_index == NO_DETECTION]
    for x1, y1, x2, y2 in np.unique(boxes.round(), axis=0).tolist():
        centre, axes = (round((x1 + x2) / 2), round((y1 + y2) / 2)), (round((x2 - x1) / 2), round((y2 - y1) / 2))
        cv2.ellipse(image, centre, (max(axes[0], 1), max(axes[1], 1)), 0, 0, 360, SILHOUETTE, cv2.FILLED, cv2.LINE_AA)
