"""The event log: a fast sink that stores the findings of analytics."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from engine.analytics.findings import Finding
from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.data import Packet, Run, SourceStatus
from engine.events.counting import VISIT, MinuteCounts
from engine.events.row_maker import RowMaker
from engine.events.store.place import StorePlace
from engine.events.store.rows import EventRow, FactRow, GapRow, OutboxRow, SourceRunRow
from engine.events.store.writer import StoreWriter
from engine.events.track_collector import TrackCollector
from engine.events.track_paths import SAMPLE_NS
from engine.events.writing import Figures, Job, StoreThread
from engine.protocols import SinkBase
from engine.wire.findings import Moment

OPEN_S = 5.0
CLOSE_S = 5.0
STOPPED = "engine_stopped"
_UNSEEING = ("stalled", "offline", "connecting")


class EventFollower(Protocol):
    """Adds images, clips or more to events. Called on the publishing thread: it must not wait."""

    def open(self, run: Run, log: EventLog) -> None:
        """Prepare for a run; `log.submit` writes to the store from any thread."""

    def follow(self, packet: Packet, changed: Sequence[EventRow]) -> None:
        """Handle a packet, and the events that began, changed or ended on it."""

    def ended(self, source_id: str, changed: Sequence[EventRow]) -> None:
        """Handle the events that ended or began because a source ended or cannot be seen."""

    def close(self) -> None:
        """Finish; the store is still writable."""


class Planner(Protocol):
    """Decides which messages an event causes. Called on the writing thread, in the transaction of the event."""

    def open(self, writer: StoreWriter) -> None:
        """Prepare for a store that was just opened (again): read what earlier runs left."""

    def plan(self, event: EventRow, writer: StoreWriter) -> Sequence[OutboxRow]:
        """Return the messages for an event whose `phase` is `begin`, `end` or `point`."""


@dataclass
class _Source:
    """The log's state of one source."""

    rows: RowMaker
    counts: MinuteCounts
    paths: TrackCollector
    is_live: bool
    run_row: SourceRunRow
    stream_epoch: int = 0
    utc_offset_ns: int = 0
    frame_id: int = 0
    seen_utc_ns: int = 0
    seen_scene_ns: int = 0
    next_sample_ns: int = 0
    occupancy: Any = None
    open: dict[str, EventRow] = field(default_factory=dict)
    gap: GapRow | None = None
    has_news: bool = True

    @property
    def has_ended(self) -> bool:
        """Whether the source's end has already been recorded."""
        return bool(self.run_row.reason)

    @property
    def moment(self) -> Moment:
        """The place of its last analysed frame in its stream."""
        return Moment(self.run_row.source_id, self.stream_epoch, self.utc_offset_ns, self.frame_id)

    def seen(self, reason: str = "") -> SourceRunRow:
        """Return the row that states how long it was watched."""
        self.run_row = replace(
            self.run_row, seen_utc_ns=self.seen_utc_ns, seen_scene_ns=self.seen_scene_ns, reason=reason
        )
        return self.run_row


