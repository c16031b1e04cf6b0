"""What a run answers on its control socket: its state, and changes of sources, models, places and rules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from engine.data import DEFAULT_MODEL
from engine.errors import ConfigError
from engine.flow.pipeline import Pipeline
from engine.stats import SourceSnapshot
from pipelines.build.edits import EditsFile
from pipelines.running.assignments import Assignments
from pipelines.running.control_client import ask as ask
from pipelines.running.control_socket import Command, ControlSocket, done_with, given
from pipelines.running.detect_and_publish import model_facts, recording_folders
from pipelines.running.places import change_places, places_of
from pipelines.running.reconfigure import Reconfigurer
from pipelines.running.rules import change_rules, rules_of
from pipelines.running.shared_totals import shared_totals
from pipelines.running.snoozing import snooze

if TYPE_CHECKING:
    from engine.transport.keys import KeyPair

MAX_ENDED = 100
THRESHOLDS = {"score_threshold", "iou_threshold", "classes"}


class ControlServer(ControlSocket):
    """Answers requests about one run.

    Args:
        address: as for `ControlSocket`.
        pipeline: the run.
        changes: applies changes to it.
        keys: as for `ControlSocket`.
        allowed_keys: likewise.
        more_status: returns further facts for `status`.
        more_commands: further commands and their replies.
        edits: stores changed zones, lines and rules; None: they end with the run.

    Raises:
        ConfigError: other machines could control the run without a listed key.
        SinkError: the socket cannot be bound.
    """

    def __init__(
        self,
        address: str,
        pipeline: Pipeline,
        changes: Reconfigurer,
        *,
        keys: KeyPair | None = None,
        allowed_keys: Collection[str] | None = None,
        more_status: Callable[[], dict[str, Any]] = dict,
        more_commands: Mapping[str, Command] | None = None,
        edits: EditsFile | None = None,
    ) -> None:
        self._more_status = more_status
        self._pipeline, self._changes = pipeline, changes
        totals = shared_totals(pipeline, changes.config)
        self._assignments = Assignments(pipeline, changes, str if totals is None else totals.begin)
        commands: dict[str, Command] = {
            "status": self._status,
            "add": self._add,
            "remove": self._remove,
            "pause": lambda r: self._pause(r, paused=True),
            "resume": lambda r: self._pause(r, paused=False),
            "snooze": self._snooze,
            "set": self._set,
            "places": lambda r: places_of(pipeline, changes.config, edits),
            "set_places": lambda r: change_places(pipeline, changes, r, edits),
            "rules": lambda r: rules_of(pipeline, changes.config, edits),
            "set_rules": lambda r: change_rules(changes, r, edits),
            "recordings": lambda r: {"folders": recording_folders(pipeline)},
            "stop": self._stop,
            **self._assignments.commands,
            **(more_commands or {}),
        }
        super().__init__(address, commands, keys=keys, allowed_keys=allowed_keys)

    def poll(self) -> None:
        """Stop sources whose lease has expired, then answer waiting requests."""
        self._assignments.poll()
        super().poll()

    def _add(self, request: dict[str, Any]) -> dict[str, Any]:
        source = given(request, "source", dict)
        done = self._changes.add(source)
        self._pipeline.leases.disown(str(source.get("source_id")))
        return done_with(done)

    def _remove(self, request: dict[str, Any]) -> dict[str, Any]:
        source_id = given(request, "source_id", str)
        self._assignments.check_free(source_id)
        return done_with(self._changes.remove(source_id))

    def _set(self, request: dict[str, Any]) -> dict[str, Any]:
        source_id = given(request, "source_id", str) if "source_id" in request else None
        return done_with(self._changes.set(given(request, "key", str), request.get("value"), source_id))

    def _status(self, request: dict[str, Any]) -> dict[str, Any]:
        paused = self._pipeline.paused_sources
        sources = {
            s.source_id: {
                "state": s.state,
                "model": self._pipeline.model_of(s.source_id),
                "paused": s.source_id in paused,
                "reason": s.reason,
                "captured": s.captured,
                "published": s.published,
                "dropped": dict(s.dropped),
                "reconnects": s.reconnects,
                "fps": s.fps,
                "latency_ms": dict(s.latency_ms),
                **self._assignments.facts_of(s.source_id),
            }
            for s in self._present()
        }
        config, facts = self._changes.config, model_facts(self._pipeline, self._pipeline.stats.snapshot())
        for name, model in facts["models"].items():
            if name in config.models:
                model |= config.models[name].model_dump(include=THRESHOLDS)
        return {
            "sources": sources,
            "configured": [str(source.source_id) for source in config.sources],
            "detector": config.detector.model_dump(include={"model", *THRESHOLDS}),
            "model": facts["model"],
            "models": facts["models"],
            "files": {DEFAULT_MODEL: config.detector.model, **{n: m.model for n, m in config.models.items()}},
            "loading": self._changes.loading,
            "wall_s": round(self._pipeline.wall_s, 1),
            **self._assignments.facts(),
            **self._more_status(),
        }

    def _present(self) -> list[SourceSnapshot]:
        """Return the configured sources and those that ended most recently; the summary lists all."""
        configured = {source.source_id for source in self._changes.config.sources}
        known = self._pipeline.stats.snapshot().sources
        gone = [s.source_id for s in known if s.state == "ended" and s.source_id not in configured]
        old = set(gone[: max(len(gone) - MAX_ENDED, 0)])
        return [s for s in known if s.source_id not in old]

    def _pause(self, request: dict[str, Any], *, paused: bool) -> dict[str, Any]:
        source_id = given(request, "source_id", str)
        self._pipeline.pause_source(source_id, paused=paused)
        return done_with([f"{'paused' if paused else 'resumed'} {source_id}"])

    def _snooze(self, request: dict[str, Any]) -> dict[str, Any]:
        for_s = request.get("for_s")
        if isinstance(for_s, bool) or not isinstance(for_s, int | float):
            raise ConfigError(f"snooze: for_s is {for_s!r}: expected a number of seconds, 0 to end it")
        return done_with([snooze(self._pipeline, given(request, "source_id", str), for_s)])

    def _stop(self, request: dict[str, Any]) -> dict[str, Any]:
        self._pipeline.finish()
        return done_with(["stopping"])
