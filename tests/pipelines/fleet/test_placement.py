"""Placement: what it promises about capacity, wishes and the number of moves."""

from __future__ import annotations

import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.fleet.placement.costs import Cost, estimated, updated
from pipelines.fleet.placement.facts import Limits, Machine, Need
from pipelines.fleet.placement.place import load_of, place, place_lost
from pipelines.fleet.placement.rebalance import desired, empty, lower_bound, relieve

LIMITS = Limits()


def machines(count: int, cpu: float = 16.0, **facts: object) -> list[Machine]:
    return [Machine(f"n{i:03}", cpu, **facts) for i in range(count)]  # type: ignore[arg-type]


def a_fleet(count: int, seed: int = 7) -> list[Need]:
    random = np.random.default_rng(seed)
    fps = random.choice([5, 10, 15, 25], count, p=[0.35, 0.4, 0.15, 0.1])
    duty = np.clip(0.15 + random.normal(0, 0.03, count), 0.05, 1)
    return [Need(f"c{i}", float(fps[i] * (7.5 + 15 * duty[i]) / 1e3)) for i in range(count)]


def owned(needs: list[Need], owners: dict[str, str]) -> list[tuple[Need, str]]:
    return [(need, owners[need.source_id]) for need in needs if need.source_id in owners]


def test_ten_thousand_cameras_fit_near_the_lower_bound() -> None:
    needs = a_fleet(10_000)
    done = place(needs, machines(200), limits=LIMITS)
    bound = lower_bound(needs, machines(1)[0], LIMITS)
    assert not done.unplaced
    assert len(done.owners) == 10_000
    assert bound <= len(set(done.owners.values())) <= math.ceil(bound * 1.03)
    assert max(load_of(machines(200), owned(needs, done.owners)).values()) <= LIMITS.target + 1e-6


@pytest.mark.alone
def test_placing_grows_with_the_number_of_cameras_and_not_with_its_square() -> None:
    def seconds(count: int) -> float:
        needs, began = a_fleet(count), time.thread_time()
        place(needs, machines(200), limits=LIMITS)
        return time.thread_time() - began

    assert min(seconds(8000) for _ in range(5)) < 14 * min(seconds(1000) for _ in range(5))


costs = st.floats(0.01, 6.0)


