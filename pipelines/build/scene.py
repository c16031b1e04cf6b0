"""Builds each source's analytics from the zones, lines and rules of a configuration; every error names its key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.analytics.analyser import SceneAnalyser
from engine.analytics.analytics import Analytics, AnyRule
from engine.analytics.findings import Finding, Severity
from engine.analytics.identity import Eligibility
from engine.analytics.layout import ZoneLayout
from engine.analytics.places import Ground, Line, Zone
from engine.analytics.rules import KINDS, Rule, UserRule
from engine.analytics.rules.schedule import Schedule
from engine.analytics.view import View
from engine.errors import ConfigError
from engine.flow.analyse import ALL_SOURCES
from engine.registry import Registry
from pipelines.build.sources import named_sources
from pipelines.config.hints import at_key
from pipelines.config.models import Config
from pipelines.config.scene import GroundConfig, LineConfig, RuleConfig, ZoneConfig
from pipelines.config.source import SourceConfig

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from engine.flow.pipeline import Pipeline
    from engine.protocols import Analyser

RULES = Registry("rule", {})
MAX_STATE_BYTES = 64 * 1024 * 1024
CHOOSING = ("zone", "line", "lines")
"""Keys that choose the sources of a custom rule: those that have such a place."""
COMMON = ("name", "kind", "sources", "enabled", "severity", "schedule", "actions", "parameters")
Places = tuple[tuple[Zone, ...], tuple[Line, ...]]


def build_scene(config: Config) -> SceneAnalyser | None:
    """Return the analyser of zones, lines and rules; None if there are none.

    Raises:
        ConfigError: a place or rule is invalid; the message names its key.
    """
    scenes = scenes_of(config)
    restore_scenes(config.analytics.state, scenes)
    return SceneAnalyser(scenes) if scenes else None


def restore_scenes(path: str | None, scenes: Mapping[str, Analytics]) -> None:
    """Let the scenes continue with the totals in a file; without the file, they start at zero.

    Raises:
        ConfigError: the file cannot be read, or is not such a file.
    """
    if path is None or not Path(path).exists():
        return
    try:
        if Path(path).stat().st_size > MAX_STATE_BYTES:
            raise ValueError(f"it is larger than {MAX_STATE_BYTES} bytes")
        states = json.loads(Path(path).read_text(encoding="utf-8"))
        saved = {name: dict(states[name]) for name in scenes if name in states}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"analytics.state: {path} cannot be read ({error}): remove it to begin at zero") from error
    for name, state in saved.items():
        try:
            scenes[name].restore(state)
        except ConfigError as error:
            raise ConfigError(f"analytics.state: {path}: source {name}: {error}") from error


def with_scene(analysers: Mapping[str, Sequence[Analyser]], config: Config) -> dict[str, list[Analyser]]:
    """Return the lists of analysers; lists of sources with zones, lines or rules begin with their analyser."""
    scene = build_scene(config)
    lists = {name: list(those) for name, those in analysers.items()}
    if scene is None:
        return lists
    everyone = analysers.get(ALL_SOURCES, ())
    return {**lists, **{name: [scene, *analysers.get(name, everyone)] for name in scene.summary()}}


def scene_of(pipeline: Pipeline) -> SceneAnalyser | None:
    """Return the analyser of zones, lines and rules of a pipeline; None if there is none."""
    return next((each for each in pipeline.all_analysers if isinstance(each, SceneAnalyser)), None)


def change_scene(pipeline: Pipeline, scenes: Mapping[str, Analytics], known: Collection[str]) -> None:
    """Switch a running pipeline to new zones, lines and rules; unchanged ones keep their state.

    Args:
        pipeline: the run.
        scenes: result of `scenes_of` for the new configuration.
        known: sources that had a scene before.
    """
    analyser = scene_of(pipeline)
    if analyser is None:
        analyser = SceneAnalyser({})
    lists = pipeline.analysers
    everyone = lists.get(ALL_SOURCES, ())
    for name, scene in scenes.items():
        if analyser.has(name):  # also if its last place was removed since
            analyser.change(name, scene.zones, scene.lines, scene.rules)
        else:
            analyser.add(name, scene)
        listed = lists.get(name, everyone)
        if analyser not in listed:
            pipeline.set_analysers({name: [analyser, *listed]})
    for name in known:
        if name not in scenes:
            analyser.change(name, (), (), ())


def scenes_of(config: Config) -> dict[str, Analytics]:
    """Return the analytics of each source that has a zone, a line or a rule.

    Raises:
        ConfigError: one is invalid, or there is no tracker; the message names the key.
    """
    places = {name: _places(index, source) for index, (name, source) in enumerate(named_sources(config))}
    rules = _rules(config, places)
    settings, scenes = _settings(config), {}
    for name, (zones, lines) in places.items():
        if zones or lines or rules[name]:
            try:
                scenes[name] = Analytics(zones, lines, rules[name], **settings)
            except ConfigError:
                _check_each(config, name, places)
                with at_key("rules"):
                    raise
    if scenes and config.tracker.type == "none":
        raise ConfigError("tracker.type: zones, lines and rules need tracks: choose a tracker, such as steady")
    return scenes


def _check_each(config: Config, name: str, places: dict[str, Places]) -> None:
    """Raise `ConfigError` with the path of the first rule that does not work on a source."""
    zones, lines = places[name]
    for index, options in enumerate(config.rules):
        with at_key(f"rules.{index}"):
            if name in _sources_of(options, places):
                Analytics(zones, lines, [_rule(options)])


def scenes_differ(before: Mapping[str, Analytics], after: Mapping[str, Analytics]) -> list[str]:
    """Return the sources whose zones, lines or rules differ."""

    def parts(scenes: Mapping[str, Analytics], name: str) -> tuple[Any, ...]:
        return () if name not in scenes else (scenes[name].zones, scenes[name].lines, scenes[name].rules)

    return [name for name in {**before, **after} if parts(before, name) != parts(after, name)]


def _settings(config: Config) -> dict[str, Any]:
    options = config.analytics
    with at_key("analytics"):
        eligibility = Eligibility(**options.model_dump(exclude={"reset_at", "heat", "state"}))
    with at_key("site.timezone", "analytics.reset_at"):
        Analytics(timezone=config.site.timezone, reset_at=options.reset_at)
    return {
        "eligibility": eligibility,
        "timezone": config.site.timezone,
        "reset_at": options.reset_at,
        "heat": options.heat,
    }


def _places(index: int, source: SourceConfig) -> Places:
    zones, lines = [], []
    for name, zone in source.zones.items():
        with at_key(f"sources.{index}.zones.{name}"):
            zones.append(_zone(name, zone, source))
    for name, line in source.lines.items():
        with at_key(f"sources.{index}.lines.{name}"):
            lines.append(_line(name, line, source))
    return tuple(zones), tuple(lines)


def _size(place: ZoneConfig | LineConfig, source: SourceConfig) -> tuple[int, int] | None:
    """Return the size of the frame on which a place was drawn, rejecting fractions above 1."""
    if place.pixels:
        return None
    if source.picture is not None:
        return source.picture.size_wh
    above = [value for point in place.points for value in point if value > 1]
    if above:
        raise ConfigError(
            f"points: {above[0]:g} is above 1: give fractions of the frame, or state the frame size that these "
            "pixels refer to (picture.size_wh), or that they are pixels of the source's frames (pixels: true)"
        )
    return None


def _zone(name: str, zone: ZoneConfig, source: SourceConfig) -> Zone:
    options = zone.model_dump(exclude={"pixels", "ground"})
    made = Zone(name, **options, size_wh=_size(zone, source), ground=_ground(zone.ground))
    ZoneLayout((made,), (1, 1), (1, 1))  # fits the ground
    return made


def _ground(ground: GroundConfig | None) -> Ground | None:
    return None if ground is None else Ground(ground.points, ground.metres)


def _line(name: str, line: LineConfig, source: SourceConfig) -> Line:
    return Line(name, **line.model_dump(exclude={"pixels"}), size_wh=_size(line, source))


def _rules(config: Config, places: dict[str, Places]) -> dict[str, list[AnyRule]]:
    """Return the rules of each source: those about its own places, or about no place."""
    rules: dict[str, list[AnyRule]] = {name: [] for name in places}
    for index, options in enumerate(config.rules):
        with at_key(f"rules.{index}"):
            for name in _sources_of(options, places):
                rule = _rule(options)
                if options.enabled:
                    rules[name].append(rule)
    return rules


def _sources_of(options: RuleConfig, places: dict[str, Places]) -> list[str]:
    unknown = [name for name in options.sources or () if name not in places]
    if unknown:
        raise ConfigError(f"sources: there is no source {unknown[0]}; expected one of: {', '.join(places) or 'none'}")
    chosen = list(places) if options.sources is None else options.sources
    zones = {options.zone} if options.zone is not None else set()
    lines = {name.partition(":")[0] for name in (options.line, *(options.lines or ())) if name is not None}
    having = [name for name in chosen if zones <= _names(places[name][0]) and lines <= _names(places[name][1])]
    if not having and places and (zones or lines):
        for what, wanted, which in (("zone", zones, 0), ("line", lines, 1)):
            known = sorted({name for source in chosen for name in _names(places[source][which])})
            missing = sorted(wanted - set(known))
            if missing:
                raise ConfigError(
                    f"{what}: unknown {what} {missing[0]!r}; expected one of: {', '.join(known) or 'none'}"
                )
        raise ConfigError("no source has all of its zones and lines: name places of one source")
    return having


def _names(places: Sequence[Zone | Line]) -> set[str]:
    return {place.name for place in places}


def _rule(options: RuleConfig) -> AnyRule:
    if options.kind not in KINDS:
        return _own_rule(options)
    given = options.model_dump(exclude_unset=True, exclude=set(COMMON))
    kind = KINDS[options.kind]
    allowed = [name for name, field in kind.__dataclass_fields__.items() if field.init and name not in COMMON]
    foreign = [name for name in given if name not in allowed]
    if foreign or options.parameters:
        key = foreign[0] if foreign else "parameters"
        raise ConfigError(f"{key} does not apply to kind {options.kind}; expected one of: {', '.join(allowed)}")
    missing = [name for name in allowed if name not in given and _is_needed(kind.__dataclass_fields__[name])]
    if missing:
        raise ConfigError(f"{missing[0]}: kind {options.kind} needs it; see docs/analytics.md")
    return kind(options.name, severity=options.severity, schedule=_schedule(options), **given)


def _is_needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _own_rule(options: RuleConfig) -> AnyRule:
    """Return a user-defined rule, found by name in the registry."""
    names = RULES.names()
    if options.kind not in names and ":" not in options.kind:
        known = ", ".join([*KINDS, *names])
        raise ConfigError(f"kind: unknown kind {options.kind!r}; expected one of: {known}, or module:attribute")
    foreign = sorted(options.model_fields_set - {*COMMON, *CHOOSING})
    if foreign:
        raise ConfigError(f"{foreign[0]} does not apply to a custom rule: give it under parameters")
    factory, name = RULES.load(options.kind), options.name
    if isinstance(factory, type) and issubclass(factory, Rule):
        of_rule = {"name": name, "severity": options.severity, "schedule": _schedule(options)}
        built: Rule = RULES.make(options.kind, {**of_rule, **options.parameters})
        return built
    if options.schedule is not None:
        raise ConfigError(
            "schedule does not apply to a custom rule, unless it is a subclass of engine.analytics.rules.Rule"
        )
    severity = options.severity if "severity" in options.model_fields_set else None
    made = RULES.make(options.kind, options.parameters, protocol=UserRule)
    return _Configured(name, severity, options.kind, dict(options.parameters), made)


@dataclass
class _Configured:
    """A custom rule with the name and, if it is given, the severity of its configuration."""

    name: str
    given_severity: Severity | None
    kind: str
    parameters: dict[str, Any]
    rule: UserRule = field(compare=False)

    @property
    def severity(self) -> Severity:
        of_class: Severity = getattr(self.rule, "severity", "info")
        return self.given_severity or of_class

    def update(self, view: View) -> Iterator[Finding]:
        for finding in self.rule.update(view):
            yield replace(finding, rule=self.name, severity=self.given_severity or finding.severity)


def _schedule(options: RuleConfig) -> Schedule | None:
    if options.schedule is None:
        return None
    given = options.schedule.model_dump()
    return Schedule(given["days"], given["from"], given["to"])
