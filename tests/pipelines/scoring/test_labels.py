from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import ConfigError
from pipelines.scoring.labels import find_images, read_truth

NAMES = ("person", "car")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for name in ("b.jpg", "a.png", "notes.txt"):
        if name.endswith("txt"):
            (tmp_path / "images" / name).write_text("no image")
        else:
            cv2.imwrite(str(tmp_path / "images" / name), np.zeros((20, 40, 3), np.uint8))
    return tmp_path


def label(folder: Path, text: str, name: str = "a.txt") -> None:
    (folder / "labels" / name).write_text(text)


@pytest.mark.parametrize("place", [".", "images"])
def test_images_are_found_in_the_folder_or_below(folder: Path, place: str) -> None:
    assert [path.name for path in find_images(folder / place)] == ["a.png", "b.jpg"]


@pytest.mark.parametrize("place", [".", "images"])
def test_yolo_labels_are_found_beside_the_images(folder: Path, place: str) -> None:
    label(folder, "1 0.5 0.5 0.5 0.5\n0 0.25 0.5 0.1 1\n\n")
    first, second = read_truth(folder / place, None, NAMES)
    np.testing.assert_allclose(first.pixels(40, 20), [[10, 5, 30, 15], [8, 0, 12, 20]], atol=1e-4)
    assert first.class_id.tolist() == [1, 0]
    assert second.pixels(40, 20).shape == (0, 4)


def test_a_polygon_is_the_box_around_it(folder: Path) -> None:
    label(folder, "0 0.1 0.2 0.5 0.2 0.3 0.9")
    np.testing.assert_allclose(read_truth(folder, None, NAMES)[0].pixels(100, 100), [[10, 20, 50, 90]], atol=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("person 1 2 3 4", "line 1: .*expected class cx cy w h", id="name"),
        pytest.param("0 0.5 0.5 0.5 0.5\n0 1", "line 2: 1 numbers", id="short"),
        pytest.param("inf 0.5 0.5 0.5 0.5", "line 1: .*expected class cx cy w h", id="infinite class"),
        pytest.param("1e30 0.5 0.5 0.5 0.5", "class 1.*: the model has classes 0 to 1", id="absurd class"),
        pytest.param("0 0.5 nan 0.5 0.5", "line 1: .*finite", id="no number"),
        pytest.param("-1 0.5 0.5 0.5 0.5", "class -1: the model has", id="negative class"),
        pytest.param("2 0.5 0.5 0.5 0.5", "class 2: the model has classes 0 to 1", id="class"),
    ],
)
def test_labels_that_cannot_be_read_are_named(folder: Path, text: str, message: str) -> None:
    label(folder, text)
    with pytest.raises(ConfigError, match=message):
        read_truth(folder, None, NAMES)


def test_labels_that_are_no_text_are_named(folder: Path) -> None:
    (folder / "labels" / "a.txt").write_bytes("0 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.5 0.5 é\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"a\.txt, line 2: not UTF-8"):
        read_truth(folder, None, NAMES)


def test_labels_without_an_object_are_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty: no objects on any of 2 images"):
        read_truth(folder, folder / "empty", NAMES)
    label(folder, "\n")
    with pytest.raises(ConfigError, match="the labels: no object"):
        read_truth(folder, None, NAMES)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param("[person, Car]", [0, 1], id="the model's order"),
        pytest.param("{0: car, 1: person}", [1, 0], id="another order"),
        pytest.param("[Fahrrad, Auto]", [0, 1], id="other words"),
        pytest.param("[car, zebra, person]", "class zebra of data.yaml is not a class of the model", id="unknown"),
        pytest.param("&a [*a]", "data.yaml", id="aliases"),
    ],
)
def test_names_of_a_data_set_say_what_its_numbers_are(folder: Path, names: str, expected: list[int] | str) -> None:
    label(folder, "0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2\n")
    (folder / "data.yaml").write_text(f"train: ../train/images\nnames: {names}\n")
    if isinstance(expected, str):
        with pytest.raises(ConfigError, match=expected):
            read_truth(folder, None, NAMES)
    else:
        assert read_truth(folder, None, NAMES)[0].class_id.tolist() == expected


def coco(path: Path, **changes: object) -> Path:
    data = {
        "images": [{"id": 5, "file_name": "a.png"}, {"id": 6, "file_name": "elsewhere.png"}],
        "categories": [{"id": 3, "name": "Car"}, {"id": 9, "name": "person"}],
        "annotations": [
            {"image_id": 5, "category_id": 3, "bbox": [1, 2, 10, 5]},
            {"image_id": 5, "category_id": 9, "bbox": [0, 0, 4, 4], "iscrowd": 1},
            {"image_id": 6, "category_id": 9, "bbox": [0, 0, 4, 4]},
        ],
    }
    path.write_text(json.dumps(data | changes))
    return path


def test_coco_labels_are_matched_by_name(folder: Path) -> None:
    [truth] = read_truth(folder, coco(folder / "instances.json"), NAMES)
    assert truth.image.name == "a.png"
    assert truth.pixels(40, 20).tolist() == [[1, 2, 11, 7], [0, 0, 4, 4]]
    assert truth.class_id.tolist() == [1, 0]
    assert truth.crowd.tolist() == [False, True]


def test_images_of_one_name_in_several_folders_keep_their_own_objects(folder: Path) -> None:
    own = "/".join((folder / "images" / "a.png").parts[-2:])
    images = [{"id": 5, "file_name": "other/a.png"}, {"id": 6, "file_name": own}]
    [truth] = read_truth(folder, coco(folder / "instances.json", images=images), NAMES)
    assert truth.xyxy.tolist() == [[0, 0, 4, 4]]
    images[1]["file_name"] = "third/a.png"
    with pytest.raises(ConfigError, match=r"names a\.png in several folders"):
        read_truth(folder, coco(folder / "instances.json", images=images), NAMES)


def test_a_category_without_objects_may_be_unknown(folder: Path) -> None:
    """Roboflow writes one, with the name of the data set."""
    categories = [{"id": 0, "name": "signs"}, {"id": 3, "name": "Car"}, {"id": 9, "name": "person"}]
    [truth] = read_truth(folder, coco(folder / "instances.json", categories=categories), NAMES)
    assert truth.class_id.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"categories": [{"id": 3, "name": "zebra"}]}, "json: categories zebra are no", id="category"),
        pytest.param({"annotations": [{"image_id": 77}]}, "not a COCO annotation file", id="annotation"),
        *(
            pytest.param(
                {"annotations": [{"image_id": 5, "category_id": 9, "bbox": bbox}]}, "expected left, top", id=name
            )
            for name, bbox in (("three numbers", [1, 2, 3]), ("no number", [1, 2, 3, float("nan")]))
        ),
        pytest.param({"images": [{"id": 1, "file_name": "x.png"}], "annotations": []}, "does not name", id="images"),
    ],
)
def test_coco_files_that_do_not_fit_are_refused(folder: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_truth(folder, coco(folder / "instances.json", **changes), NAMES)


def test_what_is_missing_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        find_images(tmp_path / "missing")
    with pytest.raises(ConfigError, match="no labels: expected"):
        read_truth(folder, tmp_path / "missing", NAMES)
    (tmp_path / "alone").mkdir()
    with pytest.raises(ConfigError, match="no images in it"):
        find_images(tmp_path / "alone")
