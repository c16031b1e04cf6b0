"""Decides which events an action reports: schedule, then snooze, then cooldown with digest, then hourly budget.

Every decision is based on the rows of the store, within the transaction that stores the event, so a restart, a failed
transaction or a second attempt leads to the same rows. A suppressed message is also a row, with its cause.
"""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.events.actions.base import ActionRules
from engine.events.store.rows import ActionState, EventRow, OutboxRow
from engine.events.store.writer import StoreWriter

HOUR_NS = 3600 * NS_PER_S
BUDGET_EVERY_NS = 600 * NS_PER_S
DIGESTS = ("digest", "budget")
Cause = Literal["schedule", "snooze", "cooldown", "budget"]

_EXISTS = "SELECT state, cause FROM outbox WHERE event_id = :event_id AND phase = :phase AND action = :action"
_SNOOZED = "SELECT 1 FROM snooze WHERE source_id IN ('', :source_id) AND until_utc_ns > :now"
_LAST = """SELECT o.event_id, o.phase, o.created_utc_ns, o.state, o.payload FROM outbox o
    JOIN event e ON e.event_id = o.event_id
    WHERE o.action = :action AND o.engine_id = :engine_id AND o.phase IN ('begin', 'point', 'digest')
    AND o.state IN ('due', 'sent', 'failed') AND e.rule = :rule AND e.source_id = :source_id
    AND o.created_utc_ns > :low ORDER BY o.created_utc_ns DESC LIMIT 1"""
_LAST_BUDGET = """SELECT event_id, phase, created_utc_ns, state, payload FROM outbox
    WHERE action = :action AND engine_id = :engine_id AND phase = 'budget' AND created_utc_ns > :low
    ORDER BY created_utc_ns DESC LIMIT 1"""
_SPENT = """SELECT COUNT(*) FROM outbox WHERE action = :action AND engine_id = :engine_id AND phase <> 'budget'
    AND state IN ('due', 'sent', 'failed') AND created_utc_ns > :low"""
_COUNTED = "SELECT COUNT(*) FROM outbox WHERE action = :action AND state = 'digested' AND payload = :payload"


@dataclass(frozen=True, slots=True)
class _Last:
    """A planned message: from `at_ns` on, other messages of its kind wait."""

    event_id: str
    phase: str
    at_ns: int
    state: str
    payload: str

    def is_open(self, now_ns: int) -> bool:
        """Return whether a message is a digest with room for further events."""
        return self.phase in DIGESTS and self.at_ns > now_ns and self.state == "due" and not is_sealed(self.payload)


