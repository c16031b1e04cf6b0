from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import pytest

from engine.analytics.rules.schedule import Schedule, minute_of_day, time_zone
from engine.errors import ConfigError

VIENNA = ZoneInfo("Europe/Vienna")


def _utc_ns(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=VIENNA).timestamp()) * 1_000_000_000


@pytest.mark.parametrize(
    ("schedule", "local", "allowed"),
    [
        pytest.param(Schedule(), "2026-01-05T12:00", True, id="always"),
        pytest.param(Schedule(start="08:00", end="17:00"), "2026-01-05T07:59", False, id="before"),
        pytest.param(Schedule(start="08:00", end="17:00"), "2026-01-05T08:00", True, id="begin"),
        pytest.param(Schedule(start="08:00", end="17:00"), "2026-01-05T17:00", False, id="end"),
        pytest.param(Schedule(("mon",), "18:00", "07:00"), "2026-01-05T23:00", True, id="monday night"),
        pytest.param(Schedule(("mon",), "18:00", "07:00"), "2026-01-06T06:59", True, id="its morning"),
        pytest.param(Schedule(("mon",), "18:00", "07:00"), "2026-01-05T06:00", False, id="sunday's morning"),
        pytest.param(Schedule(("mon",), "18:00", "07:00"), "2026-01-06T19:00", False, id="tuesday night"),
        pytest.param(Schedule(("sun",), "18:00", "07:00"), "2026-01-05T03:00", True, id="over the end of the week"),
        pytest.param(Schedule(start="03:30", end="04:00"), "2026-03-29T03:30", True, id="after summer time begins"),
        pytest.param(Schedule(start="09:00", end="09:00"), "2026-01-05T08:00", True, id="a whole day from nine"),
    ],
)
def test_times_of_the_site(schedule: Schedule, local: str, allowed: bool) -> None:
    assert schedule.allows(_utc_ns(local), VIENNA) is allowed


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Schedule(("monday",)), id="unknown day"),
        pytest.param(lambda: Schedule(()), id="no day"),
        pytest.param(lambda: Schedule(start="25:00"), id="no such hour"),
        pytest.param(lambda: Schedule(start="24:00"), id="begins at the end"),
        pytest.param(lambda: Schedule(end="7:00"), id="one digit"),
        pytest.param(lambda: minute_of_day("x", 1080), id="a number, as YAML reads 18:00"),  # type: ignore[arg-type]
        pytest.param(lambda: time_zone("Europe/Nowhere"), id="unknown time zone"),
        pytest.param(lambda: time_zone("../etc/passwd"), id="a path"),
    ],
)
def test_what_is_no_time_is_refused(make: object) -> None:
    with pytest.raises(ConfigError, match="expected"):
        make()  # type: ignore[operator]
