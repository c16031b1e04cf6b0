"""`tools/attack.py` must say when an attack no longer attacks: its zeros would otherwise look like a success."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.clock import FakeClock
from tests.hostile.lab import CHECKOUT
from tools.attacks.live import Attack, on_engine
from tools.attacks.progress import LastInput, Progress, watched
from tools.attacks.results import Result
from tools.attacks.streams import streams
from tools.attacks.worker import in_workers

HUNG = """
import argparse, random, re, sys
from pathlib import Path
from tools.attacks.parsers import Try
from tools.attacks.worker import work
parser = argparse.ArgumentParser()
for name in ("minutes", "seed", "folder"):
    parser.add_argument("--" + name)
given = parser.parse_args()

def surface(rng, folder):
    yield Try(b"harmless", lambda: None)
    yield Try(b"the culprit", lambda: re.match("(a+)+$", "a" * 60 + "b"))  # holds the interpreter's lock for years

work("hung", surface, float(given.minutes) * 60, 1, Path(given.folder), 1.0)
"""


def test_a_camera_that_no_one_asks_any_more_is_a_stall(capfd: pytest.CaptureFixture[str]) -> None:
    """As happened once: 208 tries in 15 minutes, reported without a word."""

    @contextmanager
    def abandoned(rng: random.Random, progress: Progress, folder: Path) -> Iterator[Attack]:
        with streams(rng, progress, folder) as attack:

            def turn(engine: object) -> None:
                if "evil" in attack.lab.engine.ask({"command": "status"})["configured"]:
                    attack.lab.engine.ask({"command": "remove", "source_id": "evil"})
                attack.turn(engine)

            yield Attack(attack.lab, turn)

    result = on_engine("streams", abandoned, 120.0, 1, 3.0)
    assert result.tries > 0
    assert result.stalls == 1
    assert not result.is_good
    report = capfd.readouterr().err
    for part in ("no try for", "last input", "state: ", "'healthy'", "threads:", "serve_forever"):
        assert part in report


def test_the_report_of_a_hanging_attack_names_its_last_input_and_its_place() -> None:
    over, progress = threading.Event(), Progress(0.5)

    def hangs() -> None:
        progress.tried(b"the last one", 7)
        over.wait(600)

    try:
        report = watched(hangs, progress, lambda: "engine: asleep")
    finally:
        over.set()
    assert progress.tries == 7
    for part in ("after 7", "b'the last one'", "engine: asleep", "in hangs"):
        assert part in report


def test_a_state_that_cannot_be_asked_for_is_reported_too() -> None:
    def fails() -> str:
        raise TimeoutError("no reply within 10 s")

    assert "TimeoutError: no reply within 10 s" in Progress().report(fails)


def test_what_an_attack_raises_is_not_swallowed() -> None:
    def breaks() -> None:
        raise KeyError("a bug of the tool")

    with pytest.raises(KeyError):
        watched(breaks, Progress(), str)


def test_each_try_begins_the_time_again() -> None:
    clock = FakeClock()
    progress = Progress(10.0, clock)
    for _ in range(5):
        clock.advance(9.0)
        assert not progress.is_stalled
        progress.tried("x")
    clock.advance(10.5)
    assert progress.is_stalled


def test_a_parser_that_never_returns_is_a_stall(capfd: pytest.CaptureFixture[str]) -> None:
    program = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r})\n{HUNG}"
    result = in_workers("hung", [sys.executable, "-c", program], 1.5, 1, 1.0)
    assert result.stalls >= 1
    assert not result.is_good
    assert "the culprit" in result.notes
    assert "<lambda>" in capfd.readouterr().err


def test_a_worker_that_dies_is_an_end_with_its_last_input(tmp_path: Path) -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(CHECKOUT)!r})
from pathlib import Path
from tools.attacks.progress import LastInput
LastInput(Path(sys.argv[sys.argv.index("--folder") + 1]) / "last_input").keep(b"the culprit")
os.abort()
"""
    result = in_workers("dead", [sys.executable, "-c", program], 1.0, 1, 1.0)
    assert (result.ends >= 1, result.stalls) == (True, 0)
    assert "the culprit" in result.notes


def test_the_last_input_outlives_its_writer(tmp_path: Path) -> None:
    last = LastInput(tmp_path / "last")
    for body in (b"x" * 100, b"short", b"y" * 10**6):
        last.keep(body)
        assert body.startswith(LastInput.read(tmp_path / "last"))
        assert len(LastInput.read(tmp_path / "last")) == min(len(body), 65532)
    assert LastInput.read(tmp_path / "none") == b""


def test_the_notes_of_a_fault_are_kept() -> None:
    total = Result("x")
    total.add(Result("x", 5, ends=1, notes="a fault"))
    total.add(Result("x", 5, notes="nothing special"))
    assert (total.tries, total.ends, total.notes) == (10, 1, "a fault")
