"""Rules about lines: a single crossing, or crossings of several lines in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from typing import ClassVar
from zoneinfo import ZoneInfo

from engine.analytics.findings import Finding
from engine.analytics.places import Line, Zone, check_seconds, checked_classes
from engine.analytics.rules.base import Classes, Rule
from engine.analytics.view import View
from engine.errors import ConfigError


def _of_class(finding: Finding, wanted: frozenset[str | int] | None) -> bool:
    return wanted is None or finding.class_name in wanted or finding.class_id in wanted


def _check_direction(where: str, line: Line, direction: str | None) -> None:
    if direction is not None and direction not in line.directions:
        raise ConfigError(f"{where}: unknown direction {direction!r}; expected one of: {', '.join(line.directions)}")


@dataclass
class Crossed(Rule):
    """An object has crossed a line: a point, not an episode.

    Attributes:
        line: name of the line.
        direction: name of one of the line's directions; None: both.
        classes: names or ids of the classes that count; None: all that count on the line.
    """

    kind: ClassVar[str] = "line"

    line: str = field(kw_only=True)
    direction: str | None = None
    classes: Classes = None
    _wanted: frozenset[str | int] | None = field(default=None, init=False, repr=False, compare=False)

    def _check(self) -> None:
        self._wanted = checked_classes(self.where, self.classes)

    @property
    def line_names(self) -> tuple[str, ...]:
        """The lines that the rule uses."""
        return (self.line,)

    def bind(self, zones: Mapping[str, Zone], lines: Mapping[str, Line], zone_info: ZoneInfo) -> None:
        """Check the line and its direction."""
        super().bind(zones, lines, zone_info)
        _check_direction(self.where, lines[self.line], self.direction)

    def update(self, view: View) -> Iterator[Finding]:
        """Yield the crossings of this frame."""
        for found in view.findings:
            if found.event != "line_crossed" or found.place != self.line or not _of_class(found, self._wanted):
                continue
            if self.direction in (None, found.direction):
                yield from self._point(view, found, why=(f"crossed {self.line} {found.direction}",))


@dataclass
class Sequence(Rule):
    """The same identity has crossed several lines in order within `within_s`: a point, not an episode.

    Attributes:
        lines: names of two or more lines; `name:direction` for one direction only.
        within_s: longest time from the first to the last crossing.
        classes: names or ids of the classes that count; None: all.
    """

    kind: ClassVar[str] = "sequence"

    lines: Many[str] = field(kw_only=True)
    within_s: float = 60.0
    classes: Classes = None
    _wanted: frozenset[str | int] | None = field(default=None, init=False, repr=False, compare=False)
    _steps: dict[int, list[int]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def _check(self) -> None:
        self._wanted = checked_classes(self.where, self.classes)
        check_seconds(self.where, within_s=self.within_s)
        if isinstance(self.lines, str) or len(self.lines) < 2:
            raise ConfigError(f"{self.where}: lines is {self.lines!r}: expected two or more names of lines in order")

    @property
    def line_names(self) -> tuple[str, ...]:
        """The lines that the rule uses."""
        return tuple(name.partition(":")[0] for name in self.lines)

    def bind(self, zones: Mapping[str, Zone], lines: Mapping[str, Line], zone_info: ZoneInfo) -> None:
        """Check the lines and their directions."""
        super().bind(zones, lines, zone_info)
        for step in self.lines:
            name, _, direction = step.partition(":")
            _check_direction(self.where, lines[name], direction or None)

    def update(self, view: View) -> Iterator[Finding]:
        """Yield a finding when an identity completes the last step."""
        for found in sorted(view.findings, key=lambda f: f.began_ns or 0):
            if found.event == "line_crossed" and found.identity is not None and _of_class(found, self._wanted):
                yield from self._step(view, found, found.identity)
        if self._steps:
            alive = set(view.objects.identity.tolist())
            self._steps = {identity: times for identity, times in self._steps.items() if identity in alive}

    def _step(self, view: View, found: Finding, identity: int) -> Iterator[Finding]:
        now_ns, times = found.began_ns or 0, self._steps.get(identity, [])
        if times and now_ns - times[0] > self.within_s * 1e9:
            times = []
        if self._is(found, len(times)):
            times = [*times, now_ns]
        elif self._is(found, 0):
            times = [now_ns]
        self._steps[identity] = times
        if len(times) == len(self.lines):
            del self._steps[identity]
            took = (times[-1] - times[0]) / 1e9
            why = (f"crossed {', then '.join(self.lines)} in {took:.2f} s <= within_s {self.within_s:g}",)
            yield from self._point(view, found, began_ns=times[0], ended_ns=times[-1], why=why)

    def _is(self, found: Finding, step: int) -> bool:
        name, _, direction = self.lines[step].partition(":")
        return found.place == name and direction in ("", found.direction)
