"""Durations as people write them."""

from __future__ import annotations

import math
import re

from engine.errors import ConfigError

UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhd]?)")


def seconds_of(text: str, *, most_s: float = math.inf) -> float:
    """Return the seconds of a duration such as `90`, `30m` or `2h`.

    Raises:
        ConfigError: it is none, or longer than `most_s`.

    >>> seconds_of("2h"), seconds_of("1.5m")
    (7200.0, 90.0)
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text[:40]!r} is not a duration: expected a number of seconds, or one with s, m, h or d")
    seconds = float(match[1]) * UNITS_S[match[2]]
    if seconds > most_s:
        raise ConfigError(f"{text} is too long: expected at most {most_s:g} s")
    return seconds
