"""Records cameras while detecting on them: "detect on the sub-stream, record the main stream".

Each recording is a separate process (`record_process`) with its own connection, so that neither a dead camera nor a
full or hanging disk affects detection. This side starts the process with its source, watches it and ends it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.data import Packet, SourceStatus
from engine.process import Child
from engine.process_log import current_level, take_log
from engine.protocols import SinkBase
from engine.redaction import public_address
from engine.sinks.camera_video.record_process import DISK_WAIT_S, STOP, RingOptions
from engine.sinks.camera_video.segments import SegmentFolder
from engine.sinks.children import ChildReportError, Restarts, report_from
from engine.video.address import VideoAddress
from engine.video.network import record_address
from engine.video.options import SourceOptions

logger = logging.getLogger(__name__)
GRACE_S = 0.3
_KILL_AFTER_S = 5.0
STATES = ("connecting", "recording", "ready", "offline", "failed", "ended")
_COUNTERS = ("segments", "packets", "bytes", "deleted", "reconnects", "write_errors")


@dataclass(frozen=True, slots=True)
class RecordPlan:
    """What to record, and where; with `ring`, only on request.

    `is_main` says that events may show its images instead of those that detection ran on, because it is the camera's
    main stream and nothing has to be hidden.
    """

    target: VideoAddress
    files: SegmentFolder
    options: SourceOptions
    ring: RingOptions | None = None
    is_main: bool = False

    @property
    def longest_silence_s(self) -> float:
        """Silence after which the process is considered hung."""
        options = self.options
        waits = max(options.backoff_max_s, options.refused_backoff_s, DISK_WAIT_S)
        return options.connect_timeout_s + options.open_timeout_s + options.read_timeout_s + waits + _KILL_AFTER_S


def recording_folder(folder: str | Path, source_id: str) -> Path:
    """Return the absolute folder of a source's recordings below the common one, whatever characters its name has."""
    name = quote(source_id, safe="")
    return Path(folder).resolve() / (f"%2E{name[1:]}" if name.startswith(".") else name)


def record_plan(
    uri: str,
    source_id: str,
    folder: str | Path,
    options: SourceOptions,
    *,
    ring: RingOptions | None = None,
    is_main: bool = False,
    **options_of_folder: Any,
) -> RecordPlan:
    """Return the plan to record an address into its own folder below `folder`.

    Args:
        uri: network address of the stream.
        source_id: the camera; names the folder.
        folder: parent folder of all recordings.
        options: how to connect.
        ring: keep the newest packets in memory and write them only on request; None: record all the time.
        is_main: events may show its images, because it is the camera's main stream and nothing has to be hidden.
        options_of_folder: `container`, `segment_s`, `max_bytes`, `keep_s`, `sound` of `SegmentFolder`.

    Raises:
        ConfigError: the address is not a network stream.
        SourceError: the address is not valid.
    """
    files = SegmentFolder(str(recording_folder(folder, source_id)), **options_of_folder)
    return RecordPlan(record_address(uri, options, sound=files.sound), files, options, ring, is_main)


