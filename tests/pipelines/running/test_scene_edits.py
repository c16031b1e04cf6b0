"""Zones, lines and rules that are edited while a run counts."""

from __future__ import annotations

import random
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.flow.pipeline import Pipeline
from pipelines.build.pipeline import build_pipeline
from pipelines.config.file import load_config
from pipelines.running.reconfigure import Reconfigurer

FRAMES, EDITS = 700, 100
CAMERA = f"synthetic://?width=320&height=240&fps=25&objects=5&seed=3&count={FRAMES}"
DOOR = {"door": {"points": [[0.5, 1], [0.5, 0]]}}
YARD = {"yard": {"points": [[0, 0], [0.6, 0], [0.6, 1], [0, 1]]}}
INTRUDER = {"name": "intruder", "kind": "presence", "zone": "yard", "for_s": 0.5}


def _pipeline() -> tuple[Pipeline, Reconfigurer]:
    """Return a run that counts, and what edits it."""
    source = {"source_id": "gate", "uri": CAMERA, "zones": YARD, "lines": DOOR}
    fixed = {"sources": [source], "detector.model": "motion", "publish.address": "none", "rules": [INTRUDER]}
    config = load_config(None, {**fixed, "control.address": "ipc://unused"})
    pipeline = build_pipeline(config)
    return pipeline, Reconfigurer(pipeline, config)


def _points(chance: random.Random, count: int) -> list[list[float]]:
    """Return the corners of a simple polygon, or points of a line from left to right."""
    low = [[(at + 0.5) / count, chance.uniform(0.1, 0.4)] for at in range(count)]
    return low if count == 2 else [*low, [0.5, chance.uniform(0.6, 0.9)]]


def _edit(edits: Reconfigurer, chance: random.Random) -> None:
    """Change places and rules other than those that are watched, or try what is refused."""
    kind = chance.choice(("places", "rules", "nonsense"))
    if kind == "places":
        zones = {f"z{n}": {"points": _points(chance, 3)} for n in range(chance.randrange(3))}
        lines = {f"l{n}": {"points": _points(chance, 2)} for n in range(chance.randrange(3))}
        edits.set_places("gate", {**zones, **YARD}, {**lines, **DOOR})
    elif kind == "rules":
        more = [{"name": f"r{n}", "kind": "line", "line": "door"} for n in range(chance.randrange(3))]
        edits.set_rules([*more, INTRUDER])
    else:
        with pytest.raises(ConfigError):
            chance.choice(
                (
                    lambda: edits.set_places("gate", {"yard": {"points": [[0, 0], [1, 1], [1, 0], [0, 1]]}}, DOOR),
                    lambda: edits.set_places("gate", YARD, {"door": {"points": [[0.5, 7.5]]}}),
                    lambda: edits.set_rules([{**INTRUDER, "zone": "nowhere"}]),
                    lambda: edits.set_rules([{**INTRUDER, "for_s": -1}]),
                    lambda: edits.set("rules", "what?"),
                )
            )()


def _counted(seed: int | None) -> dict[str, Any]:
    """Return what a run counts at the untouched places; None: nothing is edited."""
    pipeline, edits = _pipeline()
    chance, done, view, told = random.Random(seed), 0, None, []
    with pipeline:
        for number, packet in enumerate(pipeline):
            view = packet.analytics
            assert view is not None
            told += [finding for finding in packet.findings if finding.rule == "intruder" and finding.phase != "update"]
            if seed is not None and done * FRAMES < EDITS * number:
                _edit(edits, chance)
                done += 1
            if number == FRAMES - 1:
                break  # a run that is controlled waits for more sources
    assert view is not None
    assert seed is None or done == EDITS
    episodes = [(finding.phase, finding.began_ns) for finding in told if finding.reason != "engine_stopped"]
    return {"door": dict(view.totals["door"]), "visits": view.visits["yard"], "episodes": episodes}


def test_a_hundred_edits_of_a_run_leave_untouched_counts_and_open_episodes_as_they_are() -> None:
    plain = _counted(None)
    assert sum(plain["door"].values()) > 5
    assert len(plain["episodes"]) > 4
    for seed in (1, 2):
        assert _counted(seed) == plain
