"""Plans moves that relieve machines, and the number of machines that a fleet should have."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipelines.fleet.placement.facts import MIN_CPU, Limits, Machine, Need
from pipelines.fleet.placement.place import Room, place_in, size_of


class Move(NamedTuple):
    """A camera that should change its owner."""

    source_id: str
    engine_id: str


def relieve(
    owned: Sequence[tuple[Need, str]],
    machines: Sequence[Machine],
    limits: Limits,
    *,
    most: int,
    resting: Collection[str] = (),
) -> list[Move]:
    """Return at most `most` moves off machines above `limits.high`, until each is at `limits.target`.

    A move leads only to a machine that stays within `target`, so no move causes another.

    Args:
        owned: all cameras with their engines.
        machines: all machines that may have cameras.
        limits: shares.
        most: number of moves that are allowed now.
        resting: cameras that moved recently, and stay.
    """
    room, moves = Room(machines, owned), list[Move]()
    loads = room.loads()
    strict = Limits(limits.target, limits.target, limits.low, limits.rule)
    for at in np.argsort(-loads):
        if loads[at] <= limits.high + 1e-9:
            break
        mine = [n for n, e in owned if e == machines[at].engine_id and n.source_id not in resting]
        for need in sorted(mine, key=size_of, reverse=True):
            if len(moves) >= most or room.loads()[at] <= limits.target:
                break
            room.take(need, int(at), -1)
            room.cpu[at], kept = 0.0, room.cpu[at]  # never move a camera back to where it came from
            found = place_in(room, [need], strict).owners.get(need.source_id)
            room.cpu[at] = kept
            if found is None:
                room.take(need, int(at))
            else:
                moves.append(Move(need.source_id, found))
    return moves


def empty(
    owned: Sequence[tuple[Need, str]],
    machines: Sequence[Machine],
    engine_id: str,
    limits: Limits,
    most: int,
) -> tuple[list[Move], dict[str, str]]:
    """Return at most `most` moves off a machine that is being drained, and why the others of that batch cannot move."""
    others = [machine for machine in machines if machine.engine_id != engine_id]
    mine = sorted((need for need, owner in owned if owner == engine_id), key=size_of, reverse=True)[: max(most, 0)]
    done = place_in(Room(others, [pair for pair in owned if pair[1] != engine_id]), mine, limits)
    return [Move(source_id, to) for source_id, to in done.owners.items()], done.unplaced


@dataclass(frozen=True, slots=True)
class Desired:
    """How many machines a fleet should have, and of which size.

    Attributes:
        machines: desired number.
        present: number that is there.
        load: used share of the total capacity.
        why: one line.
    """

    machines: int
    present: int
    load: float
    why: str


def desired(needs: Sequence[Need], machines: Sequence[Machine], limits: Limits, unplaced: int = 0) -> Desired:
    """Return how many machines the cameras need, with hysteresis: grow above `high`, shrink below `low`.

    A new machine is assumed to match the average of the existing ones; if there are none, to have one core.
    """
    cpu, gpu = sum(max(n.cpu, MIN_CPU) for n in needs), sum(n.gpu for n in needs)
    present = len(machines)
    each_cpu = sum(m.cpu for m in machines) / present if present else 1.0
    each_gpu = sum(m.gpu for m in machines) / present if present else 0.0
    enough = math.ceil(round(cpu / (limits.target * each_cpu), 6))
    if gpu > 0:
        enough = max(enough, math.ceil(round(gpu / (limits.target * each_gpu), 6)) if each_gpu else present + 1)
    enough = max(enough, 1 if needs else 0)
    load = max(cpu / (each_cpu * present), gpu / (each_gpu * present) if each_gpu else 0.0) if present else 0.0
    if unplaced:
        return Desired(max(enough, present + 1), present, load, f"{unplaced} cameras have no place")
    if present and limits.low <= load <= limits.high:
        return Desired(present, present, load, f"load {load:.0%} is between {limits.low:.0%} and {limits.high:.0%}")
    if present and load < limits.low and enough < present:
        return Desired(enough, present, load, f"load {load:.0%} is below {limits.low:.0%}")
    if enough > present:
        return Desired(enough, present, load, f"load {load:.0%} is above {limits.high:.0%}")
    return Desired(max(enough, present), present, load, f"load {load:.0%} fits {present} machines")


def lower_bound(needs: Sequence[Need], machine: Machine, limits: Limits) -> int:
    """Return the number of machines like this one below which no placement exists."""
    cpu = sum(max(n.cpu, MIN_CPU) for n in needs) / (limits.target * machine.cpu)
    gpu = sum(n.gpu for n in needs) / (limits.target * machine.gpu) if machine.gpu else 0.0
    return math.ceil(max(cpu, gpu) - 1e-9)
