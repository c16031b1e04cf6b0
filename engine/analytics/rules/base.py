"""The common part of all rules: names, schedules, and episodes that begin once and end once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, Protocol, cast, runtime_checkable
from zoneinfo import ZoneInfo

from engine.analytics.findings import EVENT_OF_PHASE, Finding, Phase, Severity, check_severity
from engine.analytics.places import Line, Place, Zone, check_name
from engine.analytics.rules.schedule import Schedule, time_zone
from engine.analytics.view import View
from engine.errors import ConfigError

UPDATE_NS = 1_000_000_000
"""Minimum time between two updates of one episode."""
Classes = Collection[str | int] | None
Facts = Mapping[str, Any]


@runtime_checkable
class UserRule(Protocol):
    """A custom rule: any object with this method.

    It is copied (`copy.deepcopy`) for each source before its first use, and may keep any state between calls.
    Called on the tracking thread, once per frame and about once a second while no frames arrive.
    """

    def update(self, view: View) -> Iterator[Finding]:
        """Yield the findings of this frame; `view.findings` holds those about places."""


@dataclass
class Rule(ABC):
    """Base of the built-in rules: one episode per identity or per source, with a beginning and an end.

    Attributes:
        name: unique among the rules of a source.
        severity: of its findings.
        schedule: when an episode may begin; None: always. An open episode is not cut short.
    """

    kind: ClassVar[str] = ""

    name: str
    _: KW_ONLY
    severity: Severity = "info"
    schedule: Schedule | None = None
    _open: dict[Hashable, Finding] = field(default_factory=dict, init=False, repr=False, compare=False)
    _told_ns: dict[Hashable, int] = field(default_factory=dict, init=False, repr=False, compare=False)
    _number: int = field(default=0, init=False, repr=False, compare=False)
    _zone_info: ZoneInfo = field(default_factory=lambda: time_zone("UTC"), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_name("rule", self.name)
        check_severity(self.where, self.severity)
        self._check()

    def _check(self) -> None:  # noqa: B027 - not every rule has parameters of its own
        """Raise `ConfigError` if a parameter is invalid."""

    @property
    def where(self) -> str:
        """How messages refer to this rule."""
        return f"rule {self.name}"

    def bind(self, zones: Mapping[str, Zone], lines: Mapping[str, Line], zone_info: ZoneInfo) -> None:
        """Check that the places exist, and store the site's time zone.

        Raises:
            ConfigError: a zone or line does not exist.
        """
        self._zone_info = zone_info
        for what, wanted, known in (("zone", self.zone_names, zones), ("line", self.line_names, lines)):
            missing = [name for name in wanted if name not in known]
            if missing:
                expected = f"expected one of: {', '.join(known)}" if known else f"there are no {what}s here"
                raise ConfigError(f"{self.where}: unknown {what} {missing[0]!r}; {expected}")

    @property
    def zone_names(self) -> tuple[str, ...]:
        """Zones that the rule uses."""
        return ()

    @property
    def line_names(self) -> tuple[str, ...]:
        """Lines that the rule uses."""
        return ()

    @abstractmethod
    def update(self, view: View) -> Iterator[Finding]:
        """Yield the findings of this frame: `begin`, `update`, `end` and `point`."""

    @property
    def open(self) -> tuple[Finding, ...]:
        """The `begin` findings of all open episodes."""
        return tuple(self._open.values())

    def finish(self, captured_ns: int, reason: str) -> Iterator[Finding]:
        """End all open episodes."""
        for key in list(self._open):
            yield self._closed(key, captured_ns, captured_ns, reason)

    @property
    def number(self) -> int:
        """Number of the last episode."""
        return self._number

    def continue_after(self, number: int) -> None:
        """Number the next episode after this one, so that no `event_id` repeats within a run."""
        self._number = max(self._number, number)

    def end_objects(self, ends: Sequence[Finding], captured_ns: int, reason: str) -> Iterator[Finding]:
        """End the open episodes about objects, because all objects have ended; those about the source continue.

        Args:
            ends: of the last visits; an episode in a zone ends with the visit.
            captured_ns: the last frame, which ends all others.
            reason: why.
        """
        left = {(end.identity, end.place): end for end in ends if end.event == "zone_left"}
        for key in [key for key in self._open if key != self.name]:
            visit = left.get((cast("int", key), self._open[key].place))
            ended_ns = captured_ns if visit is None or visit.ended_ns is None else visit.ended_ns
            yield self._closed(key, captured_ns, ended_ns, reason)

    def _may_begin(self, view: View) -> bool:
        if self.schedule is None:
            return True
        if view.utc_ns is None:
            raise ConfigError(f"{self.where} has a schedule: give update() the wall clock of the frame, utc_ns")
        return self.schedule.allows(view.utc_ns, self._zone_info)

    def _begin(self, view: View, key: Hashable, made: Finding) -> Iterator[Finding]:
        """Yield the `begin` of an episode if the schedule allows it."""
        if not self._may_begin(view):
            return
        self._number += 1
        why = made.why if self.schedule is None else (*made.why, f"schedule {self.schedule}")
        began = self._stamped(made, "begin", self._number, why=why)
        self._open[key] = began
        self._told_ns[key] = view.captured_ns
        yield began

    def _point(self, view: View, made: Finding, **changes: Any) -> Iterator[Finding]:
        """Yield a finding without duration, with these attributes changed, if the schedule allows it."""
        if self._may_begin(view):
            self._number += 1
            yield self._stamped(made, "point", self._number, **changes)

    def _update(self, view: View, key: Hashable, data: Facts) -> Iterator[Finding]:
        """Yield new facts of an open episode, at most once a second."""
        began = self._open[key]
        if view.captured_ns - self._told_ns[key] < UPDATE_NS:
            return
        self._told_ns[key] = view.captured_ns
        facts = {**began.data, **data}
        yield replace(began, event="rule_updated", phase="update", captured_ns=view.captured_ns, data=facts)

    def _end(self, view: View, key: Hashable, ended_ns: int, reason: str = "") -> Iterator[Finding]:
        """Yield the end of an episode if it is open."""
        if key in self._open:
            yield self._closed(key, view.captured_ns, ended_ns, reason)

    def _closed(self, key: Hashable, captured_ns: int, ended_ns: int, reason: str) -> Finding:
        began = self._open.pop(key)
        self._told_ns.pop(key, None)
        ended_ns = max(ended_ns, began.began_ns or ended_ns)
        return replace(
            began, event="rule_ended", phase="end", captured_ns=captured_ns, ended_ns=ended_ns, reason=reason
        )

    def _stamped(self, made: Finding, phase: Phase, number: int, **changes: Any) -> Finding:
        """Return a finding as the given phase of an episode of this rule, with these attributes changed."""
        changes |= {"event": EVENT_OF_PHASE[phase], "phase": phase, "number": number}
        return replace(made, rule=self.name, kind=self.kind, severity=self.severity, **changes)


def about(
    view: View, at: int, *, place: str = "", began_ns: int, why: tuple[str, ...] = (), data: Facts | None = None
) -> Finding:
    """Return a finding about one object (an index into `view.objects`) for a rule to complete."""
    one = view.objects.one(at)
    return Finding(
        event="",
        captured_ns=view.captured_ns,
        place=place,
        began_ns=began_ns,
        identity=one.identity,
        track_ids=(one.track_id,),
        class_id=one.class_id,
        class_name=view.class_name(one.class_id),
        score=one.score,
        xyxy=box_of(view, at),
        why=why,
        data=data or {},
    )


def box_of(view: View, at: int) -> tuple[float, float, float, float]:
    """Return the box of an object as plain numbers."""
    x1, y1, x2, y2 = view.objects.one(at).xyxy
    return round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)


class Timers:
    """Tracks when a condition began to hold, by key."""

    def __init__(self) -> None:
        self._since_ns: dict[Hashable, int] = {}

    def since(self, key: Hashable, now_ns: int, *, holds: bool) -> int | None:
        """Return when the condition began to hold without a break; None if it does not hold now."""
        if not holds:
            self._since_ns.pop(key, None)
            return None
        return self._since_ns.setdefault(key, now_ns)

    def __iter__(self) -> Iterator[Hashable]:
        """Iterate over the keys for which the condition holds."""
        return iter(self._since_ns)

    def keep(self, keys: Container[Hashable]) -> None:
        """Forget all other keys."""
        for key in [key for key in self._since_ns if key not in keys]:
            del self._since_ns[key]


def at_least(where: str, low: float, **values: float | None) -> None:
    """Raise `ConfigError` unless each value is None or a number from `low` to 1e6."""
    for name, value in values.items():
        if value is not None and not (isinstance(value, int | float) and low <= value <= 1e6):
            raise ConfigError(f"{where}: {name} is {value!r}: expected a number from {low:g} to 1e6")


def rule_name(rule: Rule | UserRule) -> str:
    """Return the name of a rule; a custom rule without a name takes that of its class."""
    return str(getattr(rule, "name", type(rule).__name__))


def is_about(rule: Rule, places: Sequence[Place]) -> bool:
    """Return whether the rule uses one of these places."""
    names = {place.name for place in places}
    return bool(names & {*rule.zone_names, *rule.line_names})


def severities(rules: Iterable[Rule | UserRule]) -> dict[str, Severity]:
    """Return the severity of each rule by name; a custom rule without one counts as `info`."""
    return {rule_name(rule): getattr(rule, "severity", "info") for rule in rules}
