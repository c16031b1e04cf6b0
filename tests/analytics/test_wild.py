"""Random scenes give the findings that an earlier form of the same definitions gave, which wrote their golden file."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from functools import cache
from typing import Any

import pytest

from tests.analytics.wild import GOLDEN, SEEDS, told

NS_APART = 1000
PX_APART = 0.02


@cache
def _golden() -> dict[str, list[list[Any]]]:
    golden: dict[str, list[list[Any]]] = json.loads(gzip.decompress(GOLDEN.read_bytes()))
    return golden


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_scene_is_told_as_before(seed: int) -> None:
    found, expected = told(seed), _golden()[str(seed)]
    assert [facts[:2] for facts in found] == [facts[:2] for facts in expected]
    for (what, _, times, where), (_, _, golden_times, golden_where) in zip(found, expected, strict=True):
        assert [None if ns is None else pytest.approx(ns, abs=NS_APART) for ns in golden_times] == times, what
        assert where == pytest.approx(golden_where, abs=PX_APART), what


def test_the_scenes_hold_what_can_happen() -> None:
    kinds = Counter(facts[0].split("/")[0] for scene in _golden().values() for facts in scene)
    assert {"zone_entered", "zone_left", "line_crossed", "rule_began", "rule_ended", "places_changed"} <= set(kinds)
    reasons = {facts[0].split("/")[4] for scene in _golden().values() for facts in scene}
    assert {"track_ended", "stream_restarted", "places_changed", "rule_changed", "engine_stopped"} <= reasons
    rules = {facts[0].split("/")[2].rstrip("0123456789") for scene in _golden().values() for facts in scene}
    kinds_of_rules = {"presence", "loiter", "count", "few", "direction", "stopped", "speed", "crossed", "sequence"}
    assert kinds_of_rules | {"close", "left", "removed"} <= rules
