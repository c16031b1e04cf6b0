"""Data sets of strangers: labels that are not numbers, names that lead elsewhere, links, pipes and sizes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engine.errors import ConfigError
from engine.wire import ImageMessage
from pipelines.learning.dataset.boxes import Box
from pipelines.learning.dataset.bring import bring
from pipelines.learning.dataset.look import stats
from pipelines.learning.dataset.project import Project
from pipelines.learning.label.app import boxes_of
from pipelines.learning.monitor.stream_facts import light_of
from pipelines.learning.train.data import _names, _shares
from pipelines.learning.yaml_files import class_names, yaml_file
from pipelines.scoring.labels import read_truth
from tests.hostile.test_sizes import png_claiming

HANG_S = 60
HUGE = 10**400
NAN = float("nan")


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """Reading a pipe or a device would block the test forever."""
    signal.alarm(HANG_S)
    yield
    signal.alarm(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "theirs"
    (made / "images").mkdir(parents=True)
    (made / "images" / "a.png").write_bytes(picture())
    return made


def picture() -> bytes:
    return bytes(cv2.imencode(".png", np.full((100, 100, 3), 90, np.uint8))[1])


def coco(folder: Path, bbox: list[Any], image: str = "a.png", width: Any = 100, category: Any = "cat") -> Path:
    content = {
        "images": [{"id": 1, "file_name": image, "width": width, "height": 100}],
        "categories": [{"id": 1, "name": category}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": bbox}],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return folder / "coco.json"


def label_studio(folder: Path, x: Any, data: Any = None) -> Path:
    value = {"x": x, "y": 1, "width": 5, "height": 5, "rectanglelabels": ["cat"]}
    results = [{"type": "rectanglelabels", "value": value}]
    task = {"data": {"image": "a.png"} if data is None else data, "annotations": [{"result": results}]}
    (folder / "tasks.json").write_text(json.dumps([task]))
    return folder / "tasks.json"


def cvat(folder: Path, x: str, image: str = "a.png") -> Path:
    box = f'<box label="cat" xtl="{x}" ytl="1" xbr="5" ybr="5"/>'
    image = f'<image name="{image}" width="100" height="100">{box}</image>'
    (folder / "cvat.xml").write_text(f"<annotations>{image}</annotations>")
    return folder / "cvat.xml"


def cvat_track(folder: Path, frame: str) -> Path:
    box = f'<box frame="{frame}" xtl="1" ytl="1" xbr="5" ybr="5"/>'
    size = "<original_size><width>100</width><height>100</height></original_size>"
    text = f'<annotations><meta><task>{size}</task></meta><track label="cat">{box}</track></annotations>'
    (folder / "cvat.xml").write_text(text)
    return folder / "cvat.xml"


def voc(folder: Path, x: str) -> Path:
    box = f"<bndbox><xmin>{x}</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
    size = "<size><width>100</width><height>100</height></size>"
    text = f"<annotation><filename>a.png</filename>{size}<object><name>cat</name>{box}</object></annotation>"
    (folder / "a.xml").write_text(text)
    return folder


def yolo(folder: Path, names: str, label: str = "0 .5 .5 .2 .2") -> Path:
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text(label)
    (folder / "data.yaml").write_text(names)
    return folder


REFUSED = [
    pytest.param(lambda f: coco(f, [NAN, 1, 2, 3]), "finite", id="COCO, not a number"),
    pytest.param(lambda f: coco(f, [0, 0, float("inf"), 3]), "finite", id="COCO, infinite"),
    pytest.param(lambda f: coco(f, [HUGE, 1, 2, 3]), "COCO", id="COCO, a number of 400 digits"),
    pytest.param(lambda f: coco(f, [1, 1, 2, 3], width=HUGE), "COCO", id="COCO, a width of 400 digits"),
    pytest.param(lambda f: coco(f, [1, 1, 2, 3], width=0), "COCO", id="COCO, no width"),
    pytest.param(lambda f: coco(f, [1, 1, 2, 3], image="../../x.png"), "no image", id="COCO, a path out of it"),
    pytest.param(lambda f: coco(f, [1, 1, 2, 3], image="a" * 5000 + ".png"), "no image", id="COCO, a long name"),
    pytest.param(lambda f: coco(f, [1, 1, 2, 3], image="a\0.png"), "no image", id="COCO, a name with a zero byte"),
    pytest.param(lambda f: coco(f, [1, 1, 2, 3], category="\ud800"), "control", id="COCO, half a character"),
    pytest.param(lambda f: coco(f, [1, 1, 2, 3], category="a\x1b[2J"), "control", id="COCO, a terminal command"),
    pytest.param(lambda f: coco(f, [1, 1, 2, 3], category="a\nb"), "control", id="COCO, a name of two lines"),
    pytest.param(lambda f: label_studio(f, NAN), "finite", id="Label Studio, not a number"),
    pytest.param(lambda f: label_studio(f, HUGE), "Label Studio", id="Label Studio, 400 digits"),
    pytest.param(lambda f: label_studio(f, 1, data={}), "no image", id="Label Studio, no data"),
    pytest.param(lambda f: label_studio(f, 1, data=[1]), "Label Studio", id="Label Studio, a list as data"),
    pytest.param(lambda f: cvat(f, "nan"), "finite", id="CVAT, not a number"),
    pytest.param(lambda f: cvat(f, "1e999"), "finite", id="CVAT, infinite"),
    pytest.param(lambda f: cvat(f, "1", image="z.png"), r"^\S+cvat.xml: no image", id="CVAT, no such image"),
    pytest.param(lambda f: cvat_track(f, "-5"), "frame -5", id="CVAT, a frame before the first"),
    pytest.param(lambda f: cvat_track(f, "9" * 30), "tracks up to", id="CVAT, a frame far behind the last"),
    pytest.param(lambda f: voc(f, "nan"), "finite", id="VOC, not a number"),
    pytest.param(lambda f: yolo(f, "names: {0: a, b: c}"), "names", id="YOLO, numbers and words as keys"),
    pytest.param(lambda f: yolo(f, "names: {0: a, 2: c}"), "names", id="YOLO, a missing number"),
    pytest.param(lambda f: yolo(f, "[" * 50_000), "nested deeper", id="YOLO, deep YAML"),
    pytest.param(lambda f: yolo(f, "#" * (2 << 20)), "larger than 1 MiB: is it the right file", id="YOLO, long YAML"),
    pytest.param(
        lambda f: yolo(f, "names: [a]", "0 .5 .5 .2 .2\n" * 400_000),
        "larger than 4 MiB: is it the right file",
        id="YOLO, many boxes",
    ),
]


@pytest.mark.parametrize(("make", "reason"), REFUSED)
def test_a_data_set_that_makes_no_sense_is_refused_before_anything_is_written(
    make: Any, reason: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=reason):
        bring(str(make(folder)), str(tmp_path / "mine.fwm"))
    assert not (tmp_path / "mine.fwm").exists()


@pytest.mark.parametrize("bbox", [[50, 50, -20, 20], [50, 50, -20, -20], [50, 50, 0, 5]])
def test_boxes_without_an_area_are_left_out_and_counted(bbox: list[int], folder: Path, tmp_path: Path) -> None:
    brought = bring(str(coco(folder, bbox)), str(tmp_path / "mine.fwm"))
    assert (brought.objects, brought.left_out) == (0, 1)


def _link(place: Path) -> None:
    (place.parent.parent.parent / "private.png").write_bytes(picture())
    place.symlink_to(place.parent.parent.parent / "private.png")


def _sparse(place: Path) -> None:
    with place.open("wb") as file:
        file.write(picture())
        file.truncate(1 << 36)


@pytest.mark.parametrize(
    "make", [_link, os.mkfifo, Path.mkdir, lambda place: place.symlink_to("/dev/zero"), _sparse],
    ids=["link out of it", "pipe", "folder", "endless device", "64 GiB"],
)  # fmt: skip
@pytest.mark.parametrize("form", ["COCO", "folder of images"])
def test_what_is_no_image_of_the_data_set_is_not_read(make: Any, form: str, folder: Path, tmp_path: Path) -> None:
    (folder / "images" / "a.png").unlink()
    make(folder / "images" / "a.png")
    given = coco(folder, [1, 1, 2, 3]) if form == "COCO" else folder / "images"
    with pytest.raises(ConfigError):
        bring(str(given), str(tmp_path / "mine.fwm"), classes=["cat"])
    assert list((tmp_path / "mine.fwm").rglob("*.png")) == []


def _yolo_with_linked_labels(folder: Path) -> Path:
    return _linked(yolo(folder, "names: [cat]"), "labels/a.txt")


def _yolo_with_linked_names(folder: Path) -> Path:
    return _linked(yolo(folder, "names: [cat]"), "data.yaml")


def _voc_with_linked_labels(folder: Path) -> Path:
    return _linked(voc(folder, "1"), "a.xml")


def _linked(folder: Path, name: str) -> Path:
    private = folder.parent / "private"
    (folder / name).rename(private)
    (folder / name).symlink_to(private)
    return folder


@pytest.mark.parametrize("make", [_yolo_with_linked_labels, _yolo_with_linked_names, _voc_with_linked_labels])
def test_labels_that_are_links_out_of_the_data_set_are_not_read(make: Any, folder: Path, tmp_path: Path) -> None:
    """The message about a line that makes no sense quoted it, whosever file it was."""
    with pytest.raises(ConfigError, match="link out of the data set"):
        bring(str(make(folder)), str(tmp_path / "mine.fwm"), classes=["cat"])
    assert not (tmp_path / "mine.fwm").exists()


def test_labels_in_a_linked_folder_are_read(folder: Path, tmp_path: Path) -> None:
    """Whoever links a whole folder arranges a data set of their own."""
    yolo(folder, "names: [cat]")
    (folder / "labels").rename(tmp_path / "elsewhere")
    (folder / "labels").symlink_to(tmp_path / "elsewhere")
    assert bring(str(folder), str(tmp_path / "mine.fwm")).objects == 1


def test_an_image_with_the_longest_name_is_imported(folder: Path, tmp_path: Path) -> None:
    (folder / "images" / ("漢" * 83 + ".png")).write_bytes(picture())
    for _ in range(2):
        bring(str(folder / "images"), str(tmp_path / "mine.fwm"), classes=["cat"])
    assert len(Project(tmp_path / "mine.fwm").images("inbox")) == 4


def test_a_link_in_a_project_is_not_one_of_its_images(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "theirs.fwm", ["cat"])
    (tmp_path / "private.png").write_bytes(picture())
    (project.folder / "inbox").mkdir()
    (project.folder / "inbox" / "a.png").symlink_to(tmp_path / "private.png")
    os.mkfifo(project.folder / "inbox" / "b.png")
    assert project.images("inbox") == []
    with pytest.raises(ConfigError):
        project.find("a.png")


def test_labels_without_an_area_do_not_end_the_statistics(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "theirs.fwm", ["cat"])
    image = np.zeros((10, 10, 3), np.uint8)
    project.save_boxes(project.add(picture(), "a.png", image, {}), [Box(0, 0.5, 0.5, -0.2, 0.2)])
    assert stats(project)["objects"] == 1


def test_labels_of_the_page_are_refused_if_a_number_is_too_large() -> None:
    with pytest.raises(ConfigError):
        boxes_of(json.dumps({"boxes": [{"class_id": 0, "xyxy": [HUGE, 0, 1, 1]}]}).encode(), 1)


def test_labels_to_score_are_refused_if_a_number_is_too_large(folder: Path) -> None:
    with pytest.raises(ConfigError, match="COCO"):
        read_truth(folder / "images", coco(folder, [HUGE, 1, 2, 3]), ["cat"])


def test_an_image_from_a_publisher_that_claims_too_much_is_not_decoded() -> None:
    head = {"schema": "framewire.image/1.0", "engine_id": "e", "run_epoch": 1, "source_id": "gate", "stream_epoch": 0}
    body = {**head, "seq": 1, "published_utc_ns": 1, "frame_id": 1, "captured_utc_ns": 1, "width": 9, "height": 9}
    message = ImageMessage(**body, region=[0, 0, 9, 9], jpeg=png_claiming(20_000, 20_000))
    assert light_of(message) is None


def test_an_image_to_train_on_may_have_a_name_that_is_not_utf8(folder: Path) -> None:
    images = folder / "images"
    os.rename(images / "a.png", os.path.join(os.fsencode(images), b"caf\xe9.png"))
    for number in range(6):
        (images / f"{number}.png").write_bytes(picture())
    content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    for number, place in enumerate(images.glob("*.png")):
        content["images"].append({"id": number, "file_name": place.name, "width": 100, "height": 100})
        content["annotations"].append({"id": number, "image_id": number, "category_id": 1, "bbox": [1, 1, 50, 50]})
    (folder / "coco.json").write_text(json.dumps(content))
    truth = read_truth(images, folder / "coco.json", ["cat"])
    assert len(truth) == 7
    assert [_shares(one)[0][3:] for one in truth] == [[0.5, 0.5]] * 7


@pytest.mark.parametrize("name", ["no", "on", "1:30", "0x1F", "1_000", "7", "1.10", "2026-12-01"])
def test_a_class_name_that_looks_like_something_else_is_kept_as_written(tmp_path: Path, name: str) -> None:
    written = tmp_path / "data.yaml"
    written.write_text(f"names: [{name}, person]\nclasses: {{0: {name}, 1: person}}\n")
    values = yaml_file(written)
    assert class_names(values["names"], "names") == class_names(values["classes"], "classes") == [name, "person"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("names: [true, a]", "True is not a class name: write it in quotes", id="a switch"),
        pytest.param("names: [~]", "None is not a class name", id="nothing"),
        pytest.param("names: {0: a, b: c}", "by number from 0", id="numbers and words as keys"),
        pytest.param("names: {0: a, 2: c}", "by number from 0", id="a missing number"),
        pytest.param("names: person", "expected a list", id="a word"),
        pytest.param("names: &a [*a]", "itself", id="a list that contains itself"),
        pytest.param("names: " + "[" * 2000, "nest", id="deep"),
        pytest.param("when: 2026-99-99\nnames: 5", "expected a list", id="a day that does not exist"),
    ],
)
@pytest.mark.parametrize("name", ["data.yaml", "project.yaml"])
def test_class_names_that_make_no_sense_are_refused_where_training_reads_them(
    tmp_path: Path, text: str, message: str, name: str
) -> None:
    (tmp_path / name).write_text(text.replace("names:", "names:" if name == "data.yaml" else "classes:"))
    with pytest.raises(ConfigError, match=message):
        _names(tmp_path)
