"""README and documents: links, paths, commands and names that they mention exist."""

from __future__ import annotations

import ast
import functools
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

import engine
from pipelines.cli import app
from pipelines.config.file import load_config

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
MADE_BY_MKDOCS = {  # tools/docs/docs_pages.py; `mkdocs build --strict` checks the links to them
    "docs/reference/configuration.md",
    "docs/reference/cli.md",
    "docs/reference/messages.md",
    "docs/reference/api/index.md",
    "docs/how-to/examples.md",
    "docs/contributing.md",
    "docs/changelog.md",
}
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
MENTIONED = re.compile(r"`((?:engine|pipelines|tools|tests|examples|configs|docs)/[\w./-]+)`")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
by_name = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


def blocks(document: Path, language: str) -> list[str]:
    """Return the code blocks of a language in a document."""
    return [code for kind, code in FENCE.findall(document.read_text()) if kind == language]


def commands(document: Path) -> Iterator[list[str]]:
    """Yield the words of every `framewire` command in the shell blocks of a document."""
    for code in blocks(document, "sh"):
        for line in re.split(r"\n|&&", code.replace("\\\n", " ")):
            words = shlex.split(line, comments=True)
            if words and Path(words[0]).name == "framewire":
                yield words[1:]


def value_of(words: list[str], option: str) -> list[str]:
    """Return the values that the words give to an option."""
    return [value for name, value in pairwise(words) if name == option]


@functools.cache
def root_command() -> Any:
    """Return the whole command line, which takes a moment to build."""
    return typer.main.get_command(app)


def verb_of(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that the words name, and the words after it."""
    command: Any = root_command()
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


@by_name
def test_links_lead_somewhere(document: Path) -> None:
    links = [link for link in LINK.findall(document.read_text()) if not link.startswith(("http://", "https://"))]
    targets = [(document.parent / link).resolve() for link in links]
    made = [ROOT / page for page in MADE_BY_MKDOCS]
    assert [str(target) for target in targets if not target.exists() and target not in made] == []


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.name != "CHANGELOG.md"], ids=lambda path: path.stem)
def test_paths_in_the_text_exist(document: Path) -> None:
    paths = [path for path in MENTIONED.findall(document.read_text()) if not path.endswith("/NAME")]
    assert [path for path in paths if not (ROOT / path).exists()] == []


@by_name
def test_commands_in_the_text_are_understood(document: Path) -> None:
    for words in commands(document):
        command, rest = verb_of(words)
        assert command.params or rest == [], f"framewire {' '.join(words)}: no such verb"
        known = {name for parameter in command.params for name in parameter.opts}
        given = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert given - {"--help"} <= known, f"framewire {' '.join(words)}"


@by_name
def test_keys_set_in_the_text_exist(document: Path) -> None:
    for words in commands(document):
        settings = [] if "..." in words else value_of(words, "--set")
        sources = [{"uri": uri} for uri in value_of(words, "--source")]
        preset = words[1] if (ROOT / "configs" / f"{[*words, None][1]}.yaml").exists() else None
        if words[0] in ("run", "demo", "bench") and (sources or preset):
            load_config(preset, {"sources": sources} if sources else {}, settings)


@by_name
def test_configurations_in_the_text_are_valid(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", "secret")
    for number, text in enumerate(blocks(document, "yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(text)
        load_config(str(file), {})


@by_name
def test_names_imported_from_engine_are_public(document: Path) -> None:
    for code in blocks(document, "python"):
        if code.startswith("--8<--"):
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module == "engine":
                assert {alias.name for alias in node.names} <= set(engine.__all__)


def test_messages_quoted_in_troubleshooting_are_those_of_the_program() -> None:
    rows = [line for line in (ROOT / "docs/troubleshooting.md").read_text().splitlines() if line.startswith("| ")]
    quoted = [message for row in rows for message in re.findall(r'"([^"]+)"', row.split("|")[1])]
    code = "".join(path.read_text() for package in ("engine", "pipelines") for path in (ROOT / package).rglob("*.py"))
    assert len(quoted) >= 5
    assert [message for message in quoted if message not in code] == []


def test_every_page_is_in_the_navigation() -> None:
    """`mkdocs build --strict`, which CI runs last, would refuse the others."""
    listed = set(re.findall(r"([\w./-]+\.md)\s*$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert pages - listed == set()


def test_every_field_of_the_summary_is_explained(tmp_path: Path) -> None:
    run = ["run", "--source", "synthetic://?count=5", "--model", "motion", "--publish", "none", "--json"]
    command = [sys.executable, "-m", "pipelines", *run, "--jsonl", str(tmp_path / "out.jsonl")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    summary = json.loads(done.stdout.splitlines()[-1])
    text = (ROOT / "docs/reference/summary.md").read_text()
    fields = [*summary, *summary["sources"]["synthetic"], *summary["latency_ms"], *summary["outputs"][0]]
    assert [field for field in fields if f"`{field}`" not in text] == []


class EnoughError(Exception):
    """Ends the program of the README after some frames."""


def test_the_program_in_the_readme_tracks_people() -> None:
    [program] = blocks(ROOT / "README.md", "python")
    shown: list[tuple[Any, ...]] = []

    def show(*values: Any) -> None:
        shown.append(values)
        if len(shown) == 15:
            raise EnoughError

    assert "tcp://127.0.0.1:5555" in program
    with pytest.raises(EnoughError):
        exec(program.replace("tcp://127.0.0.1:5555", "tcp://127.0.0.1:*"), {"print": show})
    frame_id, track_id, xyxy = shown[-1]
    assert frame_id == 14
    assert len(track_id) >= 3
    assert xyxy.shape == (len(track_id), 4)


def test_the_animation_in_the_readme_is_one_and_small() -> None:
    animation = ROOT / "docs" / "images" / "demo.webp"
    assert f"({animation.relative_to(ROOT).as_posix()})" in (ROOT / "README.md").read_text()
    assert animation.stat().st_size < 2_000_000
    data = animation.read_bytes()
    assert (data[:4], data[8:12]) == (b"RIFF", b"WEBP")
    assert data.count(b"ANMF") > 20  # frames


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", text, re.MULTILINE))
    assert targets == set(re.findall(r"^([a-z]+):.* ## ", text, re.MULTILINE))
    assert {"help", "install", "test", "lint", "docs", "examples"} <= targets
    listed = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert listed is not None
    assert set(listed[1].split()) == targets


def test_what_documents_mention_is_found_at_all(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[a](docs/a.md#part) `engine/a.py`\n```sh\n.venv/bin/framewire run --source 0  # see\n```\n")
    assert LINK.findall(page.read_text()) == ["docs/a.md"]
    assert MENTIONED.findall(page.read_text()) == ["engine/a.py"]
    assert list(commands(page)) == [["run", "--source", "0"]]
    assert verb_of(["eval", "track", "--gt"])[1] == ["--gt"]
