"""Times as text in the forms that other systems use."""

from __future__ import annotations

from datetime import datetime, timezone

from engine.clock import NS_PER_MS, NS_PER_S


def iso_utc(utc_ns: int) -> str:
    """Return a time in ISO 8601 with milliseconds, in UTC.

    >>> iso_utc(1_790_000_000_123_456_789)
    '2026-09-21T14:13:20.123Z'
    """
    seconds, rest_ns = divmod(utc_ns, NS_PER_S)
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%S}.{rest_ns // NS_PER_MS:03d}Z"
