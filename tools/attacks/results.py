"""Results of an attack, and the table of them."""

from __future__ import annotations

import dataclasses

FREEZE_S = 1.0
LEAK_MB = 50
LIVE_LEAK_MB = 10
HEAD = (
    "| surface | tries | ends | freezes > 1 s | leaks | stalls | longest | notes |\n|---|---|---|---|---|---|---|---|"
)
COUNTS = ("tries", "ends", "freezes", "leaks", "stalls")


@dataclasses.dataclass
class Result:
    """The result of the attack on one surface.

    Attributes:
        surface: its name.
        tries: damaged messages, files or requests that it took.
        ends: processes that died, and errors that nothing documents.
        freezes: waits of more than a second.
        leaks: kinds of resources that were not released.
        stalls: times that the attack itself no longer progressed, so that the other counts say little.
        longest_s: longest try, or longest wait for the healthy camera.
        notes: figures for people.
    """

    surface: str
    tries: int = 0
    ends: int = 0
    freezes: int = 0
    leaks: int = 0
    stalls: int = 0
    longest_s: float = 0.0
    notes: str = ""

    @property
    def is_good(self) -> bool:
        """Whether something was tried, and nothing ended, froze, leaked or stalled."""
        return self.tries > 0 and not (self.ends or self.freezes or self.leaks or self.stalls)

    def add(self, part: Result) -> None:
        """Add the counts of another worker on the same surface."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(part, name))
        self.longest_s = max(self.longest_s, part.longest_s)
        if self.notes == "" or not part.is_good:  # the notes of a fault stay
            self.notes = part.notes

    def row(self) -> str:
        """Return the line of the table."""
        counts = f"{self.tries:,} | {self.ends} | {self.freezes} | {self.leaks} | {self.stalls}"
        return f"| {self.surface} | {counts} | {self.longest_s:.2f} s | {' '.join(self.notes.split())} |"
