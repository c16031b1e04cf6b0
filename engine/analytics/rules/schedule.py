"""When a rule may begin an episode: days and times of day in the site's time zone."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from engine.errors import ConfigError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")
_DAY_MINUTES = 24 * 60


def time_zone(name: str) -> ZoneInfo:
    """Return the time zone with a name such as Europe/Vienna.

    Raises:
        ConfigError: the name is unknown, or this machine has no time zone data.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(
            f"time zone {name!r} is not known: expected a name such as Europe/Vienna or UTC "
            "(where all are unknown, install tzdata)"
        ) from error


def minute_of_day(where: str, text: str) -> int:
    """Return the minutes since midnight of HH:MM.

    Raises:
        ConfigError: the text has another format.

    >>> minute_of_day("from", "18:30")
    1110
    """
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise ConfigError(f"{where} is {text!r}: expected a time of day as HH:MM, in quotes")
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Days of the week and times of day; a span across midnight belongs to the day on which it begins.

    Attributes:
        days: of `mon` to `sun`; all by default.
        start: time of day as HH:MM.
        end: time of day as HH:MM; if not after `start`, it means the next day.

    Raises:
        ConfigError: an unknown day or time.
    """

    days: Sequence[str] = DAYS
    start: str = "00:00"
    end: str = "24:00"

    def __post_init__(self) -> None:
        unknown = [day for day in self.days if day not in DAYS]
        if unknown or not self.days:
            named = repr(unknown[0]) if unknown else "empty"
            raise ConfigError(f"schedule: days: {named}; expected some of: {', '.join(DAYS)}")
        object.__setattr__(self, "days", tuple(self.days))
        if minute_of_day("schedule: from", self.start) == _DAY_MINUTES:
            raise ConfigError("schedule: from is 24:00: expected a time before it")
        minute_of_day("schedule: to", self.end)

    def allows(self, utc_ns: int, zone: ZoneInfo) -> bool:
        """Return whether an episode may begin at this time."""
        now = datetime.datetime.fromtimestamp(utc_ns / 1e9, zone)
        minute, today = now.hour * 60 + now.minute, DAYS[now.weekday()]
        start, end = minute_of_day("from", self.start), minute_of_day("to", self.end)
        if start < end:
            return today in self.days and start <= minute < end
        yesterday = DAYS[now.weekday() - 1]
        return (today in self.days and minute >= start) or (yesterday in self.days and minute < end)

    def __str__(self) -> str:
        return f"{','.join(self.days)} {self.start}-{self.end}"
