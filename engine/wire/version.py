"""The version of the wire."""

from __future__ import annotations

MAJOR = 1
MINOR = 1
TOPIC_ROOT = f"v{MAJOR}"


def schema_of(kind: str) -> str:
    """Return the schema name that this version writes for `kind`.

    >>> schema_of("frame")
    'framewire.frame/1.1'
    """
    return f"framewire.{kind}/{MAJOR}.{MINOR}"
