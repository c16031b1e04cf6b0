"""`framewire events` and `framewire rules` on a log."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from engine.analytics.analytics import Analytics
from engine.analytics.places import Zone
from engine.analytics.rules import Blind, Count
from engine.clock import SYSTEM_CLOCK
from engine.errors import ConfigError, SinkError
from engine.events.log import EventLog
from engine.events.store.place import StorePlace
from engine.events.store.reader import EventFilter, EventReader
from engine.events.store.rows import MediaRow
from engine.events.store.writer import StoreWriter
from pipelines.history.deleting import Span, delete, planned
from pipelines.history.exporting import export
from pipelines.history.replay import replay
from pipelines.history.times import span_s, utc_ns_of
from tests.events import scenes
from tests.events.scenes import NS
from tests.events.test_log import keep
from tests.preforked import Preforked

KEYS = [
    "event_id",
    "source_id",
    "rule",
    "severity",
    "place",
    "began_utc_ns",
    "ended_utc_ns",
    "reason",
    "track_ids",
    "snapshot",
    "clip",
    "clip_state",
]
NOW = SYSTEM_CLOCK.utc_ns() - 600 * NS
VIENNA = ZoneInfo("Europe/Vienna")
Ask = Callable[..., subprocess.CompletedProcess[str]]
Listed = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of one walk, ten minutes ago."""
    folder = tmp_path_factory.mktemp("log")
    run = scenes.run(NOW)
    offset = NOW - scenes.UTC
    keep(StorePlace(folder), scenes.walk(of=run, step_ns=offset), of=run)
    return folder


@pytest.fixture
def framewire(preforked: Preforked) -> Ask:
    return preforked.run


@pytest.fixture
def listed(framewire: Ask) -> Listed:
    def rows(*words: str) -> list[dict[str, Any]]:
        found = framewire("events", "list", "--json", *words)
        assert found.returncode == 0, found.stderr
        return [json.loads(line) for line in found.stdout.splitlines()]

    return rows


def test_list_prints_one_object_per_line_with_the_promised_keys(
    framewire: Ask, listed: Listed, folder: Path, tmp_path: Path
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"events": {"folder": str(folder)}, "site": {"timezone": "Europe/Vienna"}}))
    found = listed("--config", str(config))
    assert [event["rule"] for event in found] == ["entry", "intruder"]
    assert all(key in event for event in found for key in KEYS)
    assert found[1]["track_ids"] == [1]
    assert listed("--folder", str(folder), "--severity", "alert", "--from", "1h", "--limit", "1") == found[1:]
    text = framewire("events", "list", "--folder", str(folder)).stdout.splitlines()
    assert "intruder: person at yard" in text[1]


def test_show_and_keep(framewire: Ask, folder: Path) -> None:
    event_id = f"gate-{NOW}-intruder-1"
    assert framewire("events", "keep", event_id, "--folder", str(folder)).returncode == 0
    shown = json.loads(framewire("events", "show", event_id, "--folder", str(folder), "--json").stdout)
    assert (shown["kept"], shown["why"], shown["actions"]) == (True, ["in yard for 1.00 s >= for_s 1"], [])
    unknown = framewire("events", "show", "nothing", "--folder", str(folder))
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "there is no event nothing" in unknown.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["list"], "give --config FILE"),
        (["list", "--folder", "{folder}", "--severity", "bad"], "expected one of: info, notice, alert"),
        (["list", "--folder", "{folder}", "--from", "yesterday"], "expected a time as"),
        (["list", "--folder", "{folder}", "--from", "1h", "--to", "2h"], "is not before"),
        (["delete", "--folder", "{folder}", "--source", "gate", "--from", "1d", "--to", "0s"], "give --yes"),
        (["list", "--folder", "{folder}", "--store", "mysql://host/x"], "expected postgresql://"),
    ],
)
def test_what_cannot_work_is_explained(framewire: Ask, folder: Path, words: list[str], why: str) -> None:
    found = framewire("events", *(word.format(folder=folder) for word in words))
    assert found.returncode == 2
    assert why in " ".join(found.stderr.split())


def test_the_rules_of_a_configuration_are_asked_about_the_past(
    framewire: Ask, listed: Listed, folder: Path, tmp_path: Path
) -> None:
    config = tmp_path / "new.yaml"
    rules = [
        {"name": "intruder", "kind": "presence", "zone": "yard", "for_s": 1, "severity": "alert"},
        {"name": "entry", "kind": "line", "line": "door"},
        {"name": "patient", "kind": "presence", "zone": "yard", "for_s": 60},
    ]
    places = {
        "zones": {"yard": {"points": [[0.3, 0], [0.7, 0], [0.7, 1], [0.3, 1]]}},
        "lines": {"door": {"points": [[0.5, 1], [0.5, 0]], "left_to_right": "in", "right_to_left": "out"}},
    }
    tree = {"sources": [{"uri": "rtsp://gate/x", "source_id": "gate", **places}], "rules": rules}
    config.write_text(yaml.safe_dump({**tree, "events": {"folder": str(folder)}}))
    found = framewire("rules", "test", "--config", str(config), "--last", "1h", "--json")
    assert found.returncode == 0, found.stderr
    *events, last = [json.loads(line) for line in found.stdout.splitlines()]
    assert last["rules"] == {"intruder": {"would": 1, "did": 1}, "entry": {"would": 1, "did": 1}}
    did = {event["rule"]: event for event in listed("--folder", str(folder))}
    for event in events:
        assert event["began_utc_ns"] == pytest.approx(did[event["rule"]]["began_utc_ns"], abs=0.15 * NS)
    nobody = framewire("rules", "test", "--config", str(config), "--source", "nobody")
    assert (nobody.returncode, "expected one of: gate" in nobody.stderr) == (2, True)


