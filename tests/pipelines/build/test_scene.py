"""Zones, lines and rules of a configuration: what they build, what is refused, and that they change while running."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.analytics.findings import Finding
from engine.analytics.rules import Presence
from engine.analytics.view import View
from engine.errors import ConfigError
from pipelines.build.pipeline import build_pipeline
from pipelines.build.places import with_places
from pipelines.build.scene import scene_of, scenes_differ, scenes_of
from pipelines.cli import app
from pipelines.config.file import load_config
from pipelines.config.models import Config
from pipelines.running.reconfigure import Reconfigurer
from tests.fakes import PixelDetector

SCENE = "synthetic://?width=160&height=120&fps=25&objects=3&count=60&seed=4"
YARD = {"points": [[0, 0], [1, 0], [1, 1], [0, 1]]}
FLAT = [[0, 0], [8, 0], [16, 0], [24, 0]]
DOOR = {"points": [[0.5, 1], [0.5, 0]]}
NOBODY = {"classes": ["persn"]}


def _config(**values: Any) -> Config:
    source = {"source_id": "gate", "uri": SCENE, "zones": {"yard": YARD}, "lines": {"door": DOOR}}
    source.update(values.pop("source", {}))
    return load_config(None, {"sources": [source], "publish.address": "none", **values})


class Often:
    """A rule of a user's own."""

    def __init__(self, every: int = 1) -> None:
        self.every = every

    def update(self, view: View) -> Iterator[Finding]:
        if view.findings and self.every:
            yield Finding("often", view.captured_ns)


def test_places_and_rules_reach_the_summary_and_the_packets() -> None:
    rules = [
        {"name": "there", "kind": "presence", "zone": "yard", "for_s": 0.5, "severity": "alert"},
        {"name": "through", "kind": "line", "line": "door"},
        {"name": "own", "kind": f"{__name__}:Often", "parameters": {"every": 2}, "severity": "notice"},
    ]
    config = _config(rules=rules)
    pipeline = build_pipeline(config, make_detector=lambda *_: PixelDetector())
    findings, views = [], 0
    with pipeline:
        for packet in pipeline:
            findings += packet.findings
            views += packet.analytics is not None
    scene = scene_of(pipeline)
    assert scene is not None
    (summary,) = scene.summary().values()
    assert views == 60
    assert summary["zones"]["yard"]["visits"] == sum(finding.event == "zone_entered" for finding in findings) > 0
    crossings = sum(finding.event == "line_crossed" for finding in findings)
    assert sum(summary["lines"]["door"].values()) == crossings == summary["rules"]["through"]
    assert summary["rules"]["there"] == sum(f.rule == "there" and f.phase == "begin" for f in findings) > 0
    own = [finding for finding in findings if finding.event == "often"]
    assert {(finding.rule, finding.severity) for finding in own} == {("own", "notice")}
    assert summary["rules"]["own"] == len(own) > 0


class Empty(Presence):
    """A rule of a user's own that builds on a built-in one."""


def test_a_custom_rule_that_extends_a_built_in_one_has_its_name_severity_and_schedule() -> None:
    days = {"days": ["sat"], "from": "08:00", "to": "09:00"}
    parameters = {"zone": "yard", "for_s": 2}
    rule = {"name": "empty", "kind": f"{__name__}:Empty", "severity": "alert", "schedule": days}
    (built,) = scenes_of(_config(rules=[{**rule, "parameters": parameters}]))["gate"].rules
    assert isinstance(built, Empty)
    assert (built.name, built.severity, built.zone, built.for_s) == ("empty", "alert", "yard", 2)
    assert built.schedule is not None


def test_an_unchanged_custom_rule_keeps_its_state() -> None:
    rule = {"name": "own", "kind": f"{__name__}:Often", "parameters": {"every": 2}}
    before, after = (scenes_of(_config(rules=[rule])) for _ in range(2))
    assert scenes_differ(before, after) == []
    other = scenes_of(_config(rules=[{**rule, "parameters": {"every": 3}}]))
    assert scenes_differ(before, other) == ["gate"]


