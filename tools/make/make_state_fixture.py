#!/usr/bin/env python3
"""Write the state that a run leaves behind to tests/golden/state, to test that later releases can read it.

usage: python tools/make/make_state_fixture.py [--folder tests/golden/state]

Run this only when a version of the configuration, the event log or the totals is raised, using the previous release, so
that the files come from release N-1. It writes the configuration, the totals, the accounts and the event log; databases
are written as SQL text, so that changes are readable.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.events.store.place import StorePlace
from engine.events.store.reader import EventReader
from engine.events.store.writer import StoreWriter
from pipelines.web.access import Accounts

ROOT = Path(__file__).resolve().parents[2]
SCENE = "synthetic://?width=640&height=360&fps=10&objects=2&seed=5"
CONFIG = f"""\
# A camera with a line, a zone and two rules.
version: 1
sources:
  - uri: "{SCENE}&count=150"  # plays as fast as it can
    source_id: cam
    lines: {{middle: {{points: [[0.5, 0.0], [0.5, 1.0]], left_to_right: in, right_to_left: out}}}}
    zones: {{all: {{points: [[0.02, 0.02], [0.98, 0.02], [0.98, 0.98], [0.02, 0.98]]}}}}
detector:
  model: tests.pipelines.web.page.truth:TruthDetector
  parameters: {{uri: "{SCENE}"}}
tracker: {{type: "tests.pipelines.web.page.truth:RestlessTracker"}}
rules:
  - {{name: passing, kind: line, line: middle, severity: alert}}
  - {{name: busy, kind: presence, zone: all, for_s: 0.5}}
publish: {{address: none}}
pipeline: {{engine_id: site}}
analytics: {{state: totals.json}}
events: {{folder: events}}
"""


def run(folder: Path) -> None:
    """Run the configuration in a folder."""
    (folder / "cameras.yaml").write_text(CONFIG)
    command = [sys.executable, "-c", "from pipelines.entry import main; main()", "run", "cameras.yaml", "--json"]
    subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"}, check=True)


def dump(database: Path) -> str:
    """Return a database as SQL."""
    with sqlite3.connect(database) as rows:
        rows.execute("pragma wal_checkpoint(truncate)")
        return "\n".join(rows.iterdump()) + "\n"


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "tests" / "golden" / "state")
    return parser.parse_args()


def _review_first(place: StorePlace) -> None:
    with EventReader(place) as reader:
        first = reader.page().events[0].event_id
    with StoreWriter.edit(place) as store:
        store.review(first, "anna", 1)
        store.keep(first, kept=True)


def main() -> int:
    """Write the files."""
    given = _options()
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(folder)
        _review_first(StorePlace(folder / "events"))
        accounts = Accounts(folder / "users.sqlite")
        accounts.add_user("anna", "correct horse battery", "operator", ["cam"])
        accounts.close()
        (given.folder / "cameras.yaml").write_text(CONFIG)
        totals = json.loads((folder / "totals.json").read_text())
        (given.folder / "totals.json").write_text(json.dumps(totals, indent=1) + "\n")
        (database,) = (folder / "events").glob("*.sqlite")
        (given.folder / "events.sql").write_text(f"-- {database.name}\n{dump(database)}")
        (given.folder / "users.sql").write_text(f"-- users.sqlite\n{dump(folder / 'users.sqlite')}")
    print(f"wrote {given.folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
