"""Attacks a parser in worker processes: one that dies or hangs is reported with its last input, and replaced."""

from __future__ import annotations

import faulthandler
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from engine.process import peak_memory_mb
from tools.attacks.parsers import Surface, Try
from tools.attacks.progress import SHOWN_BYTES, LastInput
from tools.attacks.results import FREEZE_S, LEAK_MB, Result

LAST = "last_input"
WARM_TRIES = 200
CHILD_S = 150.0
"""A trial of a model waits this much longer, for its child."""
HUNG = "Timeout ("
"""How `faulthandler` begins its report of a process that it ends."""
END_S = 30.0


class Alarm:
    """Ends this process, and writes the stacks of its threads to stderr, unless it is set again in time.

    It also works while C code holds the interpreter's lock. Setting it starts a thread, so not every call sets it.

    Args:
        seconds: from the last call of `set` that had an effect.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._set_at = seconds, 0.0

    def set(self) -> None:
        """Begin the time again."""
        now = time.monotonic()
        if now - self._set_at > min(self._seconds / 10, 1.0):
            self._set_at = now
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=sys.stderr.fileno())

    def cancel(self) -> None:
        """Let the process live."""
        faulthandler.cancel_dump_traceback_later()


def work(name: str, surface: Surface, seconds: float, seed: int, folder: Path, stall_s: float) -> Result:
    """Attack one surface in this process until the time is up.

    Args:
        name: of the surface.
        surface: yields the tries.
        seconds: for all of them.
        seed: of the damages.
        folder: for files.
        stall_s: longest time for one try; after that, this process ends.
    """
    result, deadline, warm_mb = Result(name), time.monotonic() + seconds, 0.0
    alarm = Alarm(stall_s + (CHILD_S if name == "models" else 0.0))
    last = LastInput(folder / LAST)
    alarm.set()
    for each in surface(random.Random(seed), folder):
        last.keep(each.body)
        alarm.set()
        _try(each, result)
        if result.tries == WARM_TRIES:
            warm_mb = peak_memory_mb()
        if time.monotonic() > deadline:
            break
    alarm.cancel()
    grown_mb = peak_memory_mb() - warm_mb if warm_mb else 0.0
    result.leaks = int(grown_mb > LEAK_MB)
    result.notes = f"{result.notes} memory grew by {grown_mb:.0f} MB".strip()
    return result


def _try(one: Try, result: Result) -> None:
    """Perform an attack, and record how long it took and whether it failed."""
    begun = time.monotonic()
    try:
        one.act()
    except Exception as error:  # noqa: BLE001 - whatever it is, it was not promised
        result.ends += 1
        result.notes = f"{type(error).__name__}: {error}"[:200] + f" by {one.body[:SHOWN_BYTES]!r}"
    spent_s = time.monotonic() - begun
    result.freezes += spent_s > FREEZE_S and result.surface != "models"  # a trial waits for its child
    if spent_s > FREEZE_S > result.longest_s and not result.notes:
        result.notes = f"{spent_s:.2f} s for {one.body[:SHOWN_BYTES]!r}"
    result.tries, result.longest_s = result.tries + 1, max(result.longest_s, spent_s)


class _Done(NamedTuple):
    code: int | None
    output: str
    errors: str


def in_workers(name: str, command: Sequence[str], seconds: float, seed: int, stall_s: float) -> Result:
    """Attack one surface in worker processes; one that dies or hangs is replaced, with another seed.

    Args:
        name: of the surface.
        command: starts a worker; `--minutes`, `--seed` and `--folder` are added.
        seconds: for all of them.
        seed: of the first one.
        stall_s: as for `work`. A worker that does not end itself then is killed a little later.
    """
    total, deadline = Result(name), time.monotonic() + seconds
    while (left_s := deadline - time.monotonic()) > 0.5:
        with tempfile.TemporaryDirectory(prefix="fw-attack-") as folder:
            more = ["--minutes", str(left_s / 60), "--seed", str(seed), "--folder", folder]
            done = _run([*command, *more], left_s + stall_s + CHILD_S + END_S)
            last = LastInput.read(Path(folder) / LAST)
        if done.code == 0:
            total.add(Result(**json.loads(done.output.splitlines()[-1])))
        elif done.code is None or HUNG in done.errors:
            total.stalls += 1
            total.notes = f"seed {seed}: stalled; last input: {last[:SHOWN_BYTES]!r}"
            print(f"{name}: {total.notes}\n{done.errors}", file=sys.stderr)
        else:
            total.ends += 1
            said = f"ended with {done.code}: {done.errors[-200:]}; last input: {last[:SHOWN_BYTES]!r}"
            total.notes = f"seed {seed}: worker {said}"
        seed += 1
    return total


def _run(command: list[str], limit_s: float) -> _Done:
    """Run a command; its code is None if it had to be killed."""
    with tempfile.TemporaryFile("w+", errors="replace") as errors:  # OpenCV logs every damaged file
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            try:
                output, _ = process.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                return _Done(None, "", f"killed after {limit_s:.0f} s: {_end_of(errors)}")
        return _Done(process.returncode, output, _end_of(errors))


def _end_of(file: IO[str], most: int = 4000) -> str:
    file.seek(max(file.seek(0, 2) - most, 0))
    return file.read()