def test_without_places_nothing_is_analysed() -> None:
    config = load_config(None, {"sources": [{"uri": SCENE}], "publish.address": "none"})
    pipeline = build_pipeline(config, make_detector=lambda *_: PixelDetector())
    with pipeline:
        packets = list(pipeline)
    assert packets[-1].analytics is None
    assert packets[-1].findings == ()
    assert "analyse" not in packets[-1].stage_ms


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param(
            {"source": {"zones": {"yard": {"points": [[0, 0], [1.5, 0], [1, 1]]}}}},
            r"sources\.0\.zones\.yard: points: 1\.5 is above 1",
            id="fraction above 1",
        ),
        pytest.param(
            {"source": {"zones": {"yard": {"points": [[0, 0], [1, 1], [1, 0], [0, 1]]}}}},
            r"sources\.0\.zones\.yard: .*cross",
            id="bow tie",
        ),
        pytest.param(
            {"source": {"zones": {"yard": {"points": [[0, 0], [0.5, 0.5], [1, 1]]}}}},
            r"sources\.0\.zones\.yard: .*no area",
            id="no area",
        ),
        pytest.param(
            {"source": {"lines": {"door": {"points": [[0, 0]]}}}},
            r"sources\.0\.lines\.door: .*1 point:",
            id="a point",
        ),
        pytest.param(
            {"source": {"zones": {"a/b": YARD}}}, r"sources\.0\.zones\.a/b: zone name", id="a name with a slash"
        ),
        pytest.param(
            {"source": {"zones": {"yard": {"points": [[0, 0], [1, 0], [1, 1], [0, 0]]}}}},
            r"sources\.0\.zones\.yard: .*repeats the first",
            id="closed by hand",
        ),
        pytest.param(
            {"source": {"zones": {"yard": {**YARD, "ground": {**YARD, "metres": FLAT}}}}},
            r"sources\.0\.zones\.yard: .*ground: three of its points are on one line",
            id="flat ground",
        ),
        pytest.param(
            {"analytics": {"min_height": 0.9, "max_height": 0.1}}, "analytics: min_height 0.9 is above", id="heights"
        ),
        pytest.param({"site": {"timezone": "Mars/Base"}}, "site.timezone.*time zone 'Mars/Base'", id="time zone"),
        pytest.param({"analytics": {"reset_at": "25:99"}}, "reset_at", id="time of day"),
        pytest.param({"tracker.type": "none"}, "tracker.type", id="no tracker"),
        pytest.param(
            {"rules": [{"name": "r", "kind": "presence", "zone": "yrad"}]},
            r"rules\.0: zone: unknown zone 'yrad'; expected one of: yard",
            id="unknown zone",
        ),
        pytest.param(
            {"rules": [{"name": "r", "kind": "line", "line": "door", "direction": "in"}]},
            r"rules\.0: .*unknown direction 'in'; expected one of: left_to_right, right_to_left",
            id="unknown direction",
        ),
        pytest.param({"rules": [{"name": "r", "kind": "dance"}]}, r"rules\.0: kind: unknown kind 'dance'", id="kind"),
        pytest.param(
            {"rules": [{"name": "r", "kind": "presence", "zone": "yard", "over_kmh": 3}]},
            "over_kmh does not apply to kind presence; expected one of: zone, classes, for_s",
            id="a key of another kind",
        ),
        pytest.param(
            {"rules": [{"name": "r", "kind": f"{__name__}:Often", "classes": ["person"]}]},
            r"rules\.0: classes does not apply to a custom rule: give it under parameters",
            id="a key that a custom rule does not have",
        ),
        pytest.param(
            {"rules": [{"name": "r", "kind": f"{__name__}:Often", "schedule": {"days": ["sat"]}}]},
            r"rules\.0: schedule does not apply to a custom rule",
            id="a schedule that a custom rule does not have",
        ),
        pytest.param({"rules": [{"name": "r", "kind": "presence"}]}, r"rules\.0: zone: .*needs it", id="no zone"),
        pytest.param(
            {"rules": [{"name": "r", "kind": "blind", "sources": ["yard"]}]},
            "there is no source yard; expected one of: gate",
            id="unknown source",
        ),
        pytest.param(
            {"rules": [{"name": "r", "kind": "close", "metres": 2}]},
            r"rules\.0: .*metres: no zone has a ground",
            id="close",
        ),
        pytest.param(
            {"rules": [{"name": "r", "kind": "count", "zone": "yard", "at_least": 5, "at_most": 2}]},
            r"rules\.0: .*at_least 5 is above at_most 2",
            id="count",
        ),
        pytest.param(
            {"rules": [{"name": "r", "kind": "blind"}, {"name": "r", "kind": "blind"}]}, "two rules", id="two of a name"
        ),
        pytest.param(
            {"rules": [{"name": "r", "kind": "blind", "schedule": {"days": ["monday"]}}]}, "'monday'", id="a day"
        ),
        pytest.param({"rules": [{"name": "r", "kind": "blind", "shedule": {}}]}, "did you mean schedule", id="typo"),
    ],
)
def test_every_mistake_is_refused_with_its_key(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        scenes_of(_config(**values))


@pytest.mark.parametrize(
    ("values", "key"),
    [
        pytest.param(
            {"source": {"zones": {"yard": {**YARD, "classes": ["persn"]}}}}, "sources.0.zones.yard", id="zone"
        ),
        pytest.param(
            {"source": {"lines": {"door": {**DOOR, "classes": ["persn"]}}}}, "sources.0.lines.door", id="line"
        ),
        pytest.param(
            {"rules": [{"name": "r", "kind": "presence", "zone": "yard", "classes": ["persn"]}]}, "rules.0", id="rule"
        ),
    ],
)
def test_a_class_that_no_model_has_is_refused(values: dict[str, Any], key: str) -> None:
    from pipelines.build.names import check_names

    with pytest.raises(ConfigError, match=rf"{key}\.classes: .*persn"):
        check_names(_config(**values), {"detector": ("person", "car")})


def test_check_refuses_a_zone_that_cannot_work(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"sources: [{{uri: '{SCENE}', zones: {{yard: {{points: [[0, 0], [2, 0], [1, 1]]}}}}}}]\n")
    with pytest.raises(ConfigError, match=r"sources\.0\.zones\.yard"):
        CliRunner().invoke(app, ["check", str(file)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("source", "points", "corner"),
    [
        pytest.param({}, [(0.25, 0.5), (1, 0.5), (1, 1)], (40, 60), id="fractions"),
        pytest.param({}, [(40, 60), (160, 60), (160, 120)], (40, 60), id="pixels of the source"),
        pytest.param(
            {"picture": {"size_wh": [1600, 1200]}}, [(0.25, 0.5), (1, 0.5), (1, 1)], (40, 60), id="of another"
        ),
    ],
)
def test_places_of_the_command_line(source: dict[str, Any], points: list[tuple[float, float]], corner: Any) -> None:
    from engine.analytics.layout import ZoneLayout

    config = with_places(_config(source={**source, "zones": {}, "lines": {}}), {"zones": [("gate.bed", points)]})
    (zone,) = scenes_of(config)["gate"].zones
    assert zone.name == "bed"
    assert ZoneLayout([zone], (160, 120), (160, 120)).corners[0][0].tolist() == pytest.approx(corner)


@pytest.mark.parametrize("name", ["yard.door", "gate.x.door"])
def test_a_place_of_an_unknown_source_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected|give SOURCE.NAME"):
        with_places(_config(), {"lines": [(name, [(0.5, 1), (0.5, 0)])]})


def test_a_source_with_dots_in_its_name_has_places_too() -> None:
    config = load_config(None, {"sources": [{"uri": SCENE, "source_id": "a.b.c"}]})
    changed = with_places(config, {"lines": [("a.b.c.door", [(0.5, 1), (0.5, 0)])]})
    assert list(changed.sources[0].lines) == ["door"]
    assert list(with_places(config, {"lines": [("door", [(0.5, 1), (0.5, 0)])]}).sources[0].lines) == ["door"]


def test_run_prints_the_totals() -> None:
    arguments = ["run", "--source", f"gate={SCENE}", "--model", "motion", "--publish", "none", "--json"]
    places = ["--line", "gate.door=80,120,80,0", "--zone", "gate.yard=0,0,1,0,1,1,0,1"]
    result = CliRunner().invoke(app, [*arguments, *places])
    assert result.exit_code == 0, result.output
    analytics = json.loads(result.stdout.splitlines()[-1])["analytics"]
    assert analytics["gate"]["lines"]["door"].keys() == {"left_to_right", "right_to_left"}
    assert analytics["gate"]["zones"]["yard"]["dwell_s"].keys() == {"p50", "max", "sum"}
    assert analytics["gate"]["blind_s"] == 0


def test_a_change_while_running_keeps_the_camera_and_the_totals_of_what_stays() -> None:
    camera = SCENE.replace("&count=60", "") + "&realtime=1"
    config = _config(source={"uri": camera}, **{"control.address": "ipc://unused"})
    pipeline = build_pipeline(config, make_detector=lambda *_: PixelDetector())
    scene = scene_of(pipeline)
    assert scene is not None
    with pipeline:
        pipeline.start()
        changes = Reconfigurer(pipeline, config)
        _wait(lambda: scene.summary()["gate"]["zones"]["yard"]["visits"] > 0)
        visits = scene.summary()["gate"]["zones"]["yard"]["visits"]
        with pytest.raises(ConfigError, match="unknown zone"):
            changes.set("rules", [{"name": "r", "kind": "presence", "zone": "nowhere"}])
        done = changes.set("sources.0.lines", {"other": {"points": [[0.2, 1], [0.2, 0]]}})
        assert done == ["changed zones, lines and rules of gate"]
        _wait(lambda: list(scene.summary()["gate"]["lines"]) == ["other"])
        done = changes.set("rules", [{"name": "r", "kind": "presence", "zone": "yard"}])
        _wait(lambda: scene.summary()["gate"]["rules"].get("r", 0) > 0)
        assert scene.summary()["gate"]["zones"]["yard"]["visits"] >= visits
        assert pipeline.running_sources == ["gate"]
        with pytest.raises(ConfigError, match="analytics cannot change"):
            changes.set("analytics.min_score", 0.9)


def test_zones_may_be_drawn_on_a_camera_that_had_none() -> None:
    camera = SCENE.replace("&count=60", "") + "&realtime=1"
    config = _config(source={"uri": camera, "zones": {}, "lines": {}}, **{"control.address": "ipc://unused"})
    pipeline = build_pipeline(config, make_detector=lambda *_: PixelDetector())
    with pipeline:
        pipeline.start()
        changes = Reconfigurer(pipeline, config)
        assert scene_of(pipeline) is None
        changes.set("sources.0.zones", {"yard": YARD})
        scene = scene_of(pipeline)
        assert scene is not None
        _wait(lambda: scene.summary()["gate"]["zones"]["yard"]["visits"] > 0)


def test_places_count_again_after_the_last_one_was_removed() -> None:
    camera = SCENE.replace("&count=60", "") + "&realtime=1"
    config = _config(source={"uri": camera, "lines": {}}, **{"control.address": "ipc://unused"})
    pipeline = build_pipeline(config, make_detector=lambda *_: PixelDetector())
    with pipeline:
        pipeline.start()
        changes = Reconfigurer(pipeline, config)
        scene = scene_of(pipeline)
        assert scene is not None
        for place in ("yard", "again"):
            changes.set("sources.0.zones", {})
            _wait(lambda: not scene.summary()["gate"]["zones"])
            changes.set("sources.0.zones", {place: YARD})
            _wait(lambda place=place: scene.summary()["gate"]["zones"].get(place, {}).get("visits", 0) > 0)
        source = changes.config.sources[0].model_dump()
        changes.remove("gate")
        changes.add({**source, "zones": {"later": YARD}})
        _wait(lambda: scene.summary()["gate"]["zones"].get("later", {}).get("visits", 0) > 0)
        assert list(pipeline.analysers["gate"]) == [scene], "it must analyse each frame once"


def _wait(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)
