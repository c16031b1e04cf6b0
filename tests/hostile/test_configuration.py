"""Hostile configurations: bombs, large files, odd values; each gets a clear answer in bounded time and memory."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.errors import ConfigError, EngineError
from engine.plain_yaml.reading import MAX_CHARS, parsed_yaml
from pipelines.build.pipeline import build_pipeline
from pipelines.build.sources import build_sources
from pipelines.config.file import load_config
from pipelines.running.control import ask
from tests.patience import AT_ONCE_S

BASE = (
    "sources: [{uri: 'synthetic://?realtime=1&fps=10&width=64&height=48', source_id: a}]\ndetector: {model: motion}\n"
)
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
BIG = "x:\n" + "  - k123456: 123456\n" * 600_000
COMMAND = [sys.executable, "-c", "from pipelines.entry import main; main()"]
VALUES = [
    "2026-99-99",
    "!!binary a",
    "!!set {a, b}",
    "!!python/object/apply:os.system [true]",
    "!!timestamp x",
    "!!int x",
    "!!float x",
    "0x",
    "1e999",
    "9" * 5000,
    "-.inf",
    ".nan",
    '"\\ud800"',
    '"\\0"',
    '"a\\0b"',
    "{[1]: 2}",
    "{null: 1}",
    "{1: 2}",
    "&a [*a]",
    "[" * 5000,
    "[" * 5000 + "]" * 5000,
    "{a: " * 3000,
    "x" * 100_000,
    "? a",
    "*nothing",
    "%YAML 9.9",
    "\u202e",
    "\x85",
    '"\\x1b[2J"',
    "''",
    "null",
    "true",
    "~x",
    "/" * 300,
    "/dev/null",
    "/proc/self/mem",
    "a\\b",
    "[[[]]]",
]
KEYS = [
    "sources.0.uri",
    "sources.0.source_id",
    "detector.model",
    "detector.classes",
    "detector.size",
    "tracker.type",
    "tracker.parameters",
    "publish.address",
    "publish.keys",
    "control.address",
    "output.jsonl",
    "sources.0.regions",
    "sources.0.ffmpeg",
    "pipeline.engine_id",
]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(BASE + BOMB, "values, aliases followed", id="alias bomb"),
        pytest.param(BASE + BIG, f"more than {MAX_CHARS // 1024} KiB", id="twelve megabytes"),
        pytest.param("[" * 100_000, "nested deeper", id="open brackets"),
        pytest.param("a: " + "[" * 1000 + "]" * 1000, "nested deeper", id="brackets"),
        pytest.param("a: &a {b: *a}", "contains itself", id="a value that contains itself"),
        pytest.param("a: !!python/object/apply:os.system ['true']", "is not YAML", id="an object"),
        pytest.param("x: 1\n" * 3, "twice", id="a doubled key"),
        pytest.param(BASE + "".join(f"k{i}: 1\n" for i in range(2000)), "more mistakes", id="many unknown keys"),
        pytest.param(BASE + "k" * 1000 + ": 1", "unknown key", id="a long unknown key"),
    ],
)
def test_a_hostile_file_is_refused_with_a_short_message(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as refused:
        load_config(str(path), {})
    assert len(str(refused.value)) < 10_000
    assert "quote it" not in str(refused.value)


@pytest.mark.parametrize("key", KEYS)
def test_no_value_of_any_key_ends_in_a_traceback(key: str) -> None:
    for value in VALUES:
        message = _refusal([f"{key}={value}"])
        assert all(line.isprintable() for line in message.splitlines())
        assert len(message) < 10_000


def _refusal(settings: list[str]) -> str:
    try:
        load_config(None, {"sources": [{"uri": "synthetic://"}]}, settings)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_no_model_name_ends_in_a_traceback(value: str) -> None:
    with pytest.raises(Exception) as refused:  # noqa: PT011 - which one it is, is what is tested
        build_pipeline(load_config(None, {"sources": [{"uri": "synthetic://"}]}, [f"detector.model={value}"]))
    assert isinstance(refused.value, EngineError), repr(refused.value)


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_no_address_of_a_source_ends_in_a_traceback(value: str) -> None:
    try:
        build_sources(load_config(None, {}, [f"sources=[{{uri: {value}}}]"]))
    except EngineError:
        return


def test_a_watched_file_that_becomes_huge_holds_up_neither_control_nor_the_end(tmp_path: Path) -> None:
    control, path = f"ipc://{tmp_path}/control", tmp_path / "watched.yaml"
    path.write_text(BASE + f"control: {{watch: true, address: '{control}'}}\npublish: {{address: none}}\n")
    process = subprocess.Popen([*COMMAND, "run", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        before = ask(control, {"command": "status"}, 60.0)["sources"]["a"]["published"]
        path.write_text(path.read_text() + BIG)
        time.sleep(1.0)
        assert ask(control, {"command": "status"}, AT_ONCE_S)["sources"]["a"]["published"] > before
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - begin < AT_ONCE_S
        assert b"KiB" in errors
        assert b"Traceback" not in errors
    finally:
        process.kill()
        process.communicate()


def test_plain_yaml_is_still_read() -> None:
    assert parsed_yaml("a: [1, {b: &x c, d: *x}]", "text") == {"a": [1, {"b": "c", "d": "c"}]}
