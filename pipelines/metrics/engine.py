"""The metrics of a run: read from its statistics snapshot on each scrape, so that frames cost nothing extra."""

from __future__ import annotations

import platform
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from engine.analytics.counters import DWELL_EDGES_S
from engine.clock import NS_PER_S
from engine.data import SourceState
from engine.events.actions.outbox import Outbox
from engine.events.log import EventLog
from engine.events.media.event_media import EventMedia
from engine.events.media.names import CLIPS, SNAPSHOTS
from engine.flow.defaults import describe
from engine.sinks.camera_video.recordings import Recordings
from engine.sinks.zmq import ZmqPublisher
from engine.stats import SourceSnapshot, StatsSnapshot
from pipelines.build.events import actions_of
from pipelines.build.scene import scene_of
from pipelines.metrics.children import DiskWatch, GpuWatch, add_children
from pipelines.metrics.exposition import Bounded, Page, Series, own_version
from pipelines.metrics.source_cost import CostMeter

if TYPE_CHECKING:
    from engine.analytics.view import View
    from engine.flow.pipeline import Pipeline

MAX_SOURCES = 256
MAX_CLASSES = 32
AGE_EDGES_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
STAGE_EDGES_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
DELAY_EDGES_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
BATCH_EDGES = (1, 2, 4, 8, 16, 32)
USUAL_CAUSES = ("overflow", "age", "detector")
"""Causes that are present from the start, so that their first loss counts as an increase."""
RECORDING_STATES = ("connecting", "ready", "recording", "offline", "failed", "ended")
EVENT_FOLDERS = {"snapshot": SNAPSHOTS, "clip": CLIPS}