class Restraint:
    """Plans the messages of events: a `Planner` of the event log.

    Args:
        actions: when each action stays quiet, by name.
        of_rules: names of the actions of each rule.
        wake: called with the name of an action that has something to deliver; on the writing thread, before the
            transaction is committed.
        clock: wall clock of cooldowns and budgets.
    """

    def __init__(
        self,
        actions: Mapping[str, ActionRules],
        of_rules: Mapping[str, Sequence[str]],
        *,
        wake: Any = lambda action: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._actions = dict(actions)
        self._of_rules = {rule: tuple(names) for rule, names in of_rules.items()}
        self._wake = wake
        self._clock = clock
        self._held_back: Counter[tuple[str, str]] = Counter()

    def change(self, of_rules: Mapping[str, Sequence[str]]) -> None:
        """Replace the actions of rules; callable from any thread."""
        self._of_rules = {rule: tuple(names) for rule, names in of_rules.items()}

    def open(self, writer: StoreWriter) -> None:
        """Do nothing: all state is in the store."""

    def plan(self, event: EventRow, writer: StoreWriter) -> list[OutboxRow]:
        """Return the messages for an event that begins, ends or is a point."""
        rows: list[OutboxRow] = []
        for name in self._of_rules.get(event.rule, ()):
            rules = self._actions[name]
            if self._state(writer, event, event.phase, name) is not None:
                continue
            if event.phase == "end":
                rows += self._end(name, rules, event, writer) if rules.end else []
            else:
                rows += self._begin(name, rules, event, writer)
        for row in rows:
            if row.state == "due":
                self._wake(row.action)
            else:
                self._held_back[row.action, row.cause] += 1
        return rows

    def held_back(self) -> dict[str, dict[str, int]]:
        """Return how many messages were suppressed or collected, by action and cause; any thread.

        A transaction that had to be repeated is counted again.
        """
        found: dict[str, dict[str, int]] = {name: {} for name in self._actions}
        for (action, cause), count in list(self._held_back.items()):
            found[action][cause] = count
        return found

    def _begin(self, name: str, rules: ActionRules, event: EventRow, writer: StoreWriter) -> list[OutboxRow]:
        now_ns = self._clock.utc_ns()
        if rules.schedule is not None and not rules.schedule.allows(now_ns, rules.zone):
            return [self._row(name, rules, event, now_ns, "suppressed", "schedule")]
        if self._is_snoozed(writer, event, now_ns):
            return [self._row(name, rules, event, now_ns, "suppressed", "snooze")]
        last = self._last(writer, name, rules, event, now_ns)
        if last is not None and last.is_open(now_ns):
            return [self._collected(name, rules, event, now_ns, "cooldown", last.event_id, last.phase)]
        if self._is_spent(writer, name, rules, now_ns):
            return self._into_budget(writer, name, rules, event, now_ns)
        if last is None:
            return [self._row(name, rules, event, now_ns, "due")]
        at_ns = max(last.at_ns + int(rules.cooldown_s * NS_PER_S), now_ns)
        return self._new_digest(name, rules, event, now_ns, "cooldown", "digest", at_ns)

    def _end(self, name: str, rules: ActionRules, event: EventRow, writer: StoreWriter) -> list[OutboxRow]:
        """Return the message about an episode's end, for the actions that reported its beginning."""
        now_ns = self._clock.utc_ns()
        begin = self._state(writer, event, "begin", name)
        if begin is None:
            return []
        state, cause = begin
        if state in ("suppressed", "digested"):
            return [self._row(name, rules, event, now_ns, "suppressed", cause)]
        if self._is_snoozed(writer, event, now_ns):
            return [self._row(name, rules, event, now_ns, "suppressed", "snooze")]
        if self._is_spent(writer, name, rules, now_ns):
            return [self._row(name, rules, event, now_ns, "suppressed", "budget")]
        return [self._row(name, rules, event, now_ns, "due")]

    def _into_budget(
        self, writer: StoreWriter, name: str, rules: ActionRules, event: EventRow, now_ns: int
    ) -> list[OutboxRow]:
        given = {"action": name, "engine_id": event.engine_id, "low": now_ns - BUDGET_EVERY_NS}
        found = writer.database.execute(_LAST_BUDGET, given)
        last = _Last(*found[0]) if found else None
        if last is not None and last.is_open(now_ns):
            return [self._collected(name, rules, event, now_ns, "budget", last.event_id, last.phase)]
        at_ns = (now_ns if last is None else max(last.at_ns, now_ns)) + BUDGET_EVERY_NS
        return self._new_digest(name, rules, event, now_ns, "budget", "budget", at_ns)

    def _new_digest(
        self, name: str, rules: ActionRules, event: EventRow, now_ns: int, cause: Cause, phase: str, at_ns: int
    ) -> list[OutboxRow]:
        """Return a digest to be sent later, and the first event in it."""
        first = self._collected(name, rules, event, now_ns, cause, event.event_id, phase)
        digest = self._row(name, rules, event, at_ns, "due")
        body = {**json.loads(digest.payload), "phase": phase, "since_utc_ns": now_ns}
        return [first, replace(digest, phase=phase, payload=_text(body))]

    def _collected(
        self, name: str, rules: ActionRules, event: EventRow, now_ns: int, cause: Cause, into: str, phase: str
    ) -> OutboxRow:
        return replace(self._row(name, rules, event, now_ns, "digested", cause), payload=_into(into, phase))

    def _row(
        self, name: str, rules: ActionRules, event: EventRow, at_ns: int, state: ActionState, cause: str = ""
    ) -> OutboxRow:
        return OutboxRow(
            event_id=event.event_id,
            phase=event.phase,
            action=name,
            engine_id=event.engine_id,
            created_utc_ns=at_ns,
            due_utc_ns=at_ns,
            expires_utc_ns=at_ns + int(rules.expire_s * NS_PER_S),
            state=state,
            cause=cause,
            payload=_text(body_of(event, name, rules)) if state == "due" else "{}",
        )

    @staticmethod
    def _state(writer: StoreWriter, event: EventRow, phase: str, action: str) -> tuple[str, str] | None:
        found = writer.database.execute(_EXISTS, {"event_id": event.event_id, "phase": phase, "action": action})
        return (str(found[0][0]), str(found[0][1])) if found else None

    @staticmethod
    def _is_snoozed(writer: StoreWriter, event: EventRow, now_ns: int) -> bool:
        return bool(writer.database.execute(_SNOOZED, {"source_id": event.source_id, "now": now_ns}))

    @staticmethod
    def _last(writer: StoreWriter, name: str, rules: ActionRules, event: EventRow, now_ns: int) -> _Last | None:
        """Return the last message about this rule and source whose cooldown is still running."""
        if not rules.cooldown_s:
            return None
        given = {"action": name, "engine_id": event.engine_id, "rule": event.rule, "source_id": event.source_id}
        low = now_ns - int(rules.cooldown_s * NS_PER_S)
        found = writer.database.execute(_LAST, {**given, "low": low})
        return _Last(*found[0]) if found else None

    @staticmethod
    def _is_spent(writer: StoreWriter, name: str, rules: ActionRules, now_ns: int) -> bool:
        given = {"action": name, "engine_id": writer.engine_id, "low": now_ns - HOUR_NS}
        return bool(writer.database.execute(_SPENT, given)[0][0] >= rules.per_hour)


def body_of(event: EventRow, action: str, rules: ActionRules) -> dict[str, Any]:
    """Return the text that an action sends about an event."""
    return {
        "schema": "framewire.action/1.0",
        "action": action,
        "event_id": event.event_id,
        "phase": event.phase,
        "count": 1,
        "text": _sentence(event, rules),
        "engine_id": event.engine_id,
        "run_epoch": event.run_epoch,
        "source_id": event.source_id,
        "rule": event.rule,
        "severity": event.severity,
        "place": event.place,
        "class_name": event.class_name,
        "began_utc_ns": event.began_utc_ns,
        "ended_utc_ns": event.ended_utc_ns,
        "duration_s": event.duration_s,
        "reason": event.reason,
        "track_ids": event.track_ids,
        "why": list(event.facts.get("why", ())),
    }


def _sentence(event: EventRow, rules: ActionRules) -> str:
    what = " ".join(part for part in (event.class_name, f"in {event.place}" if event.place else "") if part)
    time = datetime.datetime.fromtimestamp(event.began_utc_ns / NS_PER_S, rules.zone).strftime("%H:%M:%S")
    told = f"{event.rule}: {what or event.rule} ({event.source_id}), {time}"
    return f"{told}, over after {event.duration_s:g} s" if event.phase == "end" and event.duration_s else told


def is_sealed(payload: str) -> bool:
    """Return whether the events of a digest have been counted, after which no further one can join."""
    return bool(json.loads(payload).get("sealed"))


def sealed(row: OutboxRow, writer: StoreWriter) -> OutboxRow:
    """Return a digest that states how many events it stands for.

    Call it on the writing thread when the digest is due.
    """
    body = json.loads(row.payload)
    given = {"action": row.action, "payload": _into(row.event_id, row.phase)}
    count = int(writer.database.execute(_COUNTED, given)[0][0])
    over_s = max(row.created_utc_ns - int(body.get("since_utc_ns", row.created_utc_ns)), 0) / NS_PER_S
    about = f"{body['rule']} ({body['source_id']})" if row.phase == "digest" else row.action
    text = f"{about}: {count} more {'event' if count == 1 else 'events'} in {over_s:.0f} s"
    return replace(row, payload=_text({**body, "count": count, "text": text, "sealed": True}))


def _into(event_id: str, phase: str) -> str:
    return _text({"into": f"{event_id}-{phase}"})


def _text(body: Mapping[str, Any]) -> str:
    return json.dumps(body, separators=(",", ":"))
