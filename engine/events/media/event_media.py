"""Images and clips of a run's events: follows the event log on its own thread."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from engine.clock import NS_PER_MS, NS_PER_S, SYSTEM_CLOCK, Clock
from engine.data import Packet, Run
from engine.events.log import EventLog
from engine.events.media.clips import ClipOptions, ClipQueue, Made, Recorded, StillMade
from engine.events.media.names import SnapshotKind, facts_text, snapshot_name, with_facts
from engine.events.media.snapshots import SnapshotOptions, Snapshots
from engine.events.media.still import write_file
from engine.events.media.upkeep import Upkeep
from engine.events.store.database import StoreError
from engine.events.store.reader import EventReader
from engine.events.store.rows import EventRow, MediaRow
from engine.events.store.writer import StoreWriter
from engine.events.writing import Job

logger = logging.getLogger(__name__)
LOOK_NS = 300 * NS_PER_MS
HOLD_AGAIN_NS = NS_PER_S
HOLD_S = 3.0  # longer than the time between two requests
MAX_RAISED = 8  # frames with new events that may wait to be encoded
CLOSE_S = 2.0


class Holds(Protocol):
    """A recorder that keeps the newest video in memory and writes it on request."""

    def hold(self, source_id: str, seconds: float) -> None:
        """Write the video in memory, and what follows for `seconds`; never waits."""


class _Raised(NamedTuple):
    """A frame on which events began or ended."""

    packet: Packet | None
    events: Sequence[EventRow]


class EventMedia:
    """Takes images of events, keeps recordings around them, and cuts clips. Implements `EventFollower`.

    On the publishing thread it only notes what to do. If its thread cannot keep up (a slow disk), images are left out
    and counted; events are not affected.

    Args:
        folder: of events.
        snapshots: which events get images; None: no events do.
        clips: what clips contain.
        recorded: says where a source is recorded, None if it is not.
        holds: records around events; None if nothing does.
        stills: replace best images by the main stream's, where it is recorded.
        upkeep: cleans up; None: nothing is cleaned up.
        clock: time.

    Attributes:
        skipped: images that were left out, by cause.
        upkeep: as given.
    """

    def __init__(
        self,
        folder: Path,
        snapshots: SnapshotOptions,
        clips: ClipOptions,
        recorded: Callable[[str], Recorded | None],
        holds: Holds | None = None,
        *,
        stills: bool = False,
        upkeep: Upkeep | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._folder = folder
        self._clip_options = clips
        self._recorded = recorded
        self._holds = holds
        self._stills = stills
        self.upkeep = upkeep
        self._clock = clock
        self._snapshots = Snapshots(snapshots, self._store_image)
        self.clips = ClipQueue(folder, clips, recorded, self._store_clip, self._store_still, clock=clock)
        self._log: EventLog | None = None
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._raised: deque[_Raised] = deque()
        self._looks: dict[str, Packet] = {}
        self._is_closing = False
        self._open: dict[str, dict[str, EventRow]] = {}  # by source; used only by the publishing thread
        self._look_due_ns: dict[str, int] = {}
        self._hold_due_ns: dict[str, int] = {}
        self._full = ""
        self._told_ns: dict[str, int] = {}  # when the rule of each open event was satisfied
        self.skipped: Counter[str] = Counter()

    # --- on the publishing thread ---

    def open(self, run: Run, log: EventLog) -> None:
        """Start, and cut what earlier runs left due."""
        self._log, self._is_closing = log, False
        self._open.clear()
        self._thread = threading.Thread(target=self._run, args=(run.engine_id,), name="event media", daemon=True)
        self._thread.start()

    def follow(self, packet: Packet, changed: Sequence[EventRow]) -> None:
        """Record the events that changed, and queue this frame for inspection; never waits."""
        source_id = packet.frame.source_id
        if changed:
            self._note(source_id, changed, packet)
        events = self._open.get(source_id)
        if not events:
            return
        now_ns = packet.frame.scene_ns
        if now_ns >= self._look_due_ns.get(source_id, now_ns) or now_ns < self._look_due_ns[source_id] - LOOK_NS:
            self._look_due_ns[source_id] = now_ns + LOOK_NS
            with self._changed:
                self._looks[source_id] = packet
                self._changed.notify()
        self._hold(source_id, events)

    def ended(self, source_id: str, changed: Sequence[EventRow]) -> None:
        """Record the events that ended because their source did; never waits."""
        if changed:
            self._note(source_id, changed, None)

    def close(self) -> None:
        """Store the waiting images; clips that are not made yet stay due."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
            self._thread = None

    def _note(self, source_id: str, changed: Sequence[EventRow], packet: Packet | None) -> None:
        events = self._open.setdefault(source_id, {})
        for event in changed:
            if event.phase in ("end", "point"):
                events.pop(event.event_id, None)
            else:
                events[event.event_id] = event
            if event.phase != "update" and event.clip_state == "due" and self._holds is not None:
                self._holds.hold(source_id, HOLD_S + self._clip_options.after_s)
        with self._changed:
            if len(self._raised) >= MAX_RAISED:  # drops the frame, never the events
                self._raised.append(_Raised(None, changed))
            else:
                self._raised.append(_Raised(packet, changed))
            self._changed.notify()

    def _hold(self, source_id: str, events: dict[str, EventRow]) -> None:
        """Keep the recording running while an event that wants a clip is open."""
        now_ns = self._clock.monotonic_ns()
        if self._holds is None or now_ns < self._hold_due_ns.get(source_id, 0):
            return
        self._hold_due_ns[source_id] = now_ns + HOLD_AGAIN_NS
        if any(event.clip_state == "due" for event in events.values()):
            self._holds.hold(source_id, HOLD_S)

    # --- on its own thread ---

    def _run(self, engine_id: str) -> None:
        try:
            self._resume(engine_id)
            if self.upkeep is not None:
                self.upkeep.begin(engine_id)
            wait_s = 0.0
            while True:
                raised, looks, is_over = self._next(wait_s)
                for item in raised:
                    self._take(item)
                for packet in looks:
                    self._snapshots.look(packet)
                if is_over and not raised:
                    break
                wait_s = self.clips.work()
                if self.upkeep is not None:
                    self.upkeep.work()
        except Exception:
            logger.exception("images and clips of events failed; events are stored without them")
        finally:
            self.clips.close()
            if self.upkeep is not None:
                self.upkeep.close()

    def _resume(self, engine_id: str) -> None:
        """Cut the clips that an earlier run left due."""
        if self._log is None:
            return
        try:
            with EventReader(self._log.place) as reader:
                left = reader.due_clips(engine_id, limit=1000)
                told_ns = [told_of(reader, event) for event in left]
        except StoreError as error:
            logger.warning("clips of earlier runs wait: %s", error)
            return
        for event, at_ns in zip(left, told_ns, strict=True):
            self.clips.add(event, at_ns)

    def _next(self, wait_s: float) -> tuple[list[_Raised], list[Packet], bool]:
        with self._changed:
            if not self._raised and not self._looks and not self._is_closing:
                self._changed.wait(wait_s)
            raised, looks = list(self._raised), list(self._looks.values())
            self._raised.clear()
            self._looks.clear()
            return raised, looks, self._is_closing

    def _take(self, item: _Raised) -> None:
        began = [event for event in item.events if event.phase in ("begin", "point")]
        if began and item.packet is not None:
            self._snapshots.raised(item.packet, began)
        elif began:
            self.skipped["busy"] += len(began)
        for event in began:
            self._told_ns[event.event_id] = event.facts.get("captured_utc_ns") or event.began_utc_ns
        for event in item.events:
            if event.phase == "update":
                self._snapshots.updated(event)
            if event.phase not in ("end", "point"):
                continue
            best_ns, told_ns = self._snapshots.ended(event), self._told_ns.pop(event.event_id, None)
            if self._stills and best_ns is not None:
                self.clips.add_still(event, best_ns)
            if event.clip_state == "due":
                self.clips.add(event, told_ns)

    def _store_image(self, event: EventRow, kind: SnapshotKind, jpeg: bytes, utc_ns: int) -> None:
        name = snapshot_name(event, kind)
        try:
            size = write_file(self._folder / name, with_facts(jpeg, facts_text(event)))
        except OSError as error:
            self.skipped["disk"] += 1
            self._tell(error)
            return
        self._full = ""
        self._submit(partial(_put_image, event=event, kind=kind, row=_image_row(event, name, size, utc_ns)))

    def _store_still(self, made: StillMade) -> None:
        row = _image_row(made.event, made.name, made.bytes, made.utc_ns)
        self._submit(partial(_put_image, event=made.event, kind="best", row=row))

    def _store_clip(self, made: Made) -> None:
        if made.state != "exact":
            logger.info("%s: clip %s: %s", made.event.event_id, made.state, made.reason)
        self._submit(partial(_put_clip, made=made))

    def _submit(self, apply: Callable[[StoreWriter], None]) -> None:
        if self._log is not None:
            self._log.submit(Job(apply))

    def _tell(self, error: OSError) -> None:
        reason = error.strerror or str(error)
        if self.upkeep is not None:
            self.upkeep.hurry()
        if self._full != reason:
            logger.error("%s: images of events cannot be written: %s; events are still stored", self._folder, reason)
        self._full = reason

    def figures(self) -> dict[str, Any]:
        """Return finished clips by state, waiting ones, skipped images, and restarts. May be called on any thread."""
        clips: Counter[str] = Counter()
        for (_, state), count in list(self.clips.results.items()):
            clips[state] += count
        figures: dict[str, Any] = {"clips": dict(clips), "clips_waiting": len(self.clips)}
        figures |= {"images_skipped": dict(self.skipped), "media_restarts": self.clips.process.restarts}
        if self.upkeep is not None and self.upkeep.report:
            report = self.upkeep.report
            figures["storage"] = {
                **{name: report[name] for name in ("bytes", "free", "limit", "asks")},
                "deleted": dict(self.upkeep.deleted),
            }
        return figures


