"""A release reads what the release before it left: configuration, event log, totals and accounts, from stored files."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.events.store.database import NewerStoreError
from engine.events.store.place import StorePlace
from engine.events.store.reader import EventReader
from pipelines.cli import app
from pipelines.config.file import load_config
from pipelines.config.versions import CURRENT
from pipelines.web.access import Accounts
from tests.test_layout import CHECKOUT

STORED = CHECKOUT / "tests" / "golden" / "state"
COMMAND = [sys.executable, "-c", "from pipelines.entry import main; main()"]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The stored state in a folder, as a run left it."""
    for name in ("cameras.yaml", "totals.json"):
        shutil.copy(STORED / name, tmp_path)
    (tmp_path / "events").mkdir()
    restore(STORED / "events.sql", tmp_path / "events")
    restore(STORED / "users.sql", tmp_path)
    return tmp_path


def restore(dump: Path, folder: Path) -> None:
    text = dump.read_text()
    path = folder / text.partition("\n")[0].removeprefix("-- ")
    rows = sqlite3.connect(path)
    rows.executescript(text)
    rows.close()
    path.chmod(0o600)


def framewire(folder: Path, *words: str) -> str:
    environment = {"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run([*COMMAND, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def crossings(facts: Any) -> int:
    return sum(facts["analytics"]["cam"]["lines"]["middle"].values())


def test_a_run_goes_on_with_the_state_of_the_release_before(state: Path) -> None:
    totals = json.loads((state / "totals.json").read_text())["cam"]["counters"]["crossings"]["middle"]
    before = sum(n for by in totals.values() for n in by.values())
    with closing(sqlite3.connect(state / "events" / "events.sqlite")) as stored:  # the engine migrates it
        known = {event_id: bool(kept) for event_id, kept in stored.execute("SELECT event_id, kept FROM event")}
        [(counted,)] = stored.execute("SELECT sum(n) FROM counted WHERE source_id = 'cam'")
    assert min(before, len(known), counted) > 0, "the stored state is empty"

    facts = json.loads(framewire(state, "run", "cameras.yaml", "--max-frames", "60", "--json").splitlines()[-1])
    assert crossings(facts) >= before, "the totals began at nothing"

    with EventReader(StorePlace(state / "events")) as reader:
        events = {event.event_id: event for event in reader.events()}
        kept = {name for name, event in events.items() if event.kept}
        assert kept == {name for name, is_kept in known.items() if is_kept}
        assert reader.reviewed("anna", list(events)) == kept
        assert events.keys() > known.keys(), "nothing new was stored beside the old events"
        assert not [event for event in events.values() if event.ended_utc_ns is None], "an old episode stays open"
        assert sum(row.n for row in reader.counts("cam", 0, 2**62)) > counted


def test_the_stored_configuration_is_migrated_and_means_the_same(state: Path) -> None:
    file = state / "cameras.yaml"
    before = load_config(str(file), {})
    done = CliRunner().invoke(app, ["config", "migrate", str(file), "--write"])
    assert done.exit_code == 0, done.output
    text = file.read_text()
    assert f"version: {CURRENT}" in text
    assert "# plays as fast as it can" in text
    assert load_config(str(file), {}) == before


def test_accounts_of_the_release_before_log_in(state: Path) -> None:
    accounts = Accounts(state / "users.sqlite")
    anna = accounts.check("anna", "correct horse battery")
    accounts.close()
    assert anna is not None
    assert (anna.role, anna.sources) == ("operator", {"cam"})


def test_an_event_log_of_a_later_release_is_refused_and_left_as_it_is(state: Path) -> None:
    (path,) = (state / "events").glob("*.sqlite")
    rows = sqlite3.connect(path)
    rows.execute("update meta set value = '99' where name = 'version'")
    rows.commit()
    rows.close()
    before = path.read_bytes()
    with pytest.raises(NewerStoreError), EventReader(StorePlace(state / "events")):
        pass
    assert path.read_bytes() == before
