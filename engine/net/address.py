"""Addresses with a user and a password."""

from __future__ import annotations

ENCODED = "with / ? # @ : of the password written as %2F %3F %23 %40 %3A"


def has_two_readings(address: str) -> bool:
    """Return whether a later `@` may end a password with unencoded `/`, `?` or `#`: then the host is ambiguous.

    A parser would take a part of the password for the host, look it up, and name the source after it.

    >>> has_two_readings("rtsp://me:p@ss/word@gate/1"), has_two_readings("rtsp://me:pass@gate/1")
    (True, False)
    """
    _, sign, rest = address.partition("://")
    end = min((place for place in map(rest.find, "/?#") if place >= 0), default=len(rest))
    userinfo, at, _ = rest[:end].partition("@")
    return bool(sign and at) and ":" in userinfo and rest.rfind("@") > end
