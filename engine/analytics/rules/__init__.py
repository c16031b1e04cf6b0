"""Rules decide what raises an event. Built-in and custom rules alike have `update(view) -> Iterator[Finding]`."""

from engine.analytics.rules.base import Rule, UserRule
from engine.analytics.rules.lines import Crossed, Sequence
from engine.analytics.rules.motion import Direction, Speed, Stopped
from engine.analytics.rules.pairs import Close
from engine.analytics.rules.source import Blind
from engine.analytics.rules.things import LeftBehind, Removed
from engine.analytics.rules.zones import Count, Loiter, Presence

KINDS: dict[str, type[Rule]] = {
    rule.kind: rule
    for rule in (
        Presence,
        Loiter,
        Crossed,
        Count,
        Direction,
        Speed,
        Stopped,
        Sequence,
        Close,
        Blind,
        LeftBehind,
        Removed,
    )
}
"""Rule class by `kind`, as named in a configuration."""

__all__ = [
    "KINDS",
    "Blind",
    "Close",
    "Count",
    "Crossed",
    "Direction",
    "LeftBehind",
    "Loiter",
    "Presence",
    "Removed",
    "Rule",
    "Sequence",
    "Speed",
    "Stopped",
    "UserRule",
]
