"""Analytics of one source's scene: zone visits, line crossings, dwell, speed and rules.

A pure object: no clock, no I/O, no frame. The same tracks and times give the same findings.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from engine.analytics.counters import Counters, DailyReset
from engine.analytics.findings import Finding, Severity
from engine.analytics.identity import Eligibility
from engine.analytics.places import Line, Place, Size, Zone, check_seconds, check_unique
from engine.analytics.rules import Rule, UserRule
from engine.analytics.rules.base import is_about, rule_name, severities
from engine.analytics.rules.numbers import Numbers
from engine.analytics.rules.schedule import minute_of_day, time_zone
from engine.analytics.scene import Scene, checked_scene
from engine.analytics.telling import Figures, Teller
from engine.analytics.view import Setup, View
from engine.data import Tracks
from engine.errors import ConfigError

AnyRule = Rule | UserRule
FORGET_S = 10.0
STATE_VERSION = 1


class Analytics:
    """Zones, lines and rules of one source, and the state of its objects.

    Call everything from one thread.

    Args:
        zones: areas.
        lines: lines.
        rules: built-in ones, or objects with `update(view) -> Iterator[Finding]`; copied, so sources share no state.
        class_names: name by class id; required if a place or rule names classes.
        eligibility: which objects may cause events.
        timezone: of the site, for schedules and `reset_at`.
        reset_at: time of day, HH:MM, at which all totals are reset to zero; None: never.
        heat: collect heat maps.
        forget_s: an object unseen for this long has ended, unless the tracker ended it earlier.

    Raises:
        ConfigError: two places or rules share a name, a rule names an unknown place, …
    """

    def __init__(
        self,
        zones: Sequence[Zone] = (),
        lines: Sequence[Line] = (),
        rules: Sequence[AnyRule] = (),
        *,
        class_names: Sequence[str] = (),
        eligibility: Eligibility | None = None,
        timezone: str = "UTC",
        reset_at: str | None = None,
        heat: bool = True,
        forget_s: float = FORGET_S,
    ) -> None:
        check_seconds("analytics", forget_s=forget_s)
        self._settings: dict[str, Any] = {
            "eligibility": eligibility or Eligibility(),
            "timezone": timezone,
            "reset_at": reset_at,
            "heat": heat,
            "forget_s": forget_s,
        }
        self._zone_info = time_zone(timezone)
        minute = None if reset_at is None else minute_of_day("analytics: reset_at", reset_at)
        self._reset = DailyReset(minute, self._zone_info)
        self._scene = Scene((), (), self._settings["eligibility"], heat=heat, forget_s=forget_s)
        self._counters = Counters()
        self._teller = Teller(self._scene, self._counters)
        self._setup: Setup | None = None
        self.class_names = tuple(class_names)
        self._zones: tuple[Zone, ...] = ()
        self._lines: tuple[Line, ...] = ()
        self._given: tuple[AnyRule, ...] = ()
        self._rules: tuple[AnyRule, ...] = ()
        self._figures = Figures(self._scene, self._counters, self._teller)
        self._open: tuple[Finding, ...] = ()
        self._severities: dict[str, Severity] = {}
        self._numbers = Numbers()
        self._now_ns: int | None = None
        self._has_ended = False
        self._blind_since_ns: int | None = None
        self._was_blind: tuple[int, int] | None = None
        self._restored: tuple[list[list[float]], Size | None] | None = None
        self._take_places(zones, lines, rules)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name by class id; assign another tuple when the model changes, after `reset`."""
        return self._teller.class_names

    @class_names.setter
    def class_names(self, names: Sequence[str]) -> None:
        """Set the name of each class id."""
        self._teller.class_names = tuple(names)
        self._setup = None

    @property
    def zones(self) -> tuple[Zone, ...]:
        """The zones."""
        return self._zones

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines."""
        return self._lines

    @property
    def rules(self) -> tuple[AnyRule, ...]:
        """The rules, as passed to the constructor."""
        return self._given

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to compute."""
        return not (self._zones or self._lines or self._rules)

    @property
    def counters(self) -> Counters:
        """The running totals; read them from the thread that updates."""
        return self._counters

    @property
    def mismatch(self) -> str:
        """How the frame's aspect ratio differs from that of the drawing of the places; empty if it does not."""
        return self._scene.mismatch()

    @property
    def open(self) -> tuple[Finding, ...]:
        """The `begin` findings of all open episodes."""
        return tuple(begin for rule in self._built_in for begin in rule.open)

    def heat(self) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
        """Return (36, 64) grids of seconds by class name; empty if heat is off."""
        grids, name = {} if self._scene.heat is None else self._scene.heat.grids(), self._teller.class_name
        return {name(class_id) if class_id >= 0 else "other": grid for class_id, grid in grids.items()}

    def clone(self) -> Analytics:
        """Return a copy with the same places and rules but no state, for another source."""
        return Analytics(self._zones, self._lines, self._given, class_names=self.class_names, **self._settings)

    def _take_places(self, zones: Sequence[Zone], lines: Sequence[Line], rules: Sequence[AnyRule]) -> None:
        zone_of, line_of = {zone.name: zone for zone in zones}, {line.name: line for line in lines}
        check_unique("zone", (zone.name for zone in zones))
        check_unique("line", (line.name for line in lines))
        check_unique("rule", (rule_name(rule) for rule in rules))
        fresh = [copy.deepcopy(rule) for rule in rules]
        self._numbers.note(self._rules)
        for rule in fresh:
            if isinstance(rule, Rule):
                rule.continue_after(self._numbers.last(rule.name))
                rule.bind(zone_of, line_of, self._zone_info)
        kept = {rule_name(old): (given, old) for given, old in zip(self._given, self._rules, strict=True)}
        self._rules = tuple(
            kept[rule_name(rule)][1] if rule_name(rule) in kept and kept[rule_name(rule)][0] == given else rule
            for given, rule in zip(rules, fresh, strict=True)
        )
        self._built_in = [rule for rule in self._rules if isinstance(rule, Rule)]
        self._given, self._severities = tuple(copy.deepcopy(rule) for rule in rules), severities(self._rules)
        self._zones, self._lines = tuple(zones), tuple(lines)
        self._zone_names, self._line_names = tuple(zone_of), tuple(line_of)
        self._figures.forget()
        self._setup = None
        self._scene.change(self._zones, self._lines)
        self._teller.take_places(self._zones, self._lines)
        self._counters.expect(zone_of, {line.name: line.directions for line in lines}, map(rule_name, rules))

    # --- updates ---

    def update(
        self,
        tracks: Tracks,
        captured_ns: int,
        size_wh: Size,
        *,
        utc_ns: int | None = None,
        is_detected: bool = True,
        is_held: bool = False,
        ended: Iterable[int] = (),
    ) -> View:
        """Process the tracks of the next frame, and return the scene after it.

        Args:
            tracks: rows with a `detection_index` are observations; if the tracker never sets it, all rows are.
            captured_ns: scene time of the frame; if it goes back, all objects end.
            size_wh: width and height of the frame.
            utc_ns: wall clock of the capture; needed for schedules and `reset_at`.
            is_detected: whether the detector ran; if not, all rows are predictions, which change no position.
            is_held: nothing moved since the previous frame, so all objects are still present.
            ended: tracks that will never be seen again, including those no longer in `tracks`.

        Raises:
            ConfigError: a place or rule names a class but `class_names` is empty, or `utc_ns` is missing.
        """
        self._teller.check_class_names()
        findings: list[Finding] = []
        if self._now_ns is not None and captured_ns < self._now_ns:
            findings += self.reset("stream_restarted")
        now_s = self._scene.seconds(captured_ns)
        self._begin_frame(captured_ns, now_s, size_wh, utc_ns)
        self._scene.end(ended)
        changes = self._scene.advance(tracks, now_s, is_detected=is_detected, is_held=is_held)
        findings += self._teller.tell(changes, captured_ns)
        findings += self._teller.bury(self._scene.gone(now_s), captured_ns, "track_ended")
        return self._with_rules(self._view(tracks, utc_ns, size_wh, is_detected or is_held, findings))

    def tick(self, captured_ns: int, utc_ns: int | None = None) -> View | None:
        """Advance time without a frame, so that rules about the source can fire; None before the first frame."""
        if (size_wh := self._scene.size_wh) is None or self._now_ns is None:
            return None
        self._now_ns = max(captured_ns, self._now_ns)
        return self._with_rules(self._view(Tracks.empty(), utc_ns, size_wh, False, []))

    def source_is(self, *, live: bool, captured_ns: int) -> None:
        """Record that the source stopped or resumed delivering; the time in between is blind time."""
        if live and self._blind_since_ns is not None:
            self._counters.blind_ns += max(captured_ns - self._blind_since_ns, 0)
            self._was_blind = self._blind_since_ns, captured_ns
            self._blind_since_ns = None
        elif not live and self._blind_since_ns is None:
            self._blind_since_ns = captured_ns

    @property
    def has_ended(self) -> bool:
        """Whether `finish` was called and no frame has followed."""
        return self._has_ended

    def reset(self, reason: str) -> tuple[Finding, ...]:
        """End all objects because the stream or the model changed; totals continue."""
        findings = self._end_all(reason)
        for rule in self._built_in:
            findings += rule.end_objects(tuple(findings), self._now_ns or 0, reason)
        self._open = self.open
        return tuple(findings)

    def settle(self) -> tuple[Finding, ...]:
        """Count crossings that only the last boxes of objects show; for the end of a run, before its `summary`."""
        return tuple(self._teller.settle(np.arange(self._scene.rows.count), self._now_ns or 0))

    def finish(self, reason: str = "engine_stopped") -> tuple[Finding, ...]:
        """End all visits and episodes; the totals stay."""
        self._has_ended, findings = True, self._end_all(reason)
        for rule in self._built_in:
            findings += rule.finish(self._now_ns or 0, reason)
        self._open = self.open
        return tuple(findings)

    def change(self, zones: Sequence[Zone], lines: Sequence[Line], rules: Sequence[AnyRule]) -> tuple[Finding, ...]:
        """Replace the places and rules; those equal to an old one keep their state and totals.

        Returns:
            The ends of visits and episodes of removed or changed places and rules, and one `places_changed` per place
            removed, changed or added.

        Raises:
            ConfigError: as the constructor; nothing was changed.
        """
        Analytics(zones, lines, rules, class_names=self.class_names, **self._settings)
        now_ns, findings = self._now_ns or 0, []
        before, after = list[Place]((*self._zones, *self._lines)), list[Place]((*zones, *lines))
        changed = [place for place in before if place not in after]
        new = [place for place in after if place not in before]
        for place in changed:
            findings += self._teller.drop_place(place, now_ns)
        gone = {rule_name(rule) for rule in self._given if rule not in rules}
        for rule in self._built_in:
            if rule_name(rule) in gone or is_about(rule, changed):
                findings += rule.finish(now_ns, "rule_changed" if rule_name(rule) in gone else "places_changed")
        self._take_places(zones, lines, rules)
        self._open = self.open
        for name in dict.fromkeys(place.name for place in (*changed, *new)):
            findings.append(Finding("places_changed", now_ns, place=name, began_ns=now_ns))
        return tuple(findings)

    # --- state kept across a restart ---

    def state(self) -> dict[str, Any]:
        """Return totals, heat and parked objects as JSON-ready data to pass to `restore` after a restart."""
        return self.state_now()()

    def state_now(self) -> Callable[[], dict[str, Any]]:
        """Return a function for any thread that makes, once, what `state` would return now; most work is left to it."""
        heat = None if self._scene.heat is None else self._scene.heat.copy()
        state = {
            "version": STATE_VERSION,
            "counters": self._counters.state(),
            "heat": {},
            "parked": self._scene.spots.state(self._scene.seconds(self._now_ns or 0)),
            "size_wh": self._scene.size_wh,
        }
        return cache(lambda: {**state, **({} if heat is None else {"heat": heat.state()})})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned; call this before the first update.

        Raises:
            ConfigError: the state is of another version or damaged; nothing was changed.
        """
        try:
            if state["version"] != STATE_VERSION:
                raise ValueError(f"version {state['version']}, expected {STATE_VERSION}")
            size_wh = checked_scene(state)
            counters = Counters.read(state["counters"])
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ConfigError(
                f"saved analytics cannot be read ({error!r}): remove the file to begin at zero"
            ) from error
        self._counters.continue_from(counters)
        if self._scene.heat is not None:
            self._scene.heat.restore(state["heat"])
        self._figures.forget()
        self._restored = state["parked"], size_wh

    def summary(self) -> dict[str, Any]:
        """Return the totals as printed in a run's summary; dwell includes the observed part of current visits."""
        return self._teller.summary()

    def _begin_frame(self, captured_ns: int, now_s: float, size_wh: Size, utc_ns: int | None) -> None:
        self._now_ns, self._has_ended = captured_ns, False
        if self._restored is not None:
            self._scene.restore_spots(*self._restored, size_wh, now_s)
            self._restored = None
        self._scene.fit(size_wh)
        if self._blind_since_ns is not None:
            self.source_is(live=True, captured_ns=captured_ns)
        if utc_ns is not None:
            self._reset_if_due(utc_ns)

    def _reset_if_due(self, utc_ns: int) -> None:
        """Reset the totals if the reset time of day has passed since the last frame."""
        if self._reset.is_due(utc_ns, self._counters):
            self._counters.reset(utc_ns)
            self._figures.forget()
            if self._scene.heat is not None:
                self._scene.heat.reset()

    def _end_all(self, reason: str) -> list[Finding]:
        self._figures.forget()
        return self._teller.bury(np.arange(self._scene.rows.count), self._now_ns or 0, reason)

    def _view(
        self, tracks: Tracks, utc_ns: int | None, size_wh: Size, is_observed: bool, findings: list[Finding]
    ) -> View:
        now_ns, blind_ns = self._now_ns or 0, self._counters.blind_ns
        scene, setup = self._scene, self._setup
        if setup is None or setup.size_wh != size_wh:
            setup = self._setup = self._made_setup(size_wh)
        self._figures.update(findings)
        return View(
            captured_ns=now_ns,
            utc_ns=utc_ns,
            tracks=tracks,
            objects=scene.objects(),
            object_of_row=scene.object_of_row if len(tracks) else np.zeros(0, np.int64),
            setup=setup,
            counts=self._figures.counts,
            since_utc_ns=self._counters.since_utc_ns,
            open=self._open,
            blind_ns=blind_ns if self._blind_since_ns is None else blind_ns + now_ns - self._blind_since_ns,
            blind_since_ns=self._blind_since_ns,
            was_blind=self._was_blind,
            is_observed=is_observed,
            findings=tuple(findings),
            heat_total=None if scene.heat is None else scene.heat.total(now_ns),
            turnover=scene.turnover,
            ended=scene.ended,
        )

    def _made_setup(self, size_wh: Size) -> Setup:
        zones, lines = self._scene.zone_layout.corners, self._scene.line_layout.vertices
        return Setup(size_wh, self._zone_names, self._line_names, self.class_names, zones, lines, self._severities)

    def _with_rules(self, view: View) -> View:
        """Evaluate the rules, and return the view with their findings."""
        found = list(view.findings)
        for rule in self._rules:
            for finding in rule.update(view):
                if not finding.rule or not finding.number:
                    finding = self._numbers.stamped(finding, rule_name(rule))
                if finding.phase in ("begin", "point"):
                    self._counters.rules[finding.rule] += 1
                found.append(finding)
        self._was_blind = None
        if len(found) == len(view.findings):
            return view
        self._open = self.open
        return replace(view, findings=tuple(found), open=self._open)