@given(st.lists(costs, max_size=40), st.lists(st.floats(0.5, 16.0), min_size=1, max_size=6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_machine_is_filled_beyond_its_limit(cpus: list[float], sizes: list[float], lost: bool) -> None:
    needs = [Need(f"c{i}", cpu) for i, cpu in enumerate(cpus)]
    there = [Machine(f"n{i}", cpu) for i, cpu in enumerate(sizes)]
    done = (place_lost if lost else place)(needs, there, limits=LIMITS)
    assert done.owners.keys() | done.unplaced.keys() == {need.source_id for need in needs}
    assert all(
        load <= (1.0 if lost else LIMITS.high) + 1e-6 for load in load_of(there, owned(needs, done.owners)).values()
    )
    for source_id in done.unplaced:
        cpu = next(need.cpu for need in needs if need.source_id == source_id)
        assert cpu > min((m.cpu for m in there), default=0.0) * 0.0  # it has a cost, and the reason names it
        assert "free" in done.unplaced[source_id]


def test_sites_and_labels_are_binding_and_an_impossible_wish_is_explained() -> None:
    there = [Machine("a", 8, site="hall"), Machine("b", 8, site="gate", labels={"gpu": "l4"})]
    needs = [
        Need("1", 1, site="gate"),
        Need("2", 1, labels={"gpu": "l4"}),
        Need("3", 1, site="roof", labels={"gpu": "l4"}),
        Need("4", 99),
        Need("5", 1, gpu=0.5),
    ]
    done = place(needs, there, limits=LIMITS)
    assert done.owners == {"1": "b", "2": "b"}
    assert done.unplaced["3"] == "no machine has site roof, gpu=l4"
    assert done.unplaced["4"] == "no machine that may run it has 99.00 cores free"
    assert done.unplaced["5"].endswith("1.00 cores and 0.50 of a GPU free")
    assert place([Need("x", 1)], []).unplaced == {"x": "there is no machine"}


def test_cameras_of_one_scene_are_spread_and_those_of_one_identity_packed() -> None:
    spread = place([Need(f"c{i}", 0.1, spread="hall") for i in range(6)], machines(3), limits=LIMITS)
    assert Counter(Counter(spread.owners.values()).values()) in ({1: 2, 4: 1}, {2: 3})
    assert len(set(place([Need(f"c{i}", 0.1, spread="hall") for i in range(3)], machines(3)).owners.values())) == 3
    big = [Need(f"b{i}", 5.0) for i in range(3)]
    packed = place([*big, *(Need(f"c{i}", 0.5, pack="door") for i in range(4))], machines(4), limits=LIMITS)
    assert len({packed.owners[f"c{i}"] for i in range(4)}) == 1


def test_a_gpu_fills_up_as_the_processor_does() -> None:
    done = place([Need(f"c{i}", 0.1, gpu=0.3) for i in range(4)], machines(2, gpu=1.0), limits=LIMITS)
    assert sorted(Counter(done.owners.values()).values()) == [2, 2]


def test_least_loaded_uses_all_machines() -> None:
    done = place([Need(f"c{i}", 0.5) for i in range(20)], machines(2), limits=Limits(rule="least_loaded"))
    assert sorted(Counter(done.owners.values()).values()) == [10, 10]


def test_lost_cameras_go_where_few_are_starting() -> None:
    there = [Machine("full", 16, starts=5), Machine("a", 16), Machine("b", 16)]
    done = place_lost([Need(f"c{i}", 0.5) for i in range(6)], there, limits=LIMITS)
    assert Counter(done.owners.values()) == {"a": 3, "b": 3}


def test_only_machines_above_the_high_mark_are_relieved_and_by_few_moves() -> None:
    there = machines(3, 10.0)
    on_first = [(Need(f"c{i}", 1.0), "n000") for i in range(9)]
    assert relieve(on_first[:8], there, LIMITS, most=99) == []  # 80 % stays
    moves = relieve(on_first, there, LIMITS, most=99)
    assert [len(moves), {to for _, to in moves}] == [2, {"n001"}]
    assert len(relieve(on_first, there, LIMITS, most=1)) == 1
    assert relieve(on_first, there, LIMITS, most=99, resting={f"c{i}" for i in range(9)}) == []
    everywhere = [(Need(f"{m.engine_id}-{i}", 1.0), m.engine_id) for m in there for i in range(9)]
    assert relieve(everywhere, there, LIMITS, most=99) == []  # nowhere would be better


def test_a_machine_is_emptied_into_the_others() -> None:
    there = machines(2, 10.0)
    on_first = [(Need(f"c{i}", 1.0), "n000") for i in range(10)]
    moves, stuck = empty(on_first, there, "n000", LIMITS, most=99)
    assert len(moves) == 8
    assert len(stuck) == 2
    assert {to for _, to in moves} == {"n001"}
    assert len(empty(on_first, there, "n000", LIMITS, most=3)[0]) == 3


@pytest.mark.parametrize(
    ("load", "present", "unplaced", "expected"),
    [(0.9, 10, 0, 13), (0.8, 10, 0, 10), (0.5, 10, 0, 10), (0.3, 10, 0, 5), (0.8, 10, 2, 12), (0.0, 0, 0, 0)],
)
def test_the_desired_number_has_hysteresis(load: float, present: int, unplaced: int, expected: int) -> None:
    needs = [Need(f"c{i}", 1.0) for i in range(round(load * present * 16))]
    found = desired(needs, machines(present), LIMITS, unplaced)
    assert found.machines == expected, found
    assert found.present == present
    assert found.why


def test_a_camera_costs_what_engines_measure() -> None:
    assert estimated(1920, 1080, 25).cpu > estimated(640, 360, 25).cpu > estimated(640, 360, 5).cpu
    first = updated(estimated(), {"cpu_ms": 20.0, "gpu_ms": 4.0, "fps": 10.0, "published": 50})
    assert first == Cost(0.2, 0.04, True)
    assert updated(first, {"cpu_ms": 10.0, "gpu_ms": 4.0, "fps": 10.0, "published": 50}).cpu == pytest.approx(0.17)
    for wrong in ({}, {"cpu_ms": None}, {"cpu_ms": -1, "fps": 5, "published": 99}, {"cpu_ms": True, "fps": "x"}):
        assert updated(first, wrong) == first
    assert updated(first, {"cpu_ms": 99.0, "fps": 10.0, "published": 3}) == first  # still warming up
    assert updated(first, {"cpu_ms": math.nan, "fps": 10.0, "published": 99}) == first
