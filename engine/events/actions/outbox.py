"""Delivers planned messages, with one thread per action, so that an action that hangs does not delay the others.

A message is tried again after 2, 5, 15, 60 and 300 s, and then every 300 s until it expires. Whatever a killed engine
has not delivered, the next run of that engine delivers. A message whose delivery was not recorded before the end is
sent again with the same key, so receivers can recognise it.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.clock import NS_PER_MS, NS_PER_S, SYSTEM_CLOCK, Clock
from engine.data import Packet, Run
from engine.events.actions.base import Action, ActionRules, DeliveryError, DeliveryRefusedError, Notice
from engine.events.actions.restraint import DIGESTS, is_sealed, sealed
from engine.events.store.database import StoreError
from engine.events.store.place import StorePlace
from engine.events.store.reader import EventReader
from engine.events.store.rows import EventRow, OutboxRow
from engine.events.store.writer import StoreWriter
from engine.events.writing import Job
from engine.redaction import redact
from engine.stats.histogram import Histogram, HistogramSnapshot

if TYPE_CHECKING:
    from engine.events.log import EventLog

logger = logging.getLogger(__name__)
RETRY_S = (2.0, 5.0, 15.0, 60.0, 300.0)
PICTURE_WAIT_NS = NS_PER_S // 2
MAX_PICTURE_BYTES = 8 * 1024 * 1024
MAX_CAUSE_CHARS = 300
IDLE_S = 5.0
SOON_S = 0.1
DRAIN_S = 2.0
Key = tuple[str, str, str]
_STATE = "SELECT state, payload FROM outbox WHERE event_id = :event_id AND phase = :phase AND action = :action"
Submit = Callable[[Job], None]


class Courier:
    """Delivers the messages of one action; `step` is called on one thread.

    Args:
        name: of the action.
        action: delivers.
        rules: whether it sends images.
        place: where the store is.
        engine_id: the engine whose messages are delivered.
        submit: writes to the store soon.
        clock: time.

    Attributes:
        results: messages by outcome: `sent`, `retried`, `failed`.
        pending: messages that are not delivered yet.
        durations: of the attempts.
    """

    def __init__(
        self,
        name: str,
        action: Action,
        rules: ActionRules,
        place: StorePlace,
        engine_id: str,
        submit: Submit,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.name = name
        self.results: Counter[str] = Counter()
        self.pending = 0
        self.durations = Histogram()
        self._action, self._rules, self._place, self._engine_id = action, rules, place, engine_id
        self._submit, self._clock = submit, clock
        self._reader: EventReader | None = None
        self._written: dict[Key, OutboxRow] = {}
        self._error = ""

    def step(self) -> float:
        """Deliver what is due, and return the seconds until there may be more."""
        try:
            reader = self._opened()
            now_ns = self._clock.utc_ns()
            self.pending = reader.count_actions(self._engine_id, self.name)
            due = reader.due_actions(self._engine_id, now_ns, action=self.name)
            self._forget_done(due)
            waits = [self._handle(row, reader, now_ns) for row in due if not self._is_written(row)]
            if due:
                return min([SOON_S, *waits])
            next_ns = reader.next_action_ns(self._engine_id, self.name)
        except StoreError as error:
            self._tell(error)
            self.close_reader()
            return 1.0
        return IDLE_S if next_ns is None else min(max((next_ns - now_ns) / NS_PER_S, 0.01), IDLE_S)

    def close_reader(self) -> None:
        """Close the connection to the store."""
        reader, self._reader = self._reader, None
        if reader is not None:
            with suppress(StoreError):
                reader.close()

    def close(self) -> None:
        """Close the action and the connection."""
        self._action.close()
        self.close_reader()

    def _opened(self) -> EventReader:
        if self._reader is not None and not self._reader.database.is_there():
            self.close_reader()
        if self._reader is None:
            self._reader = EventReader(self._place)
        return self._reader

    def _is_written(self, row: OutboxRow) -> bool:
        """Return whether a newer state of a row is about to be written to the store."""
        return self._written.get(_key(row), row) != row

    def _forget_done(self, due: Sequence[OutboxRow]) -> None:
        keys = {_key(row): row for row in due}
        self._written = {key: row for key, row in self._written.items() if key in keys and keys[key] != row}

    def _handle(self, row: OutboxRow, reader: EventReader, now_ns: int) -> float:
        """Deliver one message, or take the step that must precede it.

        Return the seconds until it needs attention again.
        """
        if now_ns >= row.expires_utc_ns:
            logger.error("action %s: %s given up after %d attempts: %s", self.name, row.event_id, row.tries, row.cause)
            self.results["failed"] += 1
            self._write(replace(row, state="failed", cause=f"expired; {row.cause}" if row.cause else "expired"))
            return IDLE_S
        if row.phase in DIGESTS and not is_sealed(row.payload):
            self._submit(Job(partial(_seal, row=row)))
            return 0.02
        event = reader.event(row.event_id) if self._rules.picture else None
        if event is not None and row.phase in ("begin", "point") and not event.snapshot:
            waited_ns = now_ns - row.created_utc_ns
            if 0 <= waited_ns < PICTURE_WAIT_NS:
                return SOON_S
        self._deliver(row, self._notice(row, event))
        return IDLE_S

    def _deliver(self, row: OutboxRow, notice: Notice) -> None:
        began_ns = self._clock.monotonic_ns()
        try:
            try:
                self._action.send(notice)
            finally:
                self.durations.add((self._clock.monotonic_ns() - began_ns) / NS_PER_MS)
        except DeliveryRefusedError as error:
            self._failed(row, error)
        except DeliveryError as error:
            self._retried(row, error)
        except Exception as error:  # noqa: BLE001  # of an action: the other messages must go on
            self._retried(row, error)
        else:
            self.results["sent"] += 1
            self._error = ""
            self._write(replace(row, state="sent", cause=""))

    def _failed(self, row: OutboxRow, error: Exception) -> None:
        logger.error("action %s: %s is refused: %s", self.name, row.event_id, redact(str(error)))
        self.results["failed"] += 1
        self._write(replace(row, state="failed", cause=_cause(error), tries=row.tries + 1))

    def _retried(self, row: OutboxRow, error: Exception) -> None:
        self._tell(error)
        self.results["retried"] += 1
        after_s = RETRY_S[min(row.tries, len(RETRY_S) - 1)]
        due_ns = min(self._clock.utc_ns() + int(after_s * NS_PER_S), row.expires_utc_ns)
        self._write(replace(row, tries=row.tries + 1, due_utc_ns=due_ns, cause=_cause(error)))

    def _write(self, row: OutboxRow) -> None:
        self._written[_key(row)] = row
        self._submit(Job(partial(_put, row=row), is_durable=True))

    def _tell(self, error: Exception) -> None:
        if not self._error:
            logger.warning("action %s: %s; trying again", self.name, redact(str(error)))
        self._error = str(error) or type(error).__name__

    def _notice(self, row: OutboxRow, event: EventRow | None) -> Notice:
        body: dict[str, Any] = {k: v for k, v in json.loads(row.payload).items() if k != "sealed"}
        name = "" if event is None else ((row.phase == "end" and event.best) or event.snapshot)
        picture, path = self._picture(name)
        return Notice(f"{row.event_id}-{row.phase}", row.phase, body, picture, path)

    def _picture(self, name: str) -> tuple[bytes, str]:
        """Return an image from the event folder and its path; nothing if it is missing, too large or elsewhere."""
        if not name:
            return b"", ""
        path = (self._place.folder / name).resolve()
        try:
            if not path.is_relative_to(self._place.folder.resolve()) or path.stat().st_size > MAX_PICTURE_BYTES:
                return b"", ""
            return path.read_bytes(), str(path)
        except OSError:
            return b"", ""


class Outbox:
    """Runs a courier per action: a follower of the event log.

    Args:
        actions: by name.
        rules: of each action.
        clock: time.
    """

    def __init__(
        self, actions: Mapping[str, Action], rules: Mapping[str, ActionRules], clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._actions, self._rules, self._clock = dict(actions), dict(rules), clock
        self._couriers: dict[str, Courier] = {}
        self._threads: list[threading.Thread] = []
        self._wakes = {name: threading.Event() for name in actions}
        self._is_closing = threading.Event()

    def wake(self, action: str) -> None:
        """Make an action check for messages soon; callable from any thread."""
        self._wakes[action].set()

    def open(self, run: Run, log: EventLog) -> None:
        """Start to deliver."""
        self._is_closing.clear()
        self._couriers = {
            name: Courier(name, action, self._rules[name], log.place, run.engine_id, log.submit, self._clock)
            for name, action in self._actions.items()
        }
        self._threads = [
            threading.Thread(target=self._work, args=(courier,), name=f"action {courier.name}", daemon=True)
            for courier in self._couriers.values()
        ]
        for thread in self._threads:
            thread.start()

    def follow(self, packet: Packet, changed: Sequence[EventRow]) -> None:
        """Do nothing: the messages are already in the store."""

    def ended(self, source_id: str, changed: Sequence[EventRow]) -> None:
        """Do nothing: the messages are already in the store."""

    def close(self) -> None:
        """Deliver what is due within two seconds, and stop; the next run delivers the rest."""
        self._is_closing.set()
        for name in self._wakes:
            self.wake(name)
        deadline_ns = SYSTEM_CLOCK.monotonic_ns() + int((DRAIN_S + SOON_S) * NS_PER_S)
        for thread in self._threads:
            thread.join(max((deadline_ns - SYSTEM_CLOCK.monotonic_ns()) / NS_PER_S, 0.0))
        self._threads = []

    def summary(self) -> dict[str, dict[str, int]]:
        """Return the number of messages by outcome and action."""
        return {name: dict(courier.results) for name, courier in self._couriers.items()}

    def figures(self) -> dict[str, tuple[int, HistogramSnapshot]]:
        """Return, by action, the waiting messages and how long attempts took; callable from any thread."""
        return {name: (each.pending, each.durations.snapshot()) for name, each in list(self._couriers.items())}

    def _work(self, courier: Courier) -> None:
        wake = self._wakes[courier.name]
        stops_ns: int | None = None
        quiet = 0
        try:
            while True:
                wait_s = courier.step()
                if self._is_closing.is_set():
                    now_ns = SYSTEM_CLOCK.monotonic_ns()
                    stops_ns = stops_ns or now_ns + int(DRAIN_S * NS_PER_S)
                    quiet = quiet + 1 if wait_s > SOON_S else 0
                    if now_ns >= stops_ns or quiet >= 3:
                        break
                    wait_s = min(wait_s, SOON_S)
                    wake.clear()
                if self._clock.wait(wake, wait_s):
                    wake.clear()
                    self._clock.wait(wake, SOON_S / 5)  # until the row is committed
        except Exception:  # one action must not end detection
            logger.exception("action %s failed and stops delivering; its messages stay in the store", courier.name)
        finally:
            with suppress(Exception):
                courier.close()


def _key(row: OutboxRow) -> Key:
    return row.event_id, row.phase, row.action


def _cause(error: Exception) -> str:
    return redact(f"{error}" or type(error).__name__)[:MAX_CAUSE_CHARS]


def _seal(store: StoreWriter, row: OutboxRow) -> None:
    found = store.database.execute(_STATE, {"event_id": row.event_id, "phase": row.phase, "action": row.action})
    if found and found[0][0] == "due" and not is_sealed(found[0][1]):
        store.put(sealed(row, store))


def _put(store: StoreWriter, row: OutboxRow) -> None:
    store.put(row)
