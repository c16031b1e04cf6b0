"""Paths are accepted in the forms that users write, everywhere by one rule."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.backends.files.base import find_model
from engine.errors import ModelError
from engine.paths import expand_home, path_from_text, utf8_text
from engine.sources.open import open_source
from engine.video.uri import name_from_uri
from pipelines.config.file import load_config
from pipelines.verbs.options import named_source
from tests.media import encode_clip, numbered_images

NAMES = ["2026-11-28T10:00:00.mp4", "a=b.mp4", "my clip.mp4", "50%.mp4", "a%20b.mp4", "~backup.mp4", "#1?.mp4"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_opens_as_relative_path_absolute_path_and_uri(home: Path, name: str) -> None:
    clip = encode_clip(home.parent / "clip.mp4", numbered_images(2)).rename(home.parent / name)
    for text in (name, f"./{name}", str(clip), clip.as_uri(), clip.as_uri().replace("file://", "FILE://localhost")):
        assert len(list(open_source(text))) == 2, text
    assert named_source(name) == {"uri": name}


def test_a_home_folder_is_found_in_every_option(home: Path) -> None:
    clip = encode_clip(home / "clip.mp4", numbered_images(2))
    (home / "m.onnx").write_bytes(b"model")
    assert len(list(open_source("~/clip.mp4"))) == 2
    assert find_model("~/m.onnx") == home / "m.onnx"
    assert name_from_uri("~/clip.mp4") == "clip"
    config = load_config(
        None,
        {"sources": [{"uri": "~/clip.mp4", "record": {"folder": "~/films"}}], "detector": {"model": "~/m.onnx"}},
        ["output.save=~/o.mp4", "output.jsonl=~/o.jsonl", "detector.cache_dir=~/cache", "control.keys=~/k.key_secret"],
    )
    assert config.sources[0].record is not None
    places = (
        *(config.detector.model, config.detector.cache_dir, config.output.save, config.output.jsonl),
        *(config.sources[0].record.folder, config.control.keys),
    )
    assert [os.path.dirname(place or "") for place in places] == [str(clip.parent)] * len(places)


def test_another_users_home_is_found_and_an_unknown_one_is_a_plain_name() -> None:
    assert expand_home("~root/a.mp4") == os.path.expanduser("~root/a.mp4")
    assert expand_home("~no-such-user-here/a.mp4") == "~no-such-user-here/a.mp4"
    with pytest.raises(ModelError, match="no such model"):
        find_model("~no-such-user-here/m.onnx")


def test_no_home_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    assert expand_home("~no-such-user-here/a.mp4") == "~no-such-user-here/a.mp4"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        pytest.param("file:/a/b.mp4", "/a/b.mp4", id="one slash"),
        pytest.param("file://a.mp4", "a.mp4", id="relative"),
        pytest.param("file:///a%2Fb", "/a/b", id="encoded slash"),
        pytest.param("file:///caf%E9", "/caf\udce9", id="bytes that are not UTF-8"),
        pytest.param("", ".", id="nothing"),
    ],
)
def test_file_uris_are_decoded(text: str, path: str) -> None:
    assert path_from_text(text) == Path(path)


def test_a_name_equals_sign_uri_is_still_a_named_source(home: Path) -> None:
    assert named_source("gate=clip.mp4") == {"source_id": "gate", "uri": "clip.mp4"}
    assert named_source("gate=rtsp://host/a=b") == {"source_id": "gate", "uri": "rtsp://host/a=b"}
    assert named_source("hall.2=rtsp://host/a") == {"source_id": "hall.2", "uri": "rtsp://host/a"}
    assert named_source("no.such=clip.mp4") == {"uri": "no.such=clip.mp4"}


def test_a_configuration_takes_file_names_that_are_not_utf8() -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    config = load_config(None, {"sources": [{"uri": name}]}, [])
    assert config.sources[0].uri == name
    assert utf8_text(name) == "caf\N{REPLACEMENT CHARACTER}.mp4"


@pytest.mark.parametrize("uri", ["RTSP://127.0.0.1:9/s", "rtsp://[::1]:9/s", "HTTP://[::1]:9/v"])
def test_addresses_in_upper_case_and_of_ipv6_hosts_are_understood(uri: str) -> None:
    source = open_source(uri, max_attempts=1, reader="thread")
    with pytest.raises(OSError, match=r"refused|cannot be reached"):
        list(source)
