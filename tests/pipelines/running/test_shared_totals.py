"""Totals across a move: the counts of other engines are added once, however often they are read."""

from __future__ import annotations

import threading
from zoneinfo import ZoneInfo

from engine.errors import ConfigError
from pipelines.running.shared_totals import Counts, SharedTotals, last_reset_ns

DOOR = ("door", "in", "person")
DAY_NS = 86_400 * 10**9


def test_only_what_is_new_is_added() -> None:
    written: Counts = {DOOR: 3}
    added: list[tuple[Counts, int | None]] = []
    totals = SharedTotals(lambda *span: dict(written), lambda name, n, since: added.append((n, since)), lambda now: 5)
    totals.take("gate")
    totals.take("gate")
    written[DOOR] = 5  # the former owner wrote its last counts
    written["all", "visit", "car"] = 1
    totals.take("gate")
    assert added == [({DOOR: 3}, 5), ({DOOR: 2, ("all", "visit", "car"): 1}, 5)]


def test_after_a_reset_counting_begins_at_zero() -> None:
    resets = iter([1, 2])
    added: list[Counts] = []
    totals = SharedTotals(lambda *span: {DOOR: 3}, lambda name, n, since: added.append(n), lambda now: next(resets))
    totals.take("gate")
    totals.take("gate")
    assert added == [{DOOR: 3}, {DOOR: 3}]


def test_reading_goes_on_in_the_background_when_the_store_is_away() -> None:
    done = threading.Event()
    calls: list[str] = []

    def read(name: str, from_ns: int, to_ns: int) -> Counts:
        calls.append(name)
        if len(calls) == 1:
            raise ConfigError("no server")
        return {DOOR: 1}

    totals = SharedTotals(read, lambda *args: done.set(), lambda now: 0, after_s=(0.0, 0.01))
    totals.begin("gate")
    assert done.wait(30)
    assert calls == ["gate", "gate"]


def test_the_last_reset_is_at_local_time_also_when_clocks_change() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert last_reset_ns(DAY_NS * 20_000, None, berlin) == 0
    summer = 1_774_746_000 * 10**9  # 29 March 2026, 03:00 in Berlin, an hour after clocks went forward
    assert (summer - last_reset_ns(summer, "00:00", berlin)) // (3600 * 10**9) == 2
    assert (summer - last_reset_ns(summer, "04:00", berlin)) // (3600 * 10**9) == 22
