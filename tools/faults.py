#!/usr/bin/env python3
"""Run every fault of `tests/faults` against an engine, and write the table `docs/faults.md`.

usage: tools/faults.py [--only WORDS] [--write] [--json]
`--write` replaces the lines of the faults that were run and keeps the others. Exit code 1 if any check failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.faults.catalogue import FAULTS, NotPlayableError  # noqa: E402
from tests.faults.lab import Lab, Outcome  # noqa: E402
from tests.rtsp_server import missing_server  # noqa: E402

HEAD = """# What faults do to Framewire

Each line is one run of a real engine (`engine.Pipeline`, a detector that takes 2 ms) on two RTSP cameras of 320x240 at
25 fps, served by GStreamer on loopback. The fault is played to the first camera, the *victim*. Made by
`tools/faults.py --write` on a machine with {cpus} cores that was not idle ({system}). Figures are frames per second /
99th percentile of the age at publishing in ms; *before, during, after* the fault.

- **recovery**: from the end of the fault to the first frame; for half-open TCP, the fault has no end on the camera's
  side.
- **dropped**: frames of the victim that arrived but were not published, by cause. In every run, for both cameras, two
  things are checked: captured = published + dropped (*accounted*), and no stream time was repeated or went back within
      a connection (*genuine*: nothing repeated, nothing invented). The engine stopped within 0.9 s after every run.

| fault | victim | healthy camera | states of the victim | recovery | dropped | accounted, genuine |
|---|---|---|---|---|---|---|
"""


def row(name: str, outcome: Outcome) -> str:
    """Return the line of the table for one fault."""
    recovery = "none, as expected" if outcome.recovery_s is None else f"{outcome.recovery_s:.2f} s"
    dropped = {cause: n for cause, n in outcome.sources["victim"]["dropped"].items() if cause != "shutdown"}
    states = " → ".join(outcome.states) or "live"
    words = [reason.split(":")[0] for reason in outcome.reasons] + list(outcome.notes)
    if words:
        states += f" ({'; '.join(words)})"
    checks = f"{'yes' if outcome.is_accounted else 'NO'}, {'yes' if outcome.is_genuine else 'NO'}"
    if not outcome.stopped_in_time:
        checks += ", STOP WAS LATE"
    figures = [" · ".join(str(phase) for phase in phases) for phases in (outcome.victim, outcome.healthy)]
    return f"| {name} | {figures[0]} | {figures[1]} | {states} | {recovery} | {json.dumps(dropped)} | {checks} |"


def is_good(outcome: Outcome) -> bool:
    """Return whether all conditions required after a fault hold."""
    return outcome.is_accounted and outcome.is_genuine and outcome.stopped_in_time


def write(rows: dict[str, str]) -> None:
    """Update lines in the table of `docs/faults.md`, in the order of the catalogue; other lines and the notes stay."""
    page = ROOT / "docs" / "faults.md"
    table, _, notes = page.read_text(encoding="utf-8").partition("\n## Reading it")  # the notes are written by hand
    known = {line.split(" | ")[0][2:]: line for line in table.splitlines() if line.startswith("| ")}
    lines = [line for name in FAULTS if (line := {**known, **rows}.get(name))]
    head = HEAD.format(cpus=os.cpu_count(), system=f"{platform.system()} {platform.machine()}")
    page.write_text(head + "\n".join(lines) + "\n\n## Reading it" + notes, encoding="utf-8")


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="run faults whose name contains this")
    parser.add_argument("--write", action="store_true", help="write docs/faults.md")
    parser.add_argument("--json", action="store_true", help="print one JSON line instead of the table")
    return parser.parse_args()


def _chosen(part: str) -> dict[str, Callable[[], Outcome]]:
    """Return the faults whose name contains a text; exits if there are none, or the RTSP server is missing."""
    if missing_server():
        sys.exit(missing_server())
    chosen = {name: fault for name, fault in FAULTS.items() if part in name}
    return chosen or sys.exit(f"no fault matches {part!r}: expected part of one of {', '.join(FAULTS)}")


def _played(name: str, fault: Callable[[], Outcome]) -> Outcome | None:
    """Return the outcome of a fault; None if it cannot be played here."""
    try:
        return fault()
    except NotPlayableError as error:
        print(f"{name}: not run: {error}", file=sys.stderr)
        return None


def main() -> int:
    """Run the faults, print the table, and write it if requested."""
    args = _options()
    chosen = _chosen(args.only)
    Lab.around_s = 3.0
    print(*HEAD.splitlines()[-2:], sep="\n", file=sys.stderr if args.json else sys.stdout)
    rows: dict[str, str] = {}
    outcomes: dict[str, Outcome] = {}
    for name, fault in chosen.items():
        outcome = _played(name, fault)
        if outcome is None:
            continue
        outcomes[name] = outcome
        rows[name] = row(name, outcomes[name])
        print(rows[name], file=sys.stderr if args.json else sys.stdout, flush=True)
    if args.json:
        print(json.dumps({name: dataclasses.asdict(outcome) for name, outcome in outcomes.items()}))
    if args.write:
        write(rows)
    return 0 if all(map(is_good, outcomes.values())) else 1


if __name__ == "__main__":
    raise SystemExit(main())