def told_of(reader: EventReader, event: EventRow) -> int | None:
    """Return when the rule of an event was satisfied, which its trigger image shows; None if it has none."""
    rows = reader.media("snapshot", event_id=event.event_id)
    return next((row.began_utc_ns for row in rows if row.path == event.snapshot), None)


def _image_row(event: EventRow, name: str, size: int, utc_ns: int) -> MediaRow:
    return MediaRow(name, "snapshot", event.source_id, event.event_id, utc_ns, utc_ns, size)


def _put_image(store: StoreWriter, event: EventRow, kind: SnapshotKind, row: MediaRow) -> None:
    store.put(row)
    if kind == "trigger":
        store.set_media_of_event(event.event_id, snapshot=row.path)
    else:
        store.set_media_of_event(event.event_id, best=row.path)


def _put_clip(store: StoreWriter, made: Made) -> None:
    event = made.event
    for name, size in zip(made.names, made.sizes, strict=True):
        store.put(MediaRow(name, "clip", event.source_id, event.event_id, made.began_ns, made.ended_ns, size))
    clip = made.names[0] if made.names else ""
    reason = made.reason if made.sync != "name" else "; ".join(filter(None, [made.reason, "times are known to 1 s"]))
    store.set_media_of_event(event.event_id, clip=clip, clip_state=made.state, clip_reason=reason)
