"""Actions of a whole run: a real engine, a real HTTP server, and a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.events.store.place import StorePlace
from engine.events.store.reader import EventReader
from pipelines.build.actions import build_actions
from pipelines.build.pipeline import build_pipeline
from pipelines.config.file import load_config
from tests.events.hooks import hook
from tests.fakes import PixelDetector

RUN = [sys.executable, "-c", "from pipelines.entry import main; main()", "run"]
PATIENCE_S = 60.0


def written(folder: Path, url: str, source: str, **action: Any) -> Path:
    """Write a configuration whose rule `moves` tells `hook` of everything that moves."""
    zone = {"points": [[0, 0], [1, 0], [1, 1], [0, 1]], "enter_s": 0}
    config = {
        "sources": [{"uri": source, "source_id": "cam", "zones": {"all": zone}}],
        "detector": {"model": "motion"},
        "analytics": {"min_score": 0, "min_seen_s": 0},
        "rules": [
            {"name": "moves", "kind": "presence", "zone": "all", "for_s": 0, "severity": "alert", "actions": ["hook"]}
        ],
        "actions": {"hook": {"kind": "webhook", "url": url, "cooldown_s": 0, "per_hour": 1000, **action}},
        "events": {"folder": str(folder / "events")},
        "publish": {"address": "none"},
        "pipeline": {"engine_id": "engine"},
    }
    path = folder / "run.yaml"
    path.write_text(json.dumps(config))
    return path


def test_a_run_tells_of_every_event_and_counts_it(tmp_path: Path) -> None:
    with hook() as server:
        config = written(tmp_path, server.url, "synthetic://?width=160&height=120&fps=10&count=60&objects=2", end=True)
        done = subprocess.run([*RUN, str(config), "--json"], capture_output=True, text=True, timeout=100, check=True)
    summary = json.loads(done.stdout.splitlines()[-1])
    with EventReader(StorePlace(tmp_path / "events")) as reader:
        events = reader.page().events
        rows = [row for event in events for row in reader.actions(event.event_id)]
    assert events
    assert {row.state for row in rows} == {"sent"}
    assert sorted(server.keys()) == sorted(f"{row.event_id}-{row.phase}" for row in rows)
    assert summary["actions"]["hook"]["sent"] == len(rows)
    assert {body["phase"] for body in server.bodies()} == {"begin", "end"}


def test_a_killed_engine_delivers_after_its_restart(tmp_path: Path) -> None:
    source = "synthetic://?width=160&height=120&fps=10&objects=2&realtime=1"
    with hook() as server:
        server.answers = [503] * 3
        config = written(tmp_path, server.url, source)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        first = subprocess.Popen([*RUN, str(config)], **quiet)  # type: ignore[call-overload]
        try:
            assert server.arrived.wait(PATIENCE_S)
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
        with EventReader(StorePlace(tmp_path / "events")) as reader:
            left = [event.event_id for event in reader.page().events]
        second = subprocess.Popen([*RUN, str(config)], **quiet)  # type: ignore[call-overload]
        deadline = time.monotonic() + PATIENCE_S
        try:
            while not {f"{event_id}-begin" for event_id in left} <= set(server.keys()):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            second.send_signal(signal.SIGINT)
            assert second.wait(PATIENCE_S) == 130
        finally:
            second.kill()
            second.wait()
    assert left
    assert max(Counter(server.keys()).values()) <= 2


def config_of(actions: dict[str, Any], **more: Any) -> Any:
    rule = {"name": "r", "kind": "count", "zone": "all", "at_least": 1, "actions": list(actions)}
    zone = {"points": [[0, 0], [1, 0], [1, 1], [0, 1]]}
    sources = [{"uri": "synthetic://", "source_id": "cam", "zones": {"all": zone}}]
    given = {"sources": sources, "rules": [rule], "actions": actions, "events.folder": "/nowhere", **more}
    return load_config(None, {"publish.address": "none", **given})


HOOK = {"kind": "webhook", "url": "http://127.0.0.1/x"}


@pytest.mark.parametrize(
    ("actions", "more", "text"),
    [
        ({"a": {"kind": "webhook"}}, {}, "actions.a: kind webhook needs url"),
        ({"a": {"kind": "webhook", "url": "ftp://x"}}, {}, "actions.a: the webhook is not an http or https URL"),
        ({"a": {"kind": "webhook", "url": ["http://a", "http://b"]}}, {}, "actions.a: url: kind webhook takes one"),
        ({"a": {**HOOK, "topic": "x"}}, {}, "actions.a: topic does not apply to kind webhook"),
        ({"a": {"kind": "mqtt", "url": "http://x", "topic": "x"}}, {}, "actions.a: url: expected mqtt://"),
        ({"a": {"kind": "command", "command": ["/no/such"]}}, {}, "actions.a: command: /no/such"),
        ({"a": {"kind": "record"}}, {}, "actions.a: kind record needs for_s"),
        ({"a": {**HOOK, "schedule": {"days": ["someday"]}}}, {}, "actions.a: schedule: days: 'someday'"),
        ({"a": HOOK}, {"events.folder": None}, "set events.folder"),
    ],
)
def test_a_mistake_is_refused_with_its_key(actions: dict[str, Any], more: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_actions(config_of(actions, **more), lambda source_id, seconds: None)
    assert text in str(caught.value)


def test_a_rule_with_an_unknown_action_is_refused() -> None:
    config = config_of({"phone": HOOK}).model_copy(update={"actions": {}})
    with pytest.raises(ConfigError, match=r"rules.0.actions: there is no action 'phone'"):
        build_pipeline(config, make_detector=lambda *_: PixelDetector())
