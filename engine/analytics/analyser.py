"""Run analytics as a pipeline analyser: one scene per source, driven by its packets and states."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from engine.analytics.analytics import Analytics, AnyRule
from engine.analytics.findings import Finding
from engine.analytics.places import Line, Zone
from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.data import Packet, SourceStatus
from engine.protocols import AnalyserBase, AnalyserReset

NAME = "analytics"
"""Key of the `View` in `Packet.analyses`, and of the last findings in `SourceStatus.analyses`."""
SUMMED_NS = NS_PER_S // 2
"""Maximum age of `summary` and `states` while frames arrive."""
_UNSEEING = ("stalled", "offline", "connecting")


class SceneAnalyser(AnalyserBase):
    """Runs the analytics of one or more sources; each source has its own scene and totals.

    `change`, `add_counts` and `summary` may be called from any thread; call everything else from the tracking thread.

    Args:
        analytics: by source; or a single one, which is cloned for every source.
        clock: measures the time without live frames.
    """

    name = NAME

    def __init__(self, analytics: Analytics | Mapping[str, Analytics], clock: Clock = SYSTEM_CLOCK) -> None:
        self._prototype = analytics if isinstance(analytics, Analytics) else None
        self._scenes = {} if isinstance(analytics, Analytics) else dict(analytics)
        self._clock = clock
        self._lock = threading.Lock()
        self._wanted: dict[str, tuple[Sequence[Zone], Sequence[Line], Sequence[AnyRule]]] = {}
        self._added: dict[str, list[tuple[Mapping[tuple[str, str, str], int], int | None]]] = {}
        self._waiting: dict[str, list[Finding]] = {}
        self._summaries: dict[str, dict[str, Any]] = {name: scene.summary() for name, scene in self._scenes.items()}
        self._states: dict[str, Callable[[], dict[str, Any]]] = {}
        self._summed_ns: dict[str, int] = {}

    def analyse(self, packets: Sequence[Packet]) -> Sequence[Packet]:
        """Return the packets, each with the `View` of its source."""
        if self._wanted:
            self._take_over()
        return [self._looked_at(packet) for packet in packets]

    def _looked_at(self, packet: Packet) -> Packet:
        frame = packet.frame
        scene = self._scene(frame.source_id)
        if scene is None:
            return packet
        if scene.class_names != packet.run.class_names:
            scene.class_names = packet.run.class_names
        view = scene.update(
            packet.tracks,
            frame.scene_ns,
            (frame.width, frame.height),
            utc_ns=packet.scene_utc_ns or None,
            is_detected=packet.is_detected,
            is_held=packet.is_held,
            ended=[event.track_id for event in packet.events if event.kind == "ended"],
        )
        if frame.source_id in self._added:
            self._add_counts(frame.source_id, scene)
        waiting = self._waiting.pop(frame.source_id, None)
        if waiting:
            view = replace(view, findings=(*waiting, *view.findings))
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._summed_ns.get(frame.source_id, now_ns - SUMMED_NS) >= SUMMED_NS:
            self._sum_up(frame.source_id, scene, now_ns)
        return packet.with_analysis(self.name, view)

    def _scene(self, source_id: str) -> Analytics | None:
        if source_id not in self._scenes and self._prototype is not None:
            self._scenes[source_id] = self._prototype.clone()
        return self._scenes.get(source_id)

    def status(self, status: SourceStatus) -> SourceStatus:
        """Count the time without live frames, end all objects if the source ended, and attach findings to the state."""
        scene = self._scenes.get(status.source_id)
        if scene is None:
            return status
        if status.state == "ended":
            return status.with_analysis(self.name, tuple(self._finish(status.source_id, scene)))
        if status.info.is_live and status.state in _UNSEEING:
            scene.source_is(live=False, captured_ns=self._clock.monotonic_ns())
            view = scene.tick(self._clock.monotonic_ns(), self._clock.utc_ns())
            if view is not None and view.findings:
                return status.with_analysis(self.name, view.findings)
        return status

    def reset(self, source_id: str, reason: AnalyserReset) -> None:
        """End all objects of a source; its next frame reports the findings."""
        scene = self._scenes.get(source_id)
        if scene is not None:
            self._waiting.setdefault(source_id, []).extend(scene.reset(reason))

    def close(self) -> None:
        """End all visits and episodes; the totals can still be read."""
        for source_id, scene in self._scenes.items():
            self._finish(source_id, scene)

    def _finish(self, source_id: str, scene: Analytics) -> list[Finding]:
        waiting = self._waiting.pop(source_id, [])
        if not scene.has_ended:
            waiting += scene.settle()
            self._sum_up(source_id, scene, self._clock.monotonic_ns())
        told = [*waiting, *scene.finish()]
        self._states[source_id] = scene.state_now()
        return told

    def _sum_up(self, source_id: str, scene: Analytics, now_ns: int) -> None:
        self._summed_ns[source_id] = now_ns
        self._summaries[source_id] = scene.summary()
        self._states[source_id] = scene.state_now()

    def change(self, source_id: str, zones: Sequence[Zone], lines: Sequence[Line], rules: Sequence[AnyRule]) -> None:
        """Replace a source's places and rules from its next frame on; unchanged ones keep their state."""
        with self._lock:
            self._wanted[source_id] = zones, lines, rules

    def add_counts(self, source_id: str, counts: Mapping[tuple[str, str, str], int], since_utc_ns: int | None) -> None:
        """Add counts made elsewhere to a source's totals after its next frame; see `Counters.add`."""
        with self._lock:
            self._added.setdefault(source_id, []).append((counts, since_utc_ns))

    def _add_counts(self, source_id: str, scene: Analytics) -> None:
        with self._lock:
            added = self._added.pop(source_id, [])
        for counts, since_utc_ns in added:
            scene.counters.add(counts, since_utc_ns)

    def _take_over(self) -> None:
        with self._lock:
            wanted, self._wanted = self._wanted, {}
        for source_id, (zones, lines, rules) in wanted.items():
            scene = self._scene(source_id)
            if scene is None:
                self._scenes[source_id] = Analytics(zones, lines, rules)
            else:
                self._waiting.setdefault(source_id, []).extend(scene.change(zones, lines, rules))

    def has(self, source_id: str) -> bool:
        """Return whether a source has a scene, if only one without places."""
        return source_id in self._scenes or source_id in self._wanted or self._prototype is not None

    def add(self, source_id: str, analytics: Analytics) -> None:
        """Add a scene for another source; call this before its first frame."""
        self._scenes.setdefault(source_id, analytics)
        self._summaries.setdefault(source_id, analytics.summary())

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return the totals by source; they are up to half a second old during the run and final after it."""
        return dict(self._summaries)

    def mismatches(self) -> dict[str, str]:
        """Return, by source, why its frames do not match its places; an empty text where they do."""
        return {name: scene.mismatch for name, scene in list(self._scenes.items())}

    def states(self) -> dict[str, dict[str, Any]]:
        """Return the state to pass to `Analytics.restore`, by source, as old as `summary`."""
        return {name: made() for name, made in list(self._states.items())}
