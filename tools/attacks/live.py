"""Attacks on a running engine, or on another process that is judged like one."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tools.attacks.progress import Progress, watched
from tools.attacks.results import FREEZE_S, LIVE_LEAK_MB, Result

TURN_S = 0.2


class Attack(NamedTuple):
    """A lab with a running victim, and what attacks it.

    Attributes:
        lab: in its `with` block.
        turn: attacks once, and counts its tries; called again and again.
        memory_mb: memory that counts as returned.
    """

    lab: Any
    turn: Callable[[Any], None]
    memory_mb: float = LIVE_LEAK_MB


Start = Callable[[random.Random, Progress, Path], AbstractContextManager[Attack]]
Starting = Iterator[Attack]


def on_engine(name: str, start: Start, seconds: float, seed: int, stall_s: float) -> Result:
    """Attack a running engine for this long, and judge it.

    Args:
        name: of the surface.
        start: starts the victim and returns the attack on it.
        seconds: for the attack, without start and end of the victim.
        seed: of the damages.
        stall_s: longest time between two tries; then the attack ends and counts as stalled.
    """
    progress, stalled = Progress(stall_s), ""
    with (
        tempfile.TemporaryDirectory(prefix="fw-attack-") as folder,
        start(random.Random(seed), progress, Path(folder)) as attack,
    ):

        def play(engine: Any) -> None:
            nonlocal stalled
            over = time.monotonic() + seconds

            def turns() -> None:
                while time.monotonic() < over and engine.alive and not progress.is_stalled:
                    attack.turn(engine)

            stalled = watched(turns, progress, lambda: state_of(engine))

        verdict = attack.lab.play(play, memory_mb=attack.memory_mb)
    if stalled:
        print(f"{name}: {stalled}", file=sys.stderr, flush=True)
    return judged(name, progress.tries, verdict, stalled, attack.memory_mb)


def judged(name: str, tries: int, verdict: Any, stalled: str = "", memory_mb: float = LIVE_LEAK_MB) -> Result:
    """Return a verdict as the result of an attack."""
    faults = verdict.faults(memory_mb=memory_mb, share=0.0, freeze_s=FREEZE_S)
    leaks = sum(name in faults for name in ("memory", "descriptors", "threads", "left behind"))
    ends = sum(name in faults for name in ("alive", "exit code", "summary", "accounting", "traceback"))
    notes = f"{stalled.partition('threads:')[0]} {verdict} {faults or ''}".strip()[:900]
    return Result(name, tries, ends, int("freeze" in faults), leaks, int(bool(stalled)), verdict.longest_gap_s, notes)


def state_of(engine: Any) -> str:
    """Return what a victim and its child processes do: their state, their last words, and the sources of an engine."""
    lines = []
    root = psutil.Process(engine.pid)
    for process in [root, *root.children(recursive=True)]:
        words = " ".join(process.cmdline()[:6])[:120]
        times = process.cpu_times()
        lines.append(f"{process.pid} {process.status()} cpu {times.user + times.system:.1f} s: {words}")
    if hasattr(engine, "ask"):
        lines.append(str(engine.ask({"command": "status"}).get("sources")))
    return "\n".join([*lines, engine.errors()[-1000:]])


def nothing(engine: Any) -> None:
    """Wait while others, such as a hostile camera, attack."""
    time.sleep(TURN_S)
