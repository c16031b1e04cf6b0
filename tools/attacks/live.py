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
MAX_NOTES = 900


class Attack(NamedTuple):
    """A lab with a running victim, and what attacks it.

    Attributes:
        lab: in its `with` block.
        turn: attacks once, and counts its tries; called again and again.
        memory_mb: memory that counts as returned.
        over: called at the end of the attack, before memory is compared.
        has_sources: whether the summary of the victim accounts for the frames of sources.
        exit_code: of the victim after SIGINT.
    """

    lab: Any
    turn: Callable[[Any], None]
    memory_mb: float = LIVE_LEAK_MB
    over: Callable[[], None] = lambda: None
    has_sources: bool = True
    exit_code: int = 130


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
            attack.over()

        verdict = attack.lab.play(play, memory_mb=attack.memory_mb)
    if stalled:
        print(f"{name}: {stalled}", file=sys.stderr, flush=True)
    for fault in progress.faults[:10]:
        print(f"{name}: {fault}", file=sys.stderr, flush=True)
    return _judged(name, progress, verdict, stalled, attack)


def _judged(name: str, progress: Progress, verdict: Any, stalled: str, attack: Attack) -> Result:
    """Return a verdict as the result of an attack."""
    faults = verdict.faults(memory_mb=attack.memory_mb, share=0.0, freeze_s=FREEZE_S)
    if not attack.has_sources:
        faults.pop("accounting", None)
    if verdict.exit_code == attack.exit_code:
        faults.pop("exit code", None)
    leaks = sum(name in faults for name in ("memory", "descriptors", "threads", "left behind"))
    ends = sum(name in faults for name in ("alive", "exit code", "summary", "accounting", "traceback"))
    ends += len(progress.faults)
    freezes, longest_s = int("freeze" in faults), verdict.longest_gap_s
    words = [stalled.partition("threads:")[0], *progress.faults[:2], str(verdict), str(faults or "")]
    notes = " ".join(filter(None, words))[:MAX_NOTES]
    return Result(name, progress.tries, ends, freezes, leaks, int(bool(stalled)), longest_s, notes)


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
