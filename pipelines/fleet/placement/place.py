"""Places cameras: by first fit decreasing when filling a fleet, by shortest start queue for lost cameras.

Affinity and anti-affinity are preferences: a camera is placed even if they cannot be met. Site and labels are binding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.fleet.placement.facts import MIN_CPU, Limits, Machine, Need, Placement

Mask = NDArray[np.bool_]
SLACK = 1e-9


class Room:
    """The free capacity of each machine, while cameras are placed one after another.

    Args:
        machines: in the order in which they are filled.
        settled: the cameras that stay, with their engines.
        target: share up to which a group should fit as a whole.
    """

    def __init__(
        self, machines: Sequence[Machine], settled: Iterable[tuple[Need, str]] = (), target: float = 1.0
    ) -> None:
        self.machines, self.target = machines, target
        self.index = {machine.engine_id: at for at, machine in enumerate(machines)}
        self.cpu = np.array([machine.cpu for machine in machines], float)
        self.gpu = np.array([machine.gpu for machine in machines], float)
        self.used_cpu, self.used_gpu = np.zeros(len(machines)), np.zeros(len(machines))
        self.starts = np.array([machine.starts for machine in machines], float)
        self.groups: dict[str, float] = defaultdict(float)
        self._packed: dict[str, Any] = defaultdict(lambda: np.zeros(len(machines), int))
        self._spread: dict[str, Any] = defaultdict(lambda: np.zeros(len(machines), int))
        self._allowed: dict[tuple[str, tuple[tuple[str, str], ...]], Mask] = {}
        for need, engine_id in settled:
            if engine_id in self.index:
                self.take(need, self.index[engine_id])

    def take(self, need: Need, at: int, sign: int = 1) -> None:
        """Book a camera on a machine; `sign=-1` takes it off again."""
        self.used_cpu[at] += sign * max(need.cpu, MIN_CPU)
        self.used_gpu[at] += sign * need.gpu
        for word, table in ((need.pack, self._packed), (need.spread, self._spread)):
            if word:
                table[word][at] += sign

    def loads(self) -> NDArray[np.float64]:
        """Return the (machines,) used shares of CPU or GPU, whichever is higher."""
        cpu = self.used_cpu / np.maximum(self.cpu, SLACK)
        gpu = np.where(self.gpu > 0, self.used_gpu / np.maximum(self.gpu, SLACK), 0.0)
        return np.asarray(np.maximum(cpu, gpu), float)

    def allowed(self, need: Need) -> Mask:
        """Return (machines,) bool: those that have the site and the labels."""
        key = need.site, tuple(sorted(need.labels.items()))
        if key not in self._allowed:
            self._allowed[key] = np.array([_suits(need, machine) for machine in self.machines], bool)
        return self._allowed[key]

    def fits(self, need: Need, share: float) -> Mask:
        """Return (machines,) bool: those that may run it and stay within this share."""
        fits = self.used_cpu + max(need.cpu, MIN_CPU) <= self.cpu * share + SLACK
        if need.gpu > 0:
            fits &= self.used_gpu + need.gpu <= self.gpu * share + SLACK
        return fits & self.allowed(need)

    def preferred(self, need: Need, fits: Mask) -> Mask:
        """Return (machines,) bool: those that also meet the preferences, or all if none does."""
        if need.pack:
            near = fits & (self._packed[need.pack] > 0)
            whole = fits & (self.used_cpu + self.groups[need.pack] <= self.cpu * self.target + SLACK)
            fits = next((wish for wish in (near, whole) if wish.any()), fits)
        if need.spread and (apart := fits & (self._spread[need.spread] == 0)).any():
            fits = apart
        return fits


def place(
    needs: Sequence[Need],
    machines: Sequence[Machine],
    settled: Iterable[tuple[Need, str]] = (),
    limits: Limits | None = None,
) -> Placement:
    """Place cameras by first fit decreasing up to `limits.target`.

    Cameras that do not fit may fill machines up to `high`.

    Args:
        needs: cameras without a place.
        machines: in the order in which they are filled.
        settled: cameras that stay where they are.
        limits: shares of the machines.
    """
    limits = limits or Limits()
    room = Room(machines, settled, limits.target)
    for need in needs:
        if need.pack:
            room.groups[need.pack] += max(need.cpu, MIN_CPU)

    def size(need: Need) -> tuple[float, str, float]:
        return max(room.groups[need.pack], size_of(need)) if need.pack else size_of(need), need.pack, size_of(need)

    return place_in(room, sorted(needs, key=size, reverse=True), limits)


def place_in(room: Room, needs: Sequence[Need], limits: Limits) -> Placement:
    """Place cameras in this order into the free capacity, and book them there."""
    done = Placement()
    for need in needs:
        fits = room.fits(need, limits.target)
        if not fits.any():
            fits = room.fits(need, limits.high)
        if not fits.any():
            done.unplaced[need.source_id] = _why(need, room)
            continue
        fits = room.preferred(need, fits)
        at = int(np.argmax(fits))
        if limits.rule == "least_loaded":
            at = int(np.argmin(np.where(fits, room.loads(), np.inf)))
        _book(room, need, at, done)
    return done


def place_lost(
    needs: Sequence[Need],
    machines: Sequence[Machine],
    settled: Iterable[tuple[Need, str]] = (),
    limits: Limits | None = None,
) -> Placement:
    """Place cameras that no engine publishes: each where the fewest are starting, so that all return soon.

    Filling the fullest machines first would start many cameras one after another, which triples the longest outage.
    """
    limits, room, done = limits or Limits(), Room(machines, settled), Placement()
    for need in sorted(needs, key=size_of, reverse=True):
        fits = room.fits(need, limits.high)
        if not fits.any():
            fits = room.fits(need, 1.0)
        if not fits.any():
            done.unplaced[need.source_id] = _why(need, room)
            continue
        fits = room.preferred(need, fits)
        order = np.where(fits, room.starts + np.minimum(room.loads(), 1.0) / 2, np.inf)
        _book(room, need, int(np.argmin(order)), done)
    return done


def size_of(need: Need) -> float:
    """Return how much of a machine a camera takes, to place the largest first."""
    return max(need.cpu, 8 * need.gpu)


def load_of(machines: Sequence[Machine], settled: Iterable[tuple[Need, str]]) -> Mapping[str, float]:
    """Return the used share of each machine by engine_id."""
    return dict(zip([m.engine_id for m in machines], map(float, Room(machines, settled).loads()), strict=True))


def _book(room: Room, need: Need, at: int, done: Placement) -> None:
    room.take(need, at)
    room.starts[at] += 1
    done.owners[need.source_id] = room.machines[at].engine_id


def _suits(need: Need, machine: Machine) -> bool:
    if need.site and need.site != machine.site:
        return False
    return all(machine.labels.get(key) == value for key, value in need.labels.items())


def _why(need: Need, room: Room) -> str:
    if not len(room.machines):
        return "there is no machine"
    if not room.allowed(need).any():
        wanted = [f"site {need.site}"] * bool(need.site) + [f"{key}={value}" for key, value in need.labels.items()]
        return f"no machine has {', '.join(wanted)}"
    what = f"{need.cpu:.2f} cores" + (f" and {need.gpu:.2f} of a GPU" if need.gpu else "")
    return f"no machine that may run it has {what} free"