class Recordings(SinkBase):
    """Records every source that has a plan, from its first state to its end; takes no frames itself.

    Args:
        plans: by `source_id`.
        clock: for tests.
    """

    name = "recordings"
    blocking = True
    takes_packets = False

    def __init__(self, plans: Mapping[str, RecordPlan], clock: Clock = SYSTEM_CLOCK) -> None:
        self._plans = dict(plans)
        self._clock = clock
        self._recorders: dict[str, _Recorder] = {}

    def set_plans(self, plans: Mapping[str, RecordPlan]) -> None:
        """Replace the plans for sources that start from now on; callable from any thread."""
        self._plans = dict(plans)

    def plan(self, source_id: str) -> RecordPlan | None:
        """Return how a source is recorded; None if it is not. Callable from any thread."""
        return self._plans.get(source_id)

    def is_running(self, source_id: str) -> bool:
        """Return whether the packets of a source arrive at its recording; callable from any thread."""
        recorder = self._recorders.get(source_id)
        return recorder is not None and recorder.figures()["state"] in ("recording", "ready")

    def hold(self, source_id: str, seconds: float) -> None:
        """Write a source's ring to disk, and what follows for `seconds`; callable from any thread.

        Nothing happens if the source is recorded all the time, or not at all.
        """
        recorder = self._recorders.get(source_id)
        if recorder is not None and recorder.plan.ring is not None:
            recorder.hold(seconds)

    def write(self, packet: Packet) -> None:
        """Ignore frames."""

    def status(self, status: SourceStatus) -> None:
        """Start and end the recording with its source."""
        source_id, plan = status.source_id, self._plans.get(status.source_id)
        recorder = self._recorders.get(source_id)
        if status.state == "ended":
            if recorder is not None:
                recorder.stop(GRACE_S)
            return
        if plan is None or (recorder is not None and recorder.plan == plan and recorder.is_running):
            return
        if recorder is not None:
            recorder.stop(GRACE_S)
        self._recorders[source_id] = _Recorder(source_id, plan, self._clock, recorder.totals() if recorder else {})

    def tick(self) -> None:
        """Read the reports of all recordings, and replace processes that hang."""
        for recorder in list(self._recorders.values()):
            recorder.look()

    def close(self) -> None:
        """End all recordings; each finishes its file if it answers in time."""
        recorders = list(self._recorders.values())
        for recorder in recorders:
            recorder.ask_to_stop()
        deadline_ns = self._clock.monotonic_ns() + int(GRACE_S * NS_PER_S)
        for recorder in recorders:
            recorder.stop(max(deadline_ns - self._clock.monotonic_ns(), 0) / NS_PER_S)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return uri, folder, state, reason and counters of every recording by source; callable from any thread."""
        return {source_id: recorder.figures() for source_id, recorder in list(self._recorders.items())}


class _Recorder:
    """The process of one recording, replaced when it hangs or dies."""

    def __init__(self, source_id: str, plan: RecordPlan, clock: Clock, before: Mapping[str, int]) -> None:
        self.plan = plan
        self._source_id = source_id
        self._clock = clock
        self._before = {name: before.get(name, 0) for name in _COUNTERS}
        self._restarts = before.get("restarts", 0)
        self._again = Restarts(clock)
        self._now: dict[str, Any] = {"state": "connecting", "reason": ""}
        self._told = ""  # the last state that was logged, so that an unavailable camera is logged once
        self._child: Child | None = None
        self._held_until_ns = 0
        self.is_running = True
        self._start()

    def totals(self) -> dict[str, int]:
        """Return the counters summed over all its processes."""
        counted = {name: self._before[name] + self._now.get(name, 0) for name in _COUNTERS}
        return {**counted, "restarts": self._restarts}

    def figures(self) -> dict[str, Any]:
        """Return the recording's entry in the summary."""
        place = {"uri": public_address(self.plan.target.url), "folder": self.plan.files.folder}
        ring: dict[str, Any] = {name: self._now[name] for name in ("ring_s", "ring_bytes") if name in self._now}
        return {**place, "state": self._now["state"], "reason": self._now["reason"], **self.totals(), **ring}

    def look(self) -> None:
        """Read the process's reports; replace a process that has died or fallen silent."""
        if not self.is_running:
            return
        if self._child is None:
            if not self._again.is_due:
                return
            self._start()
        self._take(0)
        silent_s = (self._clock.monotonic_ns() - self._heard_ns) / NS_PER_S
        if silent_s > self.plan.longest_silence_s:
            self._replace(f"the recording process sent nothing for {silent_s:.0f} s")

    def ask_to_stop(self) -> None:
        """Ask the process to finish its file."""
        if self._child is not None:
            self._child.say(STOP)

    def stop(self, grace_s: float) -> None:
        """End the process and keep its final counters; harmless when repeated."""
        self.ask_to_stop()
        deadline_ns = self._clock.monotonic_ns() + int(grace_s * NS_PER_S)
        while self._child is not None and self._now["state"] != "ended":
            if not self._take(max(deadline_ns - self._clock.monotonic_ns(), 0) / NS_PER_S, is_ending=True):
                break
        if self._child is not None:
            self._child.end(max(deadline_ns - self._clock.monotonic_ns(), 0) / NS_PER_S)
        self._child, self.is_running = None, False
        self._now = {**self._now, "state": "ended"}

    def _start(self) -> None:
        self._heard_ns = self._clock.monotonic_ns()
        self._again.started()
        plan = self.plan
        request: dict[str, Any] = {name: asdict(getattr(plan, name)) for name in ("target", "files", "options")}
        request["ring"] = None if plan.ring is None else asdict(plan.ring)
        request["log_level"] = current_level()
        try:
            self._child = Child("engine.sinks.camera_video.record_process", name=self._source_id)
        except OSError as error:
            self._note({"state": "failed", "reason": f"cannot start a recording process ({error})"})
            return
        self._child.say(json.dumps(request).encode())
        self._say_held()

    def hold(self, seconds: float) -> None:
        """Ask the process to write its ring and what follows for `seconds`; callable from any thread."""
        self._held_until_ns = max(self._held_until_ns, self._clock.monotonic_ns() + int(seconds * NS_PER_S))
        self._say_held()

    def _say_held(self) -> None:
        held_s = (self._held_until_ns - self._clock.monotonic_ns()) / NS_PER_S
        child = self._child
        if child is not None and held_s > 0:
            child.say(json.dumps({"hold_s": held_s}).encode())

    def _take(self, wait_s: float, *, is_ending: bool = False) -> bool:
        """Read the process's reports, waiting for the first one; return whether there were any."""
        heard = False
        try:
            while self._child is not None and self._child.connection.poll(0 if heard else wait_s):
                news = report_from(self._child.connection.recv_bytes(), STATES)
                if not take_log(news, self._source_id):
                    self._note(news)
                heard = True
        except (EOFError, OSError):
            if not is_ending:
                self._replace("the recording process has died")
            return False
        except ChildReportError as error:
            if not is_ending:
                self._replace(f"the recording process sent {error}")
            return False
        return heard

    def _note(self, news: dict[str, Any]) -> None:
        self._now, self._heard_ns = news, self._clock.monotonic_ns()
        state, reason = news["state"], news["reason"]
        if state in ("offline", "failed") and self._told != state:
            logger.warning("%s is not being recorded (%s): %s", self._source_id, state, reason)
            self._told = state
        elif state in ("recording", "ready") and self._told != "recording":
            when = "" if self.plan.ring is None else " around events"
            logger.info("%s is being recorded%s to %s", self._source_id, when, self.plan.files.folder)
            self._told = "recording"

    def _replace(self, reason: str) -> None:
        """End the process, and start another one, after a pause if the last ones did not live long."""
        logger.warning("%s: %s: restarting it", self._source_id, reason)
        child, self._child = self._child, None
        if child is not None:
            child.end(0)
        self._before = {name: count for name, count in self.totals().items() if name in _COUNTERS}
        self._restarts += 1
        self._now = {"state": "connecting", "reason": reason}
        self._again.ended()
        if self._again.is_due:
            self._start()
