"""Changes of a run that keeps events: snoozed actions, and edits of its rules."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.errors import ConfigError
from engine.events.log import EventLog
from engine.events.store.database import StoreError
from engine.events.store.place import StorePlace
from engine.events.store.reader import EventFilter, EventReader
from engine.events.store.rows import EventRow
from engine.flow.pipeline import Pipeline
from engine.sources.open import open_source
from pipelines.running.snoozing import snooze
from tests.fakes import OneTracker, PixelDetector

PATIENCE_S = 60.0
CORNERS = [[0, 0], [1, 0], [1, 1], [0, 1]]
CAMERA = "synthetic://?realtime=1&fps=10&width=64&height=48&objects=1&count=100000"


def wait_for(find: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_S
    while True:
        found = find()
        if found:
            return found
        assert time.monotonic() < end
        time.sleep(0.05)


def test_actions_of_a_source_are_snoozed_until_a_time(tmp_path: Path) -> None:
    log = EventLog(StorePlace(tmp_path))
    camera = open_source(CAMERA, source_id="gate")
    with Pipeline(camera, PixelDetector(), OneTracker(), log) as pipeline:
        frames = iter(pipeline)
        assert next(frames) is not None
        assert snooze(pipeline, "gate", 7200) == "no actions for gate for 7200 s"
        assert snooze(pipeline, "all", 60) == "no actions for all for 60 s"
        with pytest.raises(ConfigError, match="no source yard; expected one of: gate, or all"):
            snooze(pipeline, "yard", 1)
        for wrong in (-1, float("nan"), 1e12):
            with pytest.raises(ConfigError, match="expected 0 to"):
                snooze(pipeline, "gate", wrong)
    with EventReader(log.place) as reader:
        now = time.time_ns()
        rows = {row.source_id: (row.until_utc_ns - now) / 1e9 for row in reader.snoozes(now)}
        assert rows["gate"] == pytest.approx(7200, abs=PATIENCE_S)
        assert set(rows) == {"gate", ""}


def test_without_a_log_there_is_nothing_to_snooze() -> None:
    with Pipeline(open_source(CAMERA, source_id="gate"), PixelDetector(), OneTracker()) as pipeline:
        with pytest.raises(ConfigError, match=r"set events\.folder"):
            snooze(pipeline, "gate", 1)


def test_nonsense_in_the_file_leaves_open_episodes_alone_and_another_rule_ends_them(tmp_path: Path) -> None:
    place, file = StorePlace(tmp_path / "events"), tmp_path / "run.yaml"
    camera = "synthetic://?realtime=1&fps=10&width=320&height=240&objects=3&seed=5"
    rule = {"name": "anybody", "kind": "count", "zone": "yard", "at_least": 1, "severity": "alert", "clear_s": 60}
    tree = {
        "sources": [{"uri": camera, "source_id": "gate", "zones": {"yard": {"points": CORNERS}}}],
        "detector": {"model": "motion"},
        "analytics": {"min_score": 0, "min_seen_s": 0.1},
        "rules": [rule],
        "publish": {"address": "none"},
        "control": {"watch": True},
        "events": {"folder": str(place.folder)},
    }  # fmt: skip
    file.write_text(yaml.safe_dump(tree))
    command = [sys.executable, "-m", "pipelines", "run", str(file), "--json"]
    errors = tmp_path / "errors.txt"
    with open(errors, "wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)

    def events(**wanted: Any) -> list[EventRow]:
        assert process.poll() is None, errors.read_text()
        try:
            with EventReader(place) as reader:
                return list(reader.events(EventFilter(**wanted)))
        except StoreError:
            return []

    try:
        [open_one] = wait_for(lambda: events(is_open=True))
        for text in ("rules: [{name: anybody, kind: nonsense}]", "sources: 5\n: : ["):
            file.write_text(text)
            already = errors.read_text().count("run.yaml")
            wait_for(lambda n=already: errors.read_text().count("run.yaml") > n)
            assert [event.event_id for event in events(is_open=True)] == [open_one.event_id]
        file.write_text(yaml.safe_dump({**tree, "rules": [{**rule, "severity": "notice"}]}))
        wait_for(lambda: [event for event in events(is_open=False) if event.reason == "rule_changed"])
        [again] = wait_for(lambda: events(is_open=True))
        assert again.event_id != open_one.event_id
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    with EventReader(place) as reader:
        assert [event.reason for event in reader.events()] == ["engine_stopped", "rule_changed"]
