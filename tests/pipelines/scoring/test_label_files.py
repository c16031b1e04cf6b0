"""Label files of others: bounded in size, and in the memory that their content takes."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError, SourceError
from pipelines.learning.dataset.boxes import boxes_from_text
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


@pytest.mark.parametrize("read", [text_of, xml_of, json_of])
def test_a_file_that_is_too_large_is_refused_before_it_takes_memory(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    """A sparse file costs its author nothing."""
    place = tmp_path / "sparse"
    with place.open("wb") as file:
        file.truncate(label_files.MAX_JSON_BYTES + 1)
    tracemalloc.start()
    with pytest.raises(ConfigError, match="larger than"):
        read(place)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MB


@pytest.mark.parametrize("far", ["1e308", "3e38", "1e20", "-1e30"])
def test_coordinates_that_no_image_has_are_refused(far: str, tmp_path: Path) -> None:
    """Finite in the file, infinite once they are added in float32."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"not read")
    (tmp_path / "labels").mkdir()
    for row in (f"0 {far} 0.5 {far} 0.1", f"0 {far} 0.1 0.5 -{far.lstrip('-')} 0.5 0.7"):
        (tmp_path / "labels" / "a.txt").write_text(row)
        with pytest.raises(ConfigError, match=r"a.txt, line 1.*finite"):
            read_truth(tmp_path / "images", None, ["cat"])
        with pytest.raises(ConfigError, match=r"a.txt, line 1"):
            boxes_from_text(row, "a.txt")
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [float(far), 1, float(far), 2]}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="bbox"):
        read_truth(tmp_path / "images", tmp_path / "coco.json", ["cat"])


@pytest.mark.parametrize("row", ["4000000000,1,2,3,4,5,1", "1e15,1,2,3,4,5,1", "1,1e300,2,3,4,5,1", "1,1,2,3,4,5,inf"])
def test_a_few_rows_of_tracks_cannot_span_billions_of_frames(row: str, tmp_path: Path) -> None:
    """The scores and a tracker go through every frame: 4 billion took hours and all memory."""
    place = tmp_path / "gt.txt"
    place.write_text(f"1,1,2,3,4,5,1\n{row}\n")
    with pytest.raises(SourceError, match=r"rows may span at most|finite numbers"):
        mot.read_mot(place)


def test_columns_that_are_not_read_may_hold_anything(tmp_path: Path) -> None:
    place = tmp_path / "gt.txt"
    place.write_text("1,1,2,3,4,5,1,nan,nan,nan\n2,1,2,3,4,5,1,nan,inf,-1\n")
    assert mot.read_mot(place).class_id.tolist() == [-1, -1]


def test_rare_rows_of_a_long_night_are_read(tmp_path: Path) -> None:
    place = tmp_path / "gt.txt"
    place.write_text("".join(f"{1 + 900 * n},1,2,3,4,5,1\n" for n in range(1000)))
    assert mot.read_mot(place).last_frame == 899_101