class EngineMetrics:
    """Writes the metrics of a pipeline.

    Args:
        pipeline: the run.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._classes = Bounded(MAX_CLASSES)
        self._disk = DiskWatch(self._folders)
        self._gpu = GpuWatch()
        self._costs = CostMeter(pipeline)
        self._measuring = threading.Lock()

    def start(self) -> None:
        """Start measuring the disks."""
        self._disk.start()

    def close(self) -> None:
        """Stop measuring the disks."""
        self._disk.close()

    def page(self) -> str:
        """Return the current metrics in the text format."""
        page, stats = Page(), self._pipeline.stats.snapshot()
        sources = chosen(stats.sources)
        self._add_build(page)
        self._add_sources(page, sources)
        self._add_owners(page)
        self._add_ages(page, stats, sources)
        self._add_tracks(page, sources)
        self._add_places(page, sources)
        self._add_events(page, stats, sources)
        self._add_event_log(page)
        self._add_outputs(page, stats)
        self._add_recordings(page)
        add_children(page)
        self._disk.add_to(page)
        self._gpu.add_to(page)
        return page.text()

    def _add_build(self, page: Page) -> None:
        build = page.gauge("framewire_build_info", "Version of framewire and of Python.", "version", "python")
        build.add(1, own_version(), platform.python_version())
        labels = "model", "file", "backend", "device"
        models = page.gauge("framewire_model_info", "The models of the run and what runs them.", *labels)
        loaded = page.gauge("framewire_model_loaded", "Whether each model is loaded.", "model")
        for name, lane in self._pipeline.models.items():
            facts = describe(lane.detector)
            models.add(1, name, lane.run.model, facts.backend, facts.device)
            loaded.add(int(lane.is_loaded), name)

    def _add_sources(self, page: Page, sources: Iterable[SourceSnapshot]) -> None:
        state = page.gauge("framewire_source_state", "1 for the current state of each source.", "source", "state")
        captured = page.counter("framewire_frames_captured_total", "Frames that arrived.", "source")
        published = page.counter("framewire_frames_published_total", "Frames that were published.", "source")
        detected = page.counter("framewire_frames_detected_total", "Published frames with a detection.", "source")
        dropped = page.counter("framewire_frames_dropped_total", "Lost frames by cause.", "source", "cause")
        reconnects = page.counter("framewire_source_reconnects_total", "Reconnects of each source.", "source")
        blind = page.counter(
            "framewire_source_blind_seconds_total", "Time during which a source was not live.", "source"
        )
        last = page.gauge(
            "framewire_source_last_frame_timestamp_seconds", "Unix time of the capture of the last frame.", "source"
        )
        for source in sources:
            name = source.source_id
            for each in get_args(SourceState):
                state.add(int(each == source.state), name, each)
            captured.add(source.captured, name)
            published.add(source.published, name)
            detected.add(source.detected, name)
            for cause, count in {**dict.fromkeys(USUAL_CAUSES, 0), **source.dropped}.items():
                dropped.add(count, name, cause)
            reconnects.add(source.reconnects, name)
            blind.add(round(source.blind_s, 3), name)
            if source.last_frame_utc_ns:
                last.add(round(source.last_frame_utc_ns / NS_PER_S, 3), name)

    def _add_owners(self, page: Page) -> None:
        """Add the cost of each source and, in a fleet, how long this engine may publish it."""
        cores = page.gauge("framewire_cost_cores", "Cores that each source takes, averaged over 10 s.", "source")
        epoch = page.gauge("framewire_owner_epoch", "Epoch of each source that a fleet assigned.", "source")
        left = page.gauge("framewire_lease_left_seconds", "Time until each lease expires.", "source")
        leases = self._pipeline.leases
        with self._measuring:  # scrapes may overlap
            self._costs.poll()
            for name in self._pipeline.running_sources[:MAX_SOURCES]:
                cost = self._costs.of(name)
                if cost.cpu_ms is not None and cost.fps is not None:
                    cores.add(round(cost.cpu_ms * cost.fps / 1000, 4), name)
        for name in leases.held()[:MAX_SOURCES]:
            epoch.add(leases.epoch_of(name) or 0, name)
            left.add(round(leases.left_s(name), 3), name)

    def _add_ages(self, page: Page, stats: StatsSnapshot, sources: Iterable[SourceSnapshot]) -> None:
        age = page.histogram("framewire_frame_age_seconds", "Age of frames when they are published.", "source")
        for source in sources:
            age.add_latency(AGE_EDGES_S, source.latency, source.source_id)
        stages = page.histogram("framewire_stage_duration_seconds", "Time that frames spend in each stage.", "stage")
        for name, durations in stats.stages.items():
            stages.add_latency(STAGE_EDGES_S, durations, name)
        batches = Counter[int]()
        for model in stats.models.values():
            batches.update(model.batches)
        frames = page.histogram("framewire_batch_frames", "Frames per inference.")
        below = [sum(n for size, n in batches.items() if size <= edge) for edge in BATCH_EDGES]
        frames.add_histogram(BATCH_EDGES, below, batches.total(), sum(size * n for size, n in batches.items()))
        page.counter("framewire_inferences_total", "Finished inferences.").add(batches.total())

    def _add_tracks(self, page: Page, sources: Iterable[SourceSnapshot]) -> None:
        started = page.counter("framewire_tracks_started_total", "Tracks that began.", "source", "class")
        objects = page.gauge("framewire_objects", "Tracks on the last frame of a live source.", "source", "class")
        for source in sources:
            name = source.source_id
            _add_counts(started, self._classes.counts(name, source.tracks_started), name)
            if source.state == "live":
                _add_counts(objects, self._classes.counts(name, source.objects_by_class), name)

    def _add_places(self, page: Page, sources: Iterable[SourceSnapshot]) -> None:
        analyser = scene_of(self._pipeline)
        if analyser is None:
            return
        labels = "source", "zone", "class"
        inside = page.gauge("framewire_zone_occupancy", "Objects inside a zone of a live source.", *labels)
        visits = page.counter("framewire_zone_visits_total", "Visits of zones.", *labels)
        dwell = page.histogram("framewire_zone_dwell_seconds", "Duration of finished visits.", "source", "zone")
        each = "source", "line", "direction", "class"
        crossings = page.counter("framewire_line_crossings_total", "Crossings of lines.", *each)
        dithers = page.counter("framewire_line_dithers_total", "Crossings that were taken back.", "source", "line")
        mismatch = page.gauge(
            "framewire_places_mismatch",
            "1 if the frames have a different aspect ratio than the places were drawn on.",
            "source",
        )
        for name, text in analyser.mismatches().items():
            mismatch.add(int(bool(text)), name)
        states = analyser.states()
        for source in sources:
            name, state = source.source_id, states.get(source.source_id, {}).get("counters", {})
            if source.scene is not None and source.state == "live":
                for zone, counts in occupancy(source.scene).items():
                    _add_counts(inside, self._classes.counts(f"{name}/{zone}", counts), name, zone)
            for zone, counts in state.get("visits", {}).items():
                _add_counts(visits, self._classes.counts(f"{name}/{zone}", counts), name, zone)
            for zone, times in state.get("dwell", {}).items():
                below = list(accumulate(times["by_edge"]))
                dwell.add_histogram(DWELL_EDGES_S, below[:-1], below[-1], round(times["sum"], 3), name, zone)
            for line, direction, counts in _crossings(state):
                _add_counts(crossings, self._classes.counts(f"{name}/{line}", counts), name, line, direction)
            for line, count in state.get("dithers", {}).items():
                dithers.add(count, name, line)

    def _add_events(self, page: Page, stats: StatsSnapshot, sources: Iterable[SourceSnapshot]) -> None:
        events = page.counter("framewire_events_total", "Events of rules.", "source", "rule", "severity")
        is_open = page.gauge("framewire_events_open", "Episodes of rules that have not ended.", "rule")
        open_by_rule = Counter[str]()
        for source in sources:
            for (rule, severity), count in source.events.items():
                events.add(count, source.source_id, rule, severity)
                open_by_rule[rule] += 0
            if source.scene is not None:
                open_by_rule.update(finding.rule for finding in source.scene.open)
        for rule, count in open_by_rule.items():
            is_open.add(count, rule)
        if stats.event_delay.count:
            delay = page.histogram("framewire_event_delay_seconds", "From the capture of a frame to its event.")
            delay.add_latency(DELAY_EDGES_S, stats.event_delay)

    def _add_event_log(self, page: Page) -> None:
        stored = page.counter("framewire_events_stored_total", "Events written to the event log.")
        waiting = page.gauge("framewire_events_waiting", "Events that are not written to the event log yet.")
        unstored = page.counter("framewire_events_unstored_total", "Events that the event log lost.", "cause")
        for sink in self._pipeline.sinks:
            if isinstance(sink, EventLog):
                figures = sink.figures()
                stored.add(figures.stored)
                waiting.add(figures.waiting)
                for cause, count in figures.lost.items():
                    unstored.add(count, cause)
                for follower in sink.followers:
                    if isinstance(follower, EventMedia):
                        self._add_media(page, follower)
                self._add_actions(page, sink)

    def _add_media(self, page: Page, media: EventMedia) -> None:
        clips = page.counter("framewire_clips_total", "Clips of events by outcome.", "source", "result")
        for (source_id, state), count in list(media.clips.results.items()):
            clips.add(count, source_id, state)
        skipped = page.counter("framewire_images_skipped_total", "Images of events that were left out.", "cause")
        for cause, count in list(media.skipped.items()):
            skipped.add(count, cause)
        if media.upkeep is None:
            return
        limit = page.gauge("framewire_storage_limit_bytes", "Limit of all kinds of files together.")
        if media.upkeep.report.get("limit") is not None:
            limit.add(media.upkeep.report["limit"])
        deleted = page.counter("framewire_storage_deleted_files_total", "Files and events deleted.", "kind", "cause")
        for name, count in list(media.upkeep.deleted.items()):
            deleted.add(count, *name.split("/"))

    @staticmethod
    def _add_actions(page: Page, log: EventLog) -> None:
        if not (actions := actions_of(log)):
            return
        sent = page.counter("framewire_actions_total", "Attempts to deliver messages about events.", "action", "result")
        held = page.counter(
            "framewire_actions_suppressed_total", "Messages suppressed, or collected for a digest.", "action", "cause"
        )
        for name, outcome in actions.items():
            _add_counts(sent, {result: n for result, n in outcome.items() if isinstance(n, int)}, name)
            _add_counts(held, outcome["held_back"], name)
        pending = page.gauge("framewire_outbox_pending", "Messages that are not delivered yet.", "action")
        took = page.histogram(
            "framewire_action_duration_seconds", "Duration of attempts to deliver a message.", "action"
        )
        for follower in log.followers:
            for name, (count, durations) in follower.figures().items() if isinstance(follower, Outbox) else ():
                pending.add(count, name)
                took.add_latency(STAGE_EDGES_S, durations, name)

    def _add_outputs(self, page: Page, stats: StatsSnapshot) -> None:
        missed = page.counter("framewire_output_dropped_total", "Packets that an output missed.", "output", "cause")
        for output, causes in stats.sink_dropped.items():
            for cause, count in causes.items():
                missed.add(count, output, cause)
        overflows = page.counter(
            "framewire_subscriber_overflows_total", "Messages that met the full queue of a subscriber.", "kind"
        )
        for sink in self._pipeline.sinks:
            for kind, count in sink.overflows.items() if isinstance(sink, ZmqPublisher) else ():
                overflows.add(count, kind)

    def _add_recordings(self, page: Page) -> None:
        state = page.gauge("framewire_recording_state", "1 for the current state of a recording.", "source", "state")
        written = page.counter("framewire_recording_bytes_total", "Bytes written by recordings.", "source")
        errors = page.counter("framewire_recording_write_errors_total", "Files that could not be written.", "source")
        restarts = page.counter("framewire_recording_restarts_total", "Restarts of the recording process.", "source")
        for source_id, facts in self._recordings():
            for each in dict.fromkeys((*RECORDING_STATES, facts["state"])):
                state.add(int(each == facts["state"]), source_id, each)
            written.add(facts["bytes"], source_id)
            errors.add(facts["write_errors"], source_id)
            restarts.add(facts["restarts"], source_id)

    def _recordings(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for sink in self._pipeline.sinks:
            if isinstance(sink, Recordings):
                yield from sink.summary().items()

    def _folders(self) -> dict[str, list[str]]:
        folders = [facts["folder"] for _, facts in self._recordings()]
        kinds = {"recording": folders} if folders else {}
        for sink in self._pipeline.sinks:
            if isinstance(sink, EventLog):
                kinds |= {kind: [str(sink.place.folder / name)] for kind, name in EVENT_FOLDERS.items()}
        return kinds


def chosen(sources: Iterable[SourceSnapshot]) -> list[SourceSnapshot]:
    """Return the sources to report: the running ones, and those that ended most recently, at most 256."""
    listed = list(sources)
    running = [source for source in listed if source.state != "ended"][:MAX_SOURCES]
    ended = [source for source in listed if source.state == "ended"]
    room = MAX_SOURCES - len(running)
    return running + (ended[-room:] if room else [])


def occupancy(view: View) -> dict[str, dict[str, int]]:
    """Return how many objects of each class are inside each zone."""
    found: dict[str, dict[str, int]] = {zone: {} for zone in view.zones}
    if not len(view.objects):
        return found
    at, zone = np.nonzero(view.objects.inside)
    pairs = Counter(zip(zone.tolist(), view.objects.class_id[at].tolist(), strict=True))
    for (index, class_id), count in pairs.items():
        found[view.zones[index]][view.class_name(class_id)] = count
    return found


def _crossings(state: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, int]]]:
    for line, directions in state.get("crossings", {}).items():
        for direction, counts in directions.items():
            yield line, direction, counts


def _add_counts(series: Series, counts: Mapping[str, int], *labels: str) -> None:
    for class_name, count in counts.items():
        series.add(count, *labels, class_name)
