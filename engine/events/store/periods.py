"""Counts and occupancy by minute, hour or day; days are those of the site, even when they have 23 or 25 hours."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np

from engine.clock import NS_PER_S
from engine.errors import ConfigError
from engine.events.store.reader import EventReader
from engine.events.store.rows import GapRow

Bucket = Literal["1m", "1h", "1d"]
MAX_PERIODS = 20_000
_HOUR_S = 3600
_MINUTE_NS = 60 * NS_PER_S


@dataclass(slots=True)
class Period:
    """The counts of one place of one source in one period.

    Attributes:
        begin_utc_ns: first instant.
        end_utc_ns: first instant of the next period.
        counts: by direction, or `visit`, and class.
        blind_s: seconds in which the source was not seen.
        seen_s: observed seconds of a zone's occupancy.
        mean: mean number of objects in the zone while it was observed.
        most: largest number at once.
        busy_s: seconds with at least one object.
    """

    begin_utc_ns: int
    end_utc_ns: int
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    blind_s: float = 0.0
    seen_s: float = 0.0
    mean: float = 0.0
    most: int = 0
    busy_s: float = 0.0


def edges(bucket: Bucket, zone: ZoneInfo, from_utc_ns: int, to_utc_ns: int) -> list[int]:
    """Return the UTC ns at which the periods begin, and the end of the last one.

    >>> day = edges("1d", ZoneInfo("Europe/Vienna"), 1774652400 * 10**9, 1774738801 * 10**9)
    >>> [(after - before) // 3_600_000_000_000 for before, after in zip(day, day[1:])]
    [24, 23]

    Raises:
        ConfigError: there would be too many periods, or the bucket is unknown.
    """
    if bucket not in _NEXT:
        raise ConfigError(f"bucket is {bucket!r}; expected one of: {', '.join(_NEXT)}")
    first, step = _NEXT[bucket]
    at, end = first(from_utc_ns // NS_PER_S, zone), -(-to_utc_ns // NS_PER_S)
    found = [at]
    while at < end:
        if len(found) > MAX_PERIODS:
            raise ConfigError(f"more than {MAX_PERIODS} periods of {bucket}: choose a larger bucket or a shorter span")
        at = step(at, zone)
        found.append(at)
    return [at * NS_PER_S for at in found]


def _offset_s(at: int, zone: ZoneInfo) -> int:
    offset = datetime.datetime.fromtimestamp(at, zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


def _minute(at: int, zone: ZoneInfo) -> int:
    return at - at % 60


def _hour(at: int, zone: ZoneInfo) -> int:
    return at - (at + _offset_s(at, zone)) % _HOUR_S


def _day(at: int, zone: ZoneInfo) -> int:
    day = datetime.datetime.fromtimestamp(at, zone).date()
    return _midnight(day, zone)


def _midnight(day: datetime.date, zone: ZoneInfo) -> int:
    return int(datetime.datetime.combine(day, datetime.time(), zone).timestamp())


def _next_minute(at: int, zone: ZoneInfo) -> int:
    return at + 60


def _next_hour(at: int, zone: ZoneInfo) -> int:
    after = _hour(at + _HOUR_S, zone)  # where clocks change by half an hour, an hour may be shorter or longer
    return after if after > at else at + _HOUR_S


def _next_day(at: int, zone: ZoneInfo) -> int:
    return _midnight(datetime.datetime.fromtimestamp(at, zone).date() + datetime.timedelta(days=1), zone)


_NEXT = {"1m": (_minute, _next_minute), "1h": (_hour, _next_hour), "1d": (_day, _next_day)}


def periods(
    reader: EventReader,
    source_id: str,
    place: str,
    bucket: Bucket,
    from_utc_ns: int,
    to_utc_ns: int,
    zone: ZoneInfo,
) -> list[Period]:
    """Return what a zone or line counted, period by period, without gaps.

    Raises:
        ConfigError: there would be too many periods.
    """
    bounds = edges(bucket, zone, from_utc_ns, to_utc_ns)
    found = [Period(begin, end) for begin, end in itertools.pairwise(bounds)]
    if not found:
        return []
    low, high = bounds[0], bounds[-1]
    for count in reader.counts(source_id, low, high, place):
        by_class = found[_at(bounds, count.minute)].counts.setdefault(count.name, {})
        by_class[count.class_name] = by_class.get(count.class_name, 0) + count.n
    for row in reader.occupancy(source_id, low, high, place):
        period = found[_at(bounds, row.minute)]
        period.mean += row.object_s  # divided below
        period.seen_s += row.seen_s
        period.busy_s += row.busy_s
        period.most = max(period.most, row.most)
    gaps = merged(reader.gaps(source_id, low, high), high)
    for period in found:
        period.mean = round(period.mean / period.seen_s, 4) if period.seen_s else 0.0
        period.blind_s = round(sum(_overlap(period, gap) for gap in gaps) / NS_PER_S, 3)
    return found


def _at(bounds: Sequence[int], minute: int) -> int:
    return int(np.searchsorted(bounds, minute * _MINUTE_NS, side="right")) - 1


def merged(gaps: Sequence[GapRow], until_utc_ns: int) -> list[tuple[int, int]]:
    """Return the spans of gaps without overlaps, in order; an open one extends to `until_utc_ns`."""
    found: list[tuple[int, int]] = []
    for gap in sorted(gaps, key=lambda gap: gap.from_utc_ns):
        end = until_utc_ns if gap.to_utc_ns is None else gap.to_utc_ns
        if found and gap.from_utc_ns <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((gap.from_utc_ns, end))
    return found


def _overlap(period: Period, gap: tuple[int, int]) -> int:
    return max(min(period.end_utc_ns, gap[1]) - max(period.begin_utc_ns, gap[0]), 0)
