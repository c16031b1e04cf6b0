"""Actions on both stores: delivered at least once under one key, limited in order, every event accounted for."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from engine.analytics.rules.schedule import Schedule
from engine.clock import NS_PER_S, FakeClock
from engine.events.actions import restraint
from engine.events.actions.base import ActionRules, DeliveryError, Notice
from engine.events.actions.kinds.webhook import WebhookAction
from engine.events.actions.outbox import RETRY_S, Courier
from engine.events.actions.restraint import Restraint
from engine.events.store.place import StorePlace
from engine.events.store.reader import EventReader
from engine.events.store.rows import EventRow, OutboxRow, SnoozeRow
from engine.events.store.writer import StoreWriter
from engine.events.writing import Job
from tests.events.conftest import MakePlace
from tests.events.hooks import Hook, hook

ENGINE = "engine"


def event(number: int, now_ns: int, **changes: Any) -> EventRow:
    given: dict[str, Any] = {"rule": "intruder", "source_id": "gate", "phase": "begin", **changes}
    return EventRow(
        event_id=f"{given['source_id']}-1-{given['rule']}-{number}",
        engine_id=ENGINE,
        run_epoch=1,
        severity="alert",
        place="yard",
        class_name="person",
        began_utc_ns=now_ns,
        ended_utc_ns=None,
        began_scene_ns=0,
        facts={"track_ids": [number], "why": ["in yard for 2.04 s >= for_s 2"]},
        **given,
    )


class Kept:
    """An action that keeps what it is given, and may fail."""

    def __init__(self, failures: int = 0) -> None:
        self.notices: list[Notice] = []
        self.failures = failures

    def send(self, notice: Notice) -> None:
        if self.failures:
            self.failures -= 1
            raise DeliveryError("away")
        self.notices.append(notice)

    def close(self) -> None:
        pass


class Engine:
    """What an engine does with events: store and plan in one transaction, deliver what is due; with a fake clock."""

    def __init__(self, place: StorePlace, rules: ActionRules, action: Any, clock: FakeClock) -> None:
        self.place, self.clock, self.action = place, clock, action
        self.database = place.open(ENGINE)
        self.writer = StoreWriter(self.database, ENGINE, 1)
        self.restraint = Restraint({"phone": rules}, {"intruder": ["phone"], "other": ["phone"]}, clock=clock)
        self.loses_results = False
        self.reader = EventReader(place)
        self.jobs = 0
        self.courier = Courier("phone", action, rules, place, ENGINE, self._submit, clock)

    def _submit(self, job: Job) -> None:
        self.jobs += 1
        if not self.loses_results:
            with self.writer.transaction():
                job.apply(self.writer)

    def tell(self, row: EventRow) -> list[OutboxRow]:
        with self.writer.transaction():
            self.writer.put(row)
            planned = self.restraint.plan(row, self.writer)
            self.writer.add_actions(planned)
        return planned

    def deliver(self) -> None:
        """Deliver until nothing is due now."""
        while True:
            done = self.writer._changed, self.jobs
            self.courier.step()
            if (self.writer._changed, self.jobs) == done:
                return

    def rows(self) -> list[OutboxRow]:
        return self.reader._rows(OutboxRow, "outbox", [], {}, "ORDER BY created_utc_ns, event_id, phase")

    def run_for(self, seconds: float, step_s: float = 0.5) -> None:
        for _ in range(round(seconds / step_s)):
            self.clock.advance(step_s)
            self.deliver()

    def kill(self) -> None:
        """End without any order."""
        self.reader.close()
        self.courier.close_reader()
        self.database.close()
        self.place.release()


@contextmanager
def engine(
    make_place: MakePlace, rules: ActionRules | None = None, action: Any = None, clock: FakeClock | None = None
) -> Iterator[Engine]:
    made = Engine(make_place(), rules or ActionRules(cooldown_s=0), action or Kept(), clock or FakeClock())
    try:
        yield made
    finally:
        made.kill()


def counts(rows: list[OutboxRow]) -> Counter[tuple[str, str]]:
    return Counter((row.state, row.cause) for row in rows)


def test_an_event_is_told_once_with_its_facts(make_place: MakePlace) -> None:
    with engine(make_place) as made:
        made.tell(event(1, made.clock.utc_ns()))
        made.deliver()
        made.deliver()
        [notice] = made.action.notices
        assert notice.key == "gate-1-intruder-1-begin"
        assert notice.text == "intruder: person in yard (gate), 22:13:20"
        assert notice.body["why"] == ["in yard for 2.04 s >= for_s 2"]
        assert (notice.body["count"], notice.body["severity"], notice.body["track_ids"]) == (1, "alert", [1])
        assert counts(made.rows()) == {("sent", ""): 1}


def test_retries_come_after_2_5_15_60_and_300_s_until_it_expires(make_place: MakePlace) -> None:
    with engine(make_place, ActionRules(cooldown_s=0, expire_s=1000), Kept(failures=100)) as made:
        began_ns = made.clock.utc_ns()
        made.tell(event(1, began_ns))
        tried = []
        for wait_s in (0, 1, 1, 4, 1, 14, 1, 59, 1, 299, 1, 299, 1, 299, 1, 17, 1):
            made.clock.advance(wait_s)
            left = made.action.failures
            made.deliver()
            if made.action.failures < left:
                tried.append((made.clock.utc_ns() - began_ns) / NS_PER_S)
        assert tried == [0, 2, 7, 22, 82, 382, 682, 982]
        [row] = made.rows()
        assert (row.state, row.tries, row.cause) == ("failed", 8, "expired; away")
        assert made.courier.results == {"retried": 8, "failed": 1}
        assert made.courier.durations.count == 8
        assert RETRY_S == (2, 5, 15, 60, 300)


@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_webhook_that_fails_and_a_kill_in_between(make_place: MakePlace, is_recorded: bool) -> None:
    """Every event arrives, with one key each, in at most two copies."""
    clock = FakeClock()
    with hook() as server:
        server.answers = [500, 503, 429]
        with engine(make_place, action=WebhookAction(server.url, clock=clock), clock=clock) as first:
            first.tell(event(1, clock.utc_ns()))
            first.deliver()
            first.run_for(30)
            assert server.keys() == ["gate-1-intruder-1-begin"]
            first.tell(event(2, clock.utc_ns()))
            first.loses_results = not is_recorded
            first.courier.step()  # delivered; without `is_recorded` the engine is killed before that is stored
        with engine(make_place, action=WebhookAction(server.url, clock=clock), clock=clock) as second:
            second.tell(event(3, clock.utc_ns()))
            second.run_for(5)
            assert counts(second.rows()) == {("sent", ""): 3}
    copies = Counter(server.keys())
    assert copies == {
        "gate-1-intruder-1-begin": 1,
        "gate-1-intruder-2-begin": 1 if is_recorded else 2,
        "gate-1-intruder-3-begin": 1,
    }
    assert len(server.requests) == len(server.accepted) + 3


def test_200_episodes_in_60_s_with_a_cooldown_of_30_s_make_three_requests(make_place: MakePlace) -> None:
    clock = FakeClock()
    with hook() as server:
        rules = ActionRules(cooldown_s=30)
        with engine(make_place, rules, WebhookAction(server.url, clock=clock), clock) as made:
            for number in range(200):
                made.tell(event(number, clock.utc_ns()))
                made.deliver()
                clock.advance(0.3)
            made.run_for(120, 5)
            rows = made.rows()
    told = [(body["phase"], body["count"]) for body in server.bodies()]
    assert told == [("begin", 1), ("digest", 99), ("digest", 100)]
    assert sum(count for _, count in told) == 200
    assert counts(rows) == {("sent", ""): 3, ("digested", "cooldown"): 199}
    assert server.bodies()[1]["text"] == "intruder (gate): 99 more events in 30 s"


def test_a_cooldown_is_per_rule_and_source(make_place: MakePlace) -> None:
    with engine(make_place, ActionRules(cooldown_s=30)) as made:
        now = made.clock.utc_ns()
        for number, change in enumerate([{}, {"rule": "other"}, {"source_id": "back"}, {}]):
            made.tell(event(number, now, **change))
        made.deliver()
        assert [n.body["rule"] + n.body["source_id"] for n in made.action.notices] == [
            "intruderback",
            "intrudergate",
            "othergate",
        ] or len(made.action.notices) == 3
        made.run_for(31)
        assert [n.body["count"] for n in made.action.notices] == [1, 1, 1, 1]
        assert made.action.notices[-1].phase == "digest"


def test_a_quiet_cooldown_ends_without_a_digest(make_place: MakePlace) -> None:
    with engine(make_place, ActionRules(cooldown_s=30)) as made:
        for number in range(3):
            made.tell(event(number, made.clock.utc_ns()))
            made.run_for(40)
        assert [n.phase for n in made.action.notices] == ["begin"] * 3


def test_the_order_is_schedule_snooze_cooldown_budget_and_every_one_is_a_row(make_place: MakePlace) -> None:
    vienna = ZoneInfo("Europe/Vienna")
    night = Schedule(start="18:00", end="23:30")  # the fake clock begins at 23:13 in Vienna
    rules = ActionRules(schedule=night, zone=vienna, cooldown_s=30, per_hour=3)
    with engine(make_place, rules) as made:

        def tell(number: int, **change: Any) -> tuple[str, str]:
            row = made.tell(event(number, made.clock.utc_ns(), **change))[0]
            return row.state, row.cause

        with made.writer.transaction():
            made.writer.snooze(SnoozeRow("gate", made.clock.utc_ns() + 60 * NS_PER_S))
        assert tell(1) == ("suppressed", "snooze")
        assert tell(2, source_id="back") == ("due", "")
        made.clock.advance(61)
        assert tell(3) == ("due", "")
        assert tell(4) == ("digested", "cooldown")
        assert tell(5) == ("digested", "cooldown")
        made.clock.advance(40)
        assert tell(6, source_id="third") == ("digested", "budget")
        assert tell(7, source_id="fourth") == ("digested", "budget")
        made.clock.advance(20 * 60)
        with made.writer.transaction():
            made.writer.snooze(SnoozeRow("", made.clock.utc_ns() + 600 * NS_PER_S))
        assert tell(8) == ("suppressed", "schedule")
        made.run_for(3600, 60)
        rows = made.rows()
    begins = [row for row in rows if row.phase == "begin"]
    assert len(begins) == 8
    told = [(n.phase, n.body["count"]) for n in made.action.notices]
    assert sorted(told) == [("begin", 1), ("begin", 1), ("budget", 2), ("digest", 2)]
    assert sum(count for _, count in told) + 2 == 8


def test_the_budget_recovers_after_an_hour(make_place: MakePlace) -> None:
    with engine(make_place, ActionRules(cooldown_s=0, per_hour=2)) as made:
        for number in range(10):
            made.tell(event(number, made.clock.utc_ns()))
            made.run_for(60, 30)
        made.run_for(3600, 60)
        assert [(n.phase, n.body["count"]) for n in made.action.notices] == [("begin", 1), ("begin", 1), ("budget", 8)]
        made.tell(event(10, made.clock.utc_ns()))
        made.deliver()
        assert made.action.notices[-1].phase == "begin"


def test_an_end_follows_a_begin_that_was_told_and_no_other(make_place: MakePlace) -> None:
    with engine(make_place, ActionRules(cooldown_s=30, end=True)) as made:
        now = made.clock.utc_ns()
        rows = [event(1, now), event(2, now)]
        for row in rows:
            made.tell(row)
        made.run_for(5)
        for row in rows:
            made.tell(dataclasses.replace(row, phase="end", ended_utc_ns=now + 5 * NS_PER_S, duration_s=5.0))
        made.deliver()
        assert [(n.key, n.phase) for n in made.action.notices] == [
            ("gate-1-intruder-1-begin", "begin"),
            ("gate-1-intruder-1-end", "end"),
        ]
        assert made.action.notices[1].text.endswith("over after 5 s")
        assert counts(made.rows())["suppressed", "cooldown"] == 1


def test_planning_again_changes_nothing(make_place: MakePlace) -> None:
    with engine(make_place, ActionRules(cooldown_s=30)) as made:
        now = made.clock.utc_ns()
        made.tell(event(1, now))
        before = made.rows()
        assert made.tell(event(1, now)) == []
        assert made.rows() == before


def test_a_restart_keeps_cooldowns_and_digests(make_place: MakePlace) -> None:
    clock = FakeClock()
    with engine(make_place, ActionRules(cooldown_s=30), clock=clock) as first:
        first.tell(event(1, clock.utc_ns()))
        first.tell(event(2, clock.utc_ns()))
        first.deliver()
    clock.advance(10)
    with engine(make_place, ActionRules(cooldown_s=30), clock=clock) as second:
        second.tell(event(3, clock.utc_ns()))
        second.run_for(40)
        assert [(n.phase, n.body["count"]) for n in second.action.notices] == [("digest", 2)]


def test_a_clock_that_is_set_back_loses_no_count(make_place: MakePlace) -> None:
    with engine(make_place, ActionRules(cooldown_s=30)) as made:
        for number in range(3):
            made.tell(event(number, made.clock.utc_ns()))
        made.run_for(31)
        made.clock._utc_ns -= 3600 * NS_PER_S
        for number in range(3, 6):
            made.tell(event(number, made.clock.utc_ns()))
        made.run_for(4000, 10)
        assert sum(n.body["count"] for n in made.action.notices) == 6


def test_the_signature_is_checked_as_the_documentation_says(make_place: MakePlace) -> None:
    clock = FakeClock()
    with hook() as server:
        action = WebhookAction(server.url, hmac_key="correct horse", headers={"X-Site": "gate"}, clock=clock)
        with engine(make_place, action=action, clock=clock) as made:
            made.tell(event(1, clock.utc_ns()))
            made.deliver()
    [(headers, body)] = server.accepted
    given = dict(part.split("=", 1) for part in headers["X-Framewire-Signature"].split(","))
    assert int(given["t"]) == clock.utc_ns() // NS_PER_S
    expected = hmac.new(b"correct horse", f"{given['t']}.".encode() + body, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(given["v1"], expected)
    assert headers["X-Site"] == "gate"


def test_the_picture_is_sent_in_a_form_and_waited_for(make_place: MakePlace, tmp_path: Path) -> None:
    clock = FakeClock()
    (tmp_path / "events" / "snapshots").mkdir(parents=True)
    (tmp_path / "events" / "snapshots" / "a.jpg").write_bytes(b"\xff\xd8 image \xff\xd9")
    with hook() as server:
        rules = ActionRules(cooldown_s=0, picture=True)
        with engine(make_place, rules, WebhookAction(server.url, clock=clock), clock) as made:
            row = event(1, clock.utc_ns())
            made.tell(row)
            made.deliver()
            assert server.requests == []
            with made.writer.transaction():
                made.writer.set_media_of_event(row.event_id, snapshot="snapshots/a.jpg")
            made.deliver()
            made.tell(event(2, clock.utc_ns()))
            made.run_for(1, 0.1)  # no image comes
            for number, path in ((3, "../../secret"), (4, "snapshots/missing.jpg")):
                made.tell(event(number, clock.utc_ns()))
                with made.writer.transaction():
                    made.writer.set_media_of_event(f"gate-1-intruder-{number}", snapshot=path)
                made.deliver()
    kinds = [headers["Content-Type"].split(";")[0] for headers, _ in server.accepted]
    assert kinds == ["multipart/form-data", "application/json", "application/json", "application/json"]
    body = server.accepted[0][1]
    assert b"\xff\xd8 image \xff\xd9" in body
    assert json.loads(body.split(b"\r\n\r\n")[1].split(b"\r\n")[0])["event_id"] == "gate-1-intruder-1"


@pytest.mark.parametrize("status", [400, 403, 404, 307])
def test_what_a_receiver_refuses_is_given_up_at_once(make_place: MakePlace, status: int) -> None:
    """A redirect to another host of a private network counts as refused."""
    clock = FakeClock()
    with hook() as server:
        server.answers = [status]
        with engine(make_place, action=WebhookAction(server.url, clock=clock), clock=clock) as made:
            made.tell(event(1, clock.utc_ns()))
            made.run_for(10)
            [row] = made.rows()
    assert row.state == "failed"
    assert len(server.requests) == 1
    assert isinstance(server, Hook)


def test_planning_costs_the_same_however_many_events_were_held_back(place: StorePlace) -> None:
    database = place.open(ENGINE)
    try:
        if not place.is_server:  # PostgreSQL chooses by the size of a table
            given = {"action": "a", "engine_id": "e", "rule": "r", "source_id": "s", "low": 0}
            for statement in (restraint._LAST, restraint._SPENT):
                steps = [str(row[3]) for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", given)]
                assert any("outbox_planned" in step for step in steps)
                assert not any(step.startswith("SCAN") for step in steps)
    finally:
        database.close()
        place.release()


def test_what_is_held_back_is_counted_by_cause(make_place: MakePlace) -> None:
    with engine(make_place, ActionRules(cooldown_s=30)) as made:
        for number in range(5):
            made.tell(event(number, made.clock.utc_ns()))
        assert made.restraint.held_back() == {"phone": {"cooldown": 4}}
