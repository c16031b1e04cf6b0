"""`framewire events clip` and `tidy`, and the files that `delete` removes."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from engine.clock import NS_PER_S
from engine.errors import ConfigError
from engine.events.store.place import StorePlace
from engine.events.store.reader import EventReader
from engine.sinks.camera_video.keyframe_index import index_path
from pipelines.cli import app
from tests.events import scenes
from tests.events.media.recorded import numbered_clip, record, shown
from tests.events.test_log import keep

AFTER_S = (scenes.UTC - 1_700_000_000 * NS_PER_S) / NS_PER_S


class Home:
    """A configuration, its log of one walk, and the recording of the camera."""

    def __init__(self, folder: Path, numbered: Path, **events: Any) -> None:
        self.folder = folder
        self.place = StorePlace(folder / "log")
        keep(self.place, scenes.walk())
        record(numbered, folder / "rec" / "gate", after_s=AFTER_S)
        (self.recording,) = (folder / "rec" / "gate").glob("*.mp4")
        camera = {"uri": "rtsp://192.0.2.1/x", "source_id": "gate", "record": {"folder": str(folder / "rec")}}
        log = {"folder": str(folder / "log"), "clips": {"before_s": 1, "after_s": 1}, **events}
        log.setdefault(
            "keep", {"info_d": 36500, "notice_d": 36500, "alert_d": 36500, "tracks_d": 36500, "min_free_gb": 0}
        )
        self.config = str(folder / "run.yaml")
        Path(self.config).write_text(yaml.safe_dump({"sources": [camera], "events": log}))
        with EventReader(self.place) as reader:
            self.event = next(event for event in reader.events() if event.rule == "intruder")

    def ask(self, *words: str) -> Any:
        """Run `framewire events` with --json, and return what it prints."""
        done = CliRunner().invoke(app, ["events", *words, "--config", self.config, "--json"])
        if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
            raise done.exception
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of numbered frames."""
    return numbered_clip(tmp_path_factory.mktemp("numbered"))


@pytest.fixture
def home(tmp_path: Path, numbered: Path) -> Home:
    return Home(tmp_path, numbered)


def test_a_clip_that_is_missing_is_cut_and_kept(home: Home) -> None:
    found = home.ask("clip", home.event.event_id)
    assert (found["clip_state"], len(found["paths"])) == ("exact", 1)
    first = (home.event.began_utc_ns - NS_PER_S - scenes.UTC) / NS_PER_S * 25
    assert 0 <= (shown(Path(found["paths"][0]))[0][0] or 0) - first <= 1
    with EventReader(home.place) as reader:
        event = reader.event(home.event.event_id)
        assert event is not None
        assert (event.clip_state, str(home.place.folder / event.clip)) == ("exact", found["paths"][0])
    assert home.ask("clip", home.event.event_id) == found, "and found the next time"
    output = str(home.folder / "copy.mp4")
    copy = home.ask("clip", home.event.event_id, "--output", output)
    assert copy["paths"] == [output]
    assert Path(output).read_bytes() == Path(found["paths"][0]).read_bytes()


@pytest.mark.parametrize("name", ["{folder}/secret.txt", "clips/../../secret.txt"])
def test_a_store_that_names_files_elsewhere_gives_away_none(home: Home, name: str) -> None:
    secret, output = home.folder / "secret.txt", home.folder / "copy.mp4"
    secret.write_text("secret")
    home.ask("clip", home.event.event_id)
    with closing(sqlite3.connect(home.place.file)) as store, store:
        store.execute("UPDATE media SET path = ? WHERE kind = 'clip'", [name.format(folder=home.folder)])
    found = home.ask("clip", home.event.event_id, "--output", str(output))
    assert b"secret" not in b"".join(Path(path).read_bytes() for path in found["paths"])


def test_another_span_is_cut_into_a_file_of_its_own(home: Home) -> None:
    output = str(home.folder / "own.mp4")
    found = home.ask("clip", home.event.event_id, "--before", "0", "--after", "0", "-o", output)
    assert (found["clip_state"], found["paths"]) == ("exact", [output])
    lasted_s = home.event.duration_s
    assert lasted_s is not None
    assert len(shown(Path(output))) == pytest.approx(lasted_s * 25, abs=1.1)
    with EventReader(home.place) as reader:
        assert reader.media("clip") == []


def test_what_cannot_be_cut_is_explained(home: Home) -> None:
    with pytest.raises(ConfigError, match="there is no event nope"):
        home.ask("clip", "nope")
    with pytest.raises(ConfigError, match="need --output"):
        home.ask("clip", home.event.event_id, "--before", "3")
    home.recording.unlink()
    found = home.ask("clip", home.event.event_id)
    assert (found["clip_state"], found["clip_reason"]) == ("none", "there is no recording of this time")


def test_tidy_adopts_and_says_what_is_stored(home: Home) -> None:
    report = home.ask("tidy")
    assert report["adopted"] == 1
    assert report["bytes"]["recording"] == home.recording.stat().st_size + index_path(home.recording).stat().st_size
    assert report["deleted"] == {}


def test_tidy_asks_before_it_deletes_much(tmp_path: Path, numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.events.media.retention.FEW_EVENTS", 0)
    old = {"info_d": 0, "notice_d": 0, "alert_d": 0, "tracks_d": 0, "min_free_gb": 0}
    home = Home(tmp_path, numbered, keep=old)
    monkeypatch.setattr("time.time_ns", lambda: scenes.UTC + 86_400 * NS_PER_S)
    assert "tidy --yes" in home.ask("tidy")["asks"]
    with EventReader(home.place) as reader:
        assert len(list(reader.events())) == 2
    done = home.ask("tidy", "--yes")
    assert (done["asks"], done["deleted"]["event/age"]) == ("", 2)
    assert home.recording.exists(), "recordings go only for space"


def test_delete_also_removes_recordings_that_the_log_does_not_know_yet(home: Home) -> None:
    home.ask("clip", home.event.event_id)
    day = ["--from", "2026-01-01", "--to", "2026-12-31", "--source", "gate", "--yes"]
    gone = home.ask("delete", *day)
    assert gone["files"] == {"clip": 1, "recording": 1}
    assert not home.recording.exists()
    assert not index_path(home.recording).exists()