def test_rules_about_absence_and_blindness_are_asked_too(tmp_path: Path) -> None:
    place, scene = StorePlace(tmp_path), scenes.watch()
    log = EventLog(place)
    log.open(scenes.run())
    for n in range(50):
        log.write(scene.analyse([scenes.packet(n, [scenes.walker(4.0)])])[0])
    for n in range(50, 200):
        log.write(scene.analyse([scenes.packet(n)])[0])
    log.status(scenes.state("offline"))
    for n in range(600, 700):
        log.write(scene.analyse([scenes.packet(n)])[0])
    log.close()
    zone = Zone("yard", [(0.3, 0), (0.7, 0), (0.7, 1), (0.3, 1)])
    rules = [Count("deserted", zone="yard", at_most=0, for_s=8, clear_s=1), Blind("dark", for_s=30)]
    with EventReader(place) as reader:
        found = replay(reader, "gate", Analytics([zone], [], rules), 0, 2**62)
    told = [(row.rule, round((row.began_utc_ns - scenes.UTC) / NS), row.reason) for row in found]
    assert sorted(told) == [("dark", 20, ""), ("deserted", 7, "engine_stopped")]  # a lost object is gone after 1.5 s


def a_log_with_media(folder: Path) -> StorePlace:
    place = StorePlace(folder)
    keep(place, scenes.walk())
    event_id = f"gate-{scenes.UTC}-intruder-1"
    with StoreWriter.edit(place) as store:
        for number, (name, kind) in enumerate(
            (("snapshots/gate/2026-09-21/a.trigger.jpg", "snapshot"), ("clips/gate/2026-09-21/a.mp4", "clip"))
        ):
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_bytes(b"x" * (number + 1))
            began = scenes.UTC + 3 * NS
            store.put(MediaRow(name, kind, "gate", event_id, began, began + NS, number + 1))  # type: ignore[arg-type]
        store.set_media_of_event(
            event_id,
            snapshot="snapshots/gate/2026-09-21/a.trigger.jpg",
            clip="clips/gate/2026-09-21/a.mp4",
            clip_state="exact",
        )
    return place


def test_an_export_holds_events_paths_counts_and_media(tmp_path: Path) -> None:
    place = a_log_with_media(tmp_path / "log")
    counts = export(place, EventFilter(), tmp_path / "out.zip")
    assert counts == {"files": 2, "events": 2, "facts": 2, "tracks": 1, "counts": 2}
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert set(archive.namelist()) == {
            "events.jsonl",
            "facts.jsonl",
            "tracks.jsonl",
            "counts.csv",
            "snapshots/gate/2026-09-21/a.trigger.jpg",
            "clips/gate/2026-09-21/a.mp4",
        }
        track = json.loads(archive.read("tracks.jsonl"))
        assert len(track["points"][0]) == 5
        assert archive.read("counts.csv").decode().count("\n") == 3
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(SinkError, match="cannot write"):
        export(place, EventFilter(), tmp_path / "nowhere" / "out.zip")


def test_delete_removes_rows_and_files_and_says_what_went(tmp_path: Path) -> None:
    place = a_log_with_media(tmp_path)
    span = Span("gate", scenes.UTC, scenes.UTC + 60 * NS)
    assert planned(place, span).files == {"clip": 1, "snapshot": 1}
    assert planned(place, Span("yard", 0, 2**62)).events == 0
    gone = delete(place, span)
    assert (gone.events, gone.files, gone.bytes, gone.failed) == (2, {"clip": 1, "snapshot": 1}, 3, [])
    assert gone.rows == {"track": 1, "fact": 2, "counted": 2, "occupancy": 1, "heat": 1, "gap": 0}
    assert [path for path in tmp_path.rglob("*") if path.suffix in (".jpg", ".mp4")] == []
    with EventReader(place) as reader:
        assert reader.page().events == []
        assert reader.media() == []
        assert list(reader.tracks("gate", 0, 2**62)) == []


def test_watch_prints_what_begins_and_ends(tmp_path: Path) -> None:
    place = StorePlace(tmp_path)
    log, packets = EventLog(place), list(scenes.walk())
    log.open(scenes.run())
    command = [sys.executable, "-m", "pipelines", "events", "watch", "--folder", str(tmp_path), "--severity", "alert"]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert process.stdout is not None
            assert "watching" in process.stderr.readline()
            for packet in packets:
                log.write(packet)
            log.close()
            told = json.loads(process.stdout.readline())
            if told["phase"] != "end":  # began and ended within one look
                assert told["phase"] == "begin"
                told = json.loads(process.stdout.readline())
            assert (told["rule"], told["phase"]) == ("intruder", "end")
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", 10**18 - 5400 * NS),
        ("1970-01-02T00:00Z", 86400 * NS),
        ("1970-01-02T01:00+01:00", 86400 * NS),
        ("1970-01-02T01:00", 86400 * NS),
        ("1970-01-02", 82800 * NS),
    ],
)
def test_times_as_people_write_them(text: str, expected: int) -> None:
    assert utc_ns_of(text, VIENNA, 10**18) == expected


@pytest.mark.parametrize("text", ["", "now", "2h30m", "9" * 100 + "d", "2026-13-01", "٣h", "0001-01-01T00:00+23:59"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        utc_ns_of(text, VIENNA, 0)
    with pytest.raises(ConfigError, match="expected a span"):
        span_s(text)
