"""YAML as plain values: nothing guessed, nothing shared, nothing replaced silently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.errors import ConfigError
from engine.plain_yaml.values import PlainLoader
from pipelines.config.file import load_config


def loaded(text: str) -> Any:
    return yaml.load(text, PlainLoader)


def write(folder: Path, text: str | bytes) -> str:
    file = folder / "cameras.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(file)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("no", "no", id="no is a word"),
        pytest.param("Yes", "Yes", id="yes is a word"),
        pytest.param("off", "off", id="off is a word"),
        pytest.param("true", True, id="true is a switch"),
        pytest.param("FALSE", False, id="false is a switch"),
        pytest.param("1:30", "1:30", id="no base of sixty"),
        pytest.param("007", "007", id="no octal by a leading zero"),
        pytest.param("2026-11-30", "2026-11-30", id="no date"),
        pytest.param("-12", -12, id="a number"),
        pytest.param("0x1F", 31, id="a hexadecimal number"),
        pytest.param("0.5", 0.5, id="a fraction"),
        pytest.param("~", None, id="nothing"),
    ],
)
def test_words_stay_words_and_numbers_numbers(text: str, value: object) -> None:
    assert loaded(f"key: {text}") == {"key": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("sources: []\ndetector: {}\nsources: []\n", r"line 3.*'sources'.*first in line 1", id="top level"),
        pytest.param("a:\n- uri: x\n  uri: y\n", r"line 3.*'uri'.*first in line 2", id="in a list"),
        pytest.param("d: {score: 0.9, score: 0.1}", r"line 1.*'score' is written twice", id="on one line"),
    ],
)
def test_a_doubled_key_is_refused_with_both_lines(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text), {})


def test_a_merged_key_may_be_overridden() -> None:
    value = loaded("a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, y: 4}")
    assert value["c"] == {"x": 3, "y": 4}


def test_a_setting_changes_one_camera_of_two_that_share_an_anchor(tmp_path: Path) -> None:
    text = (
        "sources:\n- &cam {uri: a.mp4, source_id: gate, motion_gate: &g {max_hold_s: 2}}\n"
        "- {<<: *cam, uri: b.mp4, source_id: yard}\n- {uri: c.mp4, source_id: roof, motion_gate: *g}\n"
    )
    config = load_config(write(tmp_path, text), {}, ["sources.0.motion_gate.max_hold_s=9"])
    gates = [source.motion_gate for source in config.sources]
    assert [gate.max_hold_s for gate in gates if gate is not None] == [9, 2, 2]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a: &a [*a]", id="a list that contains itself"),
        pytest.param(
            "a: &a [0,0,0,0,0,0,0,0,0,0]\n"
            + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(6)),
            id="aliases that multiply",
        ),
    ],
)
def test_hostile_aliases_are_an_error_and_not_a_hang(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load_config(write(tmp_path, text), {})


def test_class_names_that_look_like_switches_are_names(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "detector: {classes: [no, 'yes', 1], names: [yes, no]}"), {})
    assert config.detector.classes == ["no", "yes", 1]
    assert config.detector.names == ["yes", "no"]
    with pytest.raises(ConfigError, match=r"detector.classes.0: .*by name or number"):
        load_config(write(tmp_path, "detector: {classes: [true]}"), {})


def test_switches_take_the_words_for_on_and_off(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "sources: [{uri: 0, loop: yes, realtime: off, source_id: 7}]"), {})
    source = config.sources[0]
    assert (source.uri, source.loop, source.realtime, source.source_id) == ("0", True, False, "7")


def test_a_switch_in_place_of_a_section_means_its_defaults(tmp_path: Path) -> None:
    text = (
        "sources: [{uri: a.mp4, record: true, motion_gate: false}]\ndetector: {tile: true}\npublish: {pictures: true}"
    )
    config = load_config(write(tmp_path, text), {})
    assert config.sources[0].record is not None
    assert config.sources[0].record.folder == "recordings"
    assert config.sources[0].motion_gate is None
    assert config.detector.tile is not None
    assert config.publish.pictures is not None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\ufeffsources: [{uri: a.mp4}]\r\n".encode(), id="byte order mark and CRLF"),
        pytest.param("sources: [{uri: a.mp4}]\n".encode("utf-16"), id="UTF-16"),
        pytest.param(b"x-base: &b {loop: false}\nsources: [{<<: *b, uri: a.mp4}]\n", id="a table for anchors alone"),
        pytest.param(b'sources: [{uri: "${NO_SUCH_CLIP:-a.mp4}"}]\n', id="default of a variable"),
    ],
)
def test_files_as_other_programs_write_them_are_read(tmp_path: Path, text: bytes) -> None:
    assert load_config(write(tmp_path, text), {}).sources[0].uri == "a.mp4"


NAMES = ["0x1F", "0o17", "017", "1_000", ".5e3", "1.5e+3", "1:30", "1.10", "+1", "-0", "1.", "2026-12-01", "on", "No"]


@pytest.mark.parametrize("text", [*NAMES, "12345678901234567890123"])
def test_a_text_that_looks_like_a_number_is_kept_as_written(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"sources:\n  - {{uri: a.mp4, source_id: {text}, ffmpeg: {{key: {text}}}}}\n")
    config = load_config(str(path), {}, [f"detector.names=[{text}, {text}]"])
    assert config.sources[0].source_id == text
    assert config.sources[0].ffmpeg == {"key": text}
    assert config.detector.names == [text, text]


def test_numbers_are_numbers_however_they_are_written() -> None:
    config = load_config(None, {}, ["publish.high_water_mark=1_000", "detector.threads=0x10", "detector.classes=[0x1]"])
    assert (config.publish.high_water_mark, config.detector.threads, config.detector.classes) == (1000, 16, [1])
    assert json.dumps([config.publish.high_water_mark, config.detector.threads]) == "[1000, 16]"
    assert f"{config.publish.high_water_mark}" == "1000"


@pytest.mark.parametrize("word", ["true", "false", "null", "~"])
def test_a_switch_in_place_of_a_text_is_refused_with_the_quotes_to_write(word: str) -> None:
    with pytest.raises(ConfigError, match=r"names\.0: expected text: write .* in quotes"):
        load_config(None, {}, [f"detector.names=[{word}]"])
