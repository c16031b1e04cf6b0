"""Times as people write them: how long ago, a local date, or UTC."""

from __future__ import annotations

import datetime
import re
from zoneinfo import ZoneInfo

from engine.clock import NS_PER_S
from engine.errors import ConfigError

_SPAN = re.compile(r"([0-9]{1,9})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_EXPECTED = "expected a time as 2026-11-30, 2026-11-30T18:00, 2026-11-30T17:00Z, or how long ago: 90m, 24h, 7d"


def span_s(text: str, name: str = "span") -> int:
    """Return the seconds of a time span.

    >>> span_s("2h")
    7200

    Raises:
        ConfigError: it is not a time span.
    """
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{name} is {text!r}: expected a span of time as 90s, 30m, 2h, 7d")
    return int(match[1]) * _SECONDS[match[2]]


def utc_ns_of(text: str, zone: ZoneInfo, now_utc_ns: int, name: str = "time") -> int:
    """Return a time in UTC nanoseconds.

    Args:
        text: a span means that long ago; a date or time without a zone is local.
        zone: of the site.
        now_utc_ns: the current time.
        name: of the option, for the message.

    >>> utc_ns_of("1970-01-02", ZoneInfo("UTC"), 0) // 10**9
    86400

    Raises:
        ConfigError: it has another form.
    """
    text = text.strip()
    if _SPAN.fullmatch(text):
        return now_utc_ns - span_s(text) * NS_PER_S
    try:
        found = datetime.datetime.fromisoformat(text[:40].removesuffix("Z") + ("+00:00" if text.endswith("Z") else ""))
        found = found if found.tzinfo is not None else found.replace(tzinfo=zone)
        utc_ns = round(found.timestamp()) * NS_PER_S
        if not 0 <= utc_ns < 2**63:
            raise ValueError("out of range")
        return utc_ns
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{name} is {text!r}: {_EXPECTED}") from error


def local_text(utc_ns: int, zone: ZoneInfo) -> str:
    """Return a time in a site's local notation.

    >>> local_text(0, ZoneInfo("UTC"))
    '1970-01-01 00:00:00'
    """
    return datetime.datetime.fromtimestamp(utc_ns / NS_PER_S, zone).strftime("%Y-%m-%d %H:%M:%S")
