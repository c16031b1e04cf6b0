"""Label files of others: bounded in size, and in the memory that their content takes."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError, SourceError
from pipelines.learning.dataset.bring import bring
from pipelines.learning.dataset.project import MAX_ROW_BYTES, Project
from pipelines.learning.dataset.split import read_splits
from pipelines.scoring import label_files, mot
from pipelines.scoring.label_files import json_of, text_of, xml_of
from pipelines.scoring.labels import read_truth

MB = 1 << 20
COUNT = 5000
DEEP = "[" * 50_000


def of_coco() -> str:
    rng = random.Random(1)
    polygon = [round(rng.random() * 600, 2) for _ in range(46)]
    rows = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": polygon[:4], "segmentation": [polygon]} for n in range(500)
    ]
    return json.dumps(rows)


JSON = {
    "COCO": of_coco(),
    "empty lists": f"[{'[],' * COUNT}0]",
    "empty objects": f"[{'{},' * COUNT}0]",
    "objects": "[" + '{"a":1},' * COUNT + "0]",
    "lists in lists": f"[{'[[[[]]]],' * COUNT}0]",
    "numbers": f"[{'999,' * COUNT}0]",
    "texts": "[" + '"ab",' * COUNT + "0]",
    "keys": json.dumps({f"k{n}": n for n in range(COUNT)}),
}


@pytest.mark.parametrize("form", JSON)
def test_the_estimate_of_the_memory_is_not_less_than_it_takes(form: str) -> None:
    content = JSON[form].encode()
    tracemalloc.start()
    value = json.loads(content)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert value
    estimate = sum(content.count(character) * cost for character, cost in label_files._JSON_COSTS)
    assert taken <= 1.2 * estimate


def test_small_files_of_huge_values_are_refused_and_fair_ones_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_files, "MAX_MEMORY_BYTES", 2 * MB)
    fair, huge = tmp_path / "fair.json", tmp_path / "huge.json"
    fair.write_text(JSON["COCO"])
    huge.write_text(JSON["empty objects"] * 10)
    assert huge.stat().st_size < fair.stat().st_size
    assert len(json_of(fair)) == 500
    with pytest.raises(ConfigError, match="GiB of memory"):
        json_of(huge)
    tree = tmp_path / "huge.xml"
    tree.write_text("<a>" + '<b c=""/>' * 20_000 + "</a>")
    with pytest.raises(ConfigError, match="GiB of memory"):
        xml_of(tree)


def test_files_that_are_too_large_are_refused_by_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_files, "MAX_JSON_BYTES", MB)
    monkeypatch.setattr(mot, "MAX_MOT_BYTES", MB)
    large = tmp_path / "large"
    large.write_text(" " * (5 * MB))
    for read in (json_of, text_of):
        with pytest.raises(ConfigError, match="larger than"):
            read(large)
    with pytest.raises(SourceError, match="larger than"):
        mot.read_mot(large)


def test_the_labels_of_one_image_are_small(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"")
    (tmp_path / "labels" / "a.txt").write_text("0 .5 .5 .2 .2\n" * 400_000)
    with pytest.raises(ConfigError, match="larger than 4 MiB"):
        read_truth(tmp_path / "images", tmp_path / "labels", ["cat"])
    (tmp_path / "voc").mkdir()
    (tmp_path / "voc" / "a.xml").write_text(f"<annotation>{' ' * (5 * MB)}</annotation>")
    with pytest.raises(ConfigError, match="larger than 4 MiB"):
        bring(str(tmp_path / "voc"), str(tmp_path / "mine.fwm"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8"])
def test_entities_are_refused_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    head = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY b "{"x" * 1000}">]>'
    (tmp_path / "a.xml").write_bytes(f"{head}<a>&b;&b;</a>".encode(encoding))
    with pytest.raises(ConfigError, match="entities|UTF-8"):
        xml_of(tmp_path / "a.xml")


def test_deep_json_in_a_project_of_others_is_damage_and_no_traceback(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "theirs.fwm", ["cat"])
    image = project.add(b"x", "a.png", np.zeros((10, 10, 3), np.uint8), {"camera": "gate"})
    table = project.folder / "items.jsonl"
    good = table.read_text()
    table.write_text(f"{DEEP}\n{'x' * (3 * MAX_ROW_BYTES)}\n{good}")
    assert [origin.fields["camera"] for origin in project.origins().values()] == ["gate"]
    (project.folder / "suggestions").mkdir()
    (project.folder / "suggestions" / "a.png.json").write_text(DEEP)
    assert project.suggestions(image) == []
    (project.folder / "splits.json").write_text(DEEP)
    with pytest.raises(ConfigError, match="damaged"):
        read_splits(project.folder)
