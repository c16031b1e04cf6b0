"""The pages of the documentation site that are made from the code: nothing is missing in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from pydantic import BaseModel

import engine
from engine.tracking.registry import TRACKERS, tracker_parameters
from pipelines.config.models import Config
from pipelines.config.source import MotionGateConfig, RecordConfig

pytest.importorskip("mkdocs", reason='mkdocs is not installed: pip install -e ".[docs]"')
from tests.test_documents import MADE_BY_MKDOCS
from tools.docs import docs_docstrings, docs_messages, docs_pages


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    made: dict[str, str] = docs_pages.pages()
    return made


def test_pages_that_links_in_the_documents_may_lead_to_are_generated(pages: dict[str, str]) -> None:
    assert {page.removeprefix("docs/") for page in MADE_BY_MKDOCS} - pages.keys() == set()


def keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        inner = docs_pages.model_in(field.annotation)
        if inner is not None:
            yield from keys(inner)


def test_configuration_page_has_every_key(pages: dict[str, str]) -> None:
    text = pages["reference/configuration.md"]
    assert [key for key in keys(Config) if f"| `{key}` |" not in text] == []
    assert {"max_hold_s", "segment_s", "images_per_s"} <= set(keys(Config))  # keys of sections that are off by default


def test_sections_that_are_off_by_default_have_headings(pages: dict[str, str]) -> None:
    text = pages["reference/configuration.md"]
    for heading in (
        "## `sources[].motion_gate`",
        "## `sources[].record`",
        "## `publish.pictures`",
        "## `second_stage`",
    ):
        assert heading in text
    assert MotionGateConfig.__doc__ in text
    assert RecordConfig.__doc__ in text


def test_bounds_and_defaults_are_shown(pages: dict[str, str]) -> None:
    text = pages["reference/configuration.md"]
    assert "| `read_timeout_s` | <code>float</code> > 0, ≤ 600 | <code>5.0</code> |" in text
    assert "| `uri` | <code>str</code> | required |" in text
    assert "| `classes` | <code>list[str &#124; int] &#124; null</code> |" in text
    assert " at 0x" not in text  # no object that has no name
    assert "| `transport` | <code>tcp &#124; udp</code> | <code>tcp</code> |" in text


def test_every_table_has_a_blank_line_before_it_and_rows_of_one_width(pages: dict[str, str]) -> None:
    for path in ("reference/configuration.md", "reference/cli.md", "reference/messages.md", "reference/api/index.md"):
        for table in re.findall(r"(?:^|\n\n)((?:\|[^\n]*\n)+)", pages[path]):
            assert len({row.count("|") for row in table.splitlines()}) == 1, path
        assert not re.search(r"\n[^|\n][^\n]*\n\|", pages[path]), path


def test_doctests_become_code_blocks() -> None:
    text = "A queue.\n\n>>> queue = []\n>>> queue\n[]\n\nThe end."
    assert docs_docstrings.fenced(text) == "A queue.\n\n```pycon\n>>> queue = []\n>>> queue\n[]\n```\n\nThe end."
    assert docs_docstrings.fenced("no code > here") == "no code > here"


def test_tracker_parameters_are_listed(pages: dict[str, str]) -> None:
    text = pages["reference/configuration.md"]
    for name in TRACKERS:
        assert f"### `{name}`" in text
        assert [p.name for p in tracker_parameters(name) if f"| `{p.name}` |" not in text] == []


def test_api_pages_have_every_public_name(pages: dict[str, str]) -> None:
    bodies = "".join(text for path, text in pages.items() if path.startswith("reference/api/") and "index" not in path)
    assert [name for name in engine.__all__ if f".{name}\n" not in bodies] == []
    assert [name for name in engine.__all__ if f"[`{name}`]" not in pages["reference/api/index.md"]] == []


def test_command_page_has_every_verb_and_option(pages: dict[str, str]) -> None:
    text = pages["reference/cli.md"]
    for verb in ("run", "demo", "ctl", "bridge", "build", "eval detect", "eval track", "subscribe"):
        assert f"## `framewire {verb}`" in text
    assert "| `--max-frames` | Stop" in text


def test_messages_page_has_every_field_of_every_kind(pages: dict[str, str]) -> None:
    text = pages["reference/messages.md"]
    schemas = sorted(docs_messages.SCHEMAS.glob("*.schema.json"))
    assert len(schemas) >= 9
    for path in schemas:
        assert f"## `{path.name.partition('.')[0]}`" in text
        for definition in json.loads(path.read_text())["$defs"].values():
            assert [name for name in definition.get("properties", {}) if f"| `{name}`" not in text] == []
    assert "| `mask` | [Rle](#rle) or null |" in text
    assert "| `xyxy` * | array of 4 number |" in text
    assert "| `objects` * | array of [TrackedObject](#trackedobject) |" in text


def test_examples_page_shows_every_script(pages: dict[str, str]) -> None:
    text = pages["how-to/examples.md"]
    assert "## `count_in_zone.py`" in text
    assert "test_examples" not in text