class EventLog(SinkBase):
    """Stores events, visits, counts and track paths.

    Args:
        place: where the store is.
        clip_severities: severities whose events want a clip.
        keep_tracks: keep the paths of tracks.
        followers: add media.
        planner: plans actions.
        on_open: called on the writing thread with a newly opened store, and whether it is empty, to adopt media files.
        clock: time.

    Attributes:
        keep_tracks: as given; may be changed on any thread.
    """

    name = "events"
    blocking = False

    def __init__(
        self,
        place: StorePlace,
        *,
        clip_severities: Collection[str] = (),
        keep_tracks: bool = True,
        followers: Sequence[EventFollower] = (),
        planner: Planner | None = None,
        on_open: Any = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.place = place
        self._clip_severities = clip_severities
        self.keep_tracks = keep_tracks
        self.followers = followers
        self._planner = planner
        self._on_open = on_open
        self._clock = clock
        self._run = Run("", 0)
        self._thread: StoreThread | None = None
        self._sources: dict[str, _Source] = {}
        self._is_live: dict[str, bool] = {}
        self._is_closed = True

    def open(self, run: Run) -> None:
        """Open the store.

        Raises:
            StoreError: it cannot be used: no access, in use by another engine, or made by a newer version.
        """
        self.close()
        self._run = run
        self._is_closed = False
        self._sources.clear()
        self._thread = StoreThread(self.place, run.engine_id, run.run_epoch, self._opened, self._clock)
        self._thread.start(OPEN_S)
        for follower in self.followers:
            follower.open(run, self)

    @property
    def planner(self) -> Planner | None:
        """The planner of the events' actions."""
        return self._planner

    def _opened(self, writer: StoreWriter, is_new: bool) -> None:
        if self._on_open is not None:
            self._on_open(writer, is_new)
        if self._planner is not None:
            self._planner.open(writer)

    def submit(self, *jobs: Job) -> None:
        """Write something to the store soon; never waits. May be called on any thread between `open` and `close`."""
        if jobs and self._thread is not None:
            self._thread.submit(*jobs)

    def figures(self) -> Figures:
        """Return how many events are stored, waiting and lost. May be called on any thread."""
        return self._thread.figures() if self._thread is not None else Figures(0, 0, 0, {}, "")

    @property
    def is_closed(self) -> bool:
        """Whether there is nothing left to write."""
        return self._is_closed

    def write(self, packet: Packet) -> None:
        """Store the findings of a packet and the positions of its tracks; never waits."""
        frame = packet.frame
        source = self._sources.get(frame.source_id)
        if source is None or source.has_ended:
            source = self._begin(packet)
        utc_ns, scene_ns, view = packet.scene_utc_ns, frame.scene_ns, packet.analytics
        source.seen_utc_ns, source.seen_scene_ns, source.has_news = utc_ns, scene_ns, True
        if source.gap is not None:
            self._end_gap(source, utc_ns)
        is_due = not source.next_sample_ns - SAMPLE_NS <= scene_ns < source.next_sample_ns
        if is_due:
            source.next_sample_ns = scene_ns + SAMPLE_NS
        changed: list[EventRow] = []
        if view is not None:
            source.stream_epoch, source.frame_id, source.utc_offset_ns = (
                frame.stream_epoch,
                frame.frame_id,
                utc_ns - scene_ns,
            )
            changed = self._keep(source, view.findings) if view.findings else []
            if is_due or view.occupancy != source.occupancy:
                source.occupancy = view.occupancy
                source.counts.fill(scene_ns, utc_ns, view.occupancy)
        if self.keep_tracks and (is_due or packet.events):
            self.submit(*source.paths.add(packet))
        for follower in self.followers:
            follower.follow(packet, changed)

    def status(self, status: SourceStatus) -> None:
        """Store the times during which a camera is not seen, and close whatever its end leaves open."""
        source = self._sources.get(status.source_id)
        self._is_live[status.source_id] = status.info.is_live
        if source is None:
            return
        changed = self._keep(source, status.analyses.get("analytics", ()))
        if status.state == "ended":
            changed += self._end(source, STOPPED)
        elif status.state in _UNSEEING and status.info.is_live and source.gap is None:
            row = source.seen()
            source.gap = GapRow(row.source_id, row.seen_utc_ns, None, row.engine_id, row.run_epoch, status.state)
            source.counts.forget_previous()
            self.submit(Job(partial(_put, row=source.gap)))
        for follower in self.followers:
            follower.ended(status.source_id, changed)

    def tick(self) -> None:
        """Store the counts, and when each source was last seen."""
        for source in self._sources.values():
            if source.has_news and not source.has_ended:
                source.has_news = False
                self.submit(Job(partial(_put_all, rows=[*source.counts.take(), source.seen()])))

    def close(self) -> None:
        """Close all open episodes, write everything, and close the store without waiting for one that hangs."""
        thread = self._thread
        if thread is None or self._is_closed:
            return
        for source in self._sources.values():
            if not source.has_ended:
                changed = self._end(source, STOPPED)
                for follower in self.followers:
                    follower.ended(source.run_row.source_id, changed)
        for follower in self.followers:
            follower.close()
        thread.close(CLOSE_S)
        self._is_closed = True

    # --- internals ---

    def _begin(self, packet: Packet) -> _Source:
        """Begin to follow a source, or follow it again after its end."""
        frame, run = packet.frame, self._run
        name, utc_ns = frame.source_id, packet.scene_utc_ns
        row = SourceRunRow(run.engine_id, run.run_epoch, name, utc_ns, utc_ns, frame.scene_ns)
        is_live = frame.captured_source != "file" and self._is_live.get(name, True)
        before = self._sources.get(name)
        source = _Source(
            rows=RowMaker(run, self._clip_severities),
            counts=MinuteCounts(name, run.run_epoch) if before is None else before.counts,
            paths=TrackCollector(run, name),
            is_live=is_live,
            run_row=row,
            stream_epoch=frame.stream_epoch,
            utc_offset_ns=utc_ns - frame.scene_ns,
            frame_id=frame.frame_id,
        )
        self._sources[name] = source
        self.submit(Job(lambda store: store.begin_source(row, is_live=is_live)))
        return source

    def _keep(self, source: _Source, findings: Sequence[Finding]) -> list[EventRow]:
        """Write the rows of findings, and return those of events."""
        changed: list[EventRow] = []
        jobs: list[Job] = []
        moment = source.moment
        for finding in findings:
            row = source.rows.row(finding, moment)
            if isinstance(row, EventRow):
                changed.append(row)
                jobs.append(self._job_of(source, row))
                continue
            self._count(source, row, finding)
            jobs.append(Job(partial(_put, row=row)))
        self.submit(*jobs)
        return changed

    def _job_of(self, source: _Source, row: EventRow) -> Job:
        """Note whether an event is open, and return the job that stores it."""
        if row.phase in ("end", "point"):
            source.open.pop(row.event_id, None)
        else:
            source.open[row.event_id] = row
        return Job(partial(self._put_event, row=row), events=1, is_durable=row.severity == "alert")

    def _put_event(self, store: StoreWriter, row: EventRow) -> None:
        store.put(row)
        if self._planner is not None and row.phase != "update":
            store.add_actions(self._planner.plan(row, store))

    def _count(self, source: _Source, row: FactRow, finding: Finding) -> None:
        utc_ns = finding.captured_ns + source.moment.utc_offset_ns
        if finding.event == "zone_entered":
            source.counts.add(utc_ns, row.place, VISIT, row.class_name)
        elif finding.event == "line_crossed":
            source.counts.add(utc_ns, row.place, row.direction, row.class_name)

    def _end(self, source: _Source, reason: str) -> list[EventRow]:
        """End the episodes still open at the last frame, and forget the source."""
        changed: list[EventRow] = []
        jobs: list[Job] = []
        for row in list(source.open.values()):
            lasts_ns = max(source.seen_scene_ns - row.began_scene_ns, 0)
            ended = replace(
                row,
                phase="end",
                ended_utc_ns=row.began_utc_ns + lasts_ns,
                duration_s=round(lasts_ns / NS_PER_S, 3),
                reason=reason,
            )
            changed.append(ended)
            jobs.append(self._job_of(source, ended))
        jobs += source.paths.finish()
        self.submit(*jobs, Job(partial(_put_all, rows=[*source.counts.take(everything=True), source.seen(reason)])))
        return changed

    def _end_gap(self, source: _Source, utc_ns: int) -> None:
        gap, source.gap = source.gap, None
        if gap is not None:
            self.submit(Job(partial(_put, row=replace(gap, to_utc_ns=utc_ns))))


def _put(store: StoreWriter, row: Any) -> None:
    store.put(row)


def _put_all(store: StoreWriter, rows: Sequence[Any]) -> None:
    store.put_all(rows)
