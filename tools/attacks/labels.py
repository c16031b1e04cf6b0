"""Data sets and label files of others: COCO, Label Studio, CVAT, VOC, YOLO and MOTChallenge, whole folders of them."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np

from engine.errors import EngineError
from pipelines.learning.dataset.boxes import boxes_from_text
from pipelines.learning.dataset.bring import bring
from pipelines.scoring.labels import read_truth
from pipelines.scoring.mot import read_mot
from pipelines.scoring.track import evaluate_mot
from tools.attacks.damage import mutated, replaced
from tools.attacks.parsers import Try, promised

CLASSES = ["cat", "dog"]
YAML_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n" for before, after in itertools.pairwise("abcdefghij")
)
CIRCLE = "names: &names [*names, cat]\n"
NUMBERS = ("nan", "inf", "-inf", "1e308", "-1", "1e-400", "9" * 400, "0x10", "1_0", "٣", "", "1,5", "9000000000000000")
SPARSE_BYTES = 3 << 30
OUTSIDE = "/etc/hostname"
LINKS = (OUTSIDE, "/dev/zero", "/proc/self/environ", "..", ".", "nowhere", "loop")


@cache
def picture(value: int = 90) -> bytes:
    """Return a PNG of 64 by 48 pixels."""
    return cv2.imencode(".png", np.full((48, 64, 3), value, np.uint8))[1].tobytes()


def _coco(folder: Path, rng: random.Random) -> Path:
    tree = {
        "images": [
            {"id": n, "file_name": name, "width": 64, "height": 48} for n, name in enumerate(("a.png", "b.png"))
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(CLASSES)],
        "annotations": [
            {"id": n, "image_id": n % 2, "category_id": n % 2, "bbox": [4, 5, 20, 20], "iscrowd": 0, "area": 400}
            for n in range(3)
        ],
    }
    return _json(folder / "coco.json", tree, rng)


def _label_studio(folder: Path, rng: random.Random) -> Path:
    value = {"x": 10, "y": 1, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["cat"]}
    task = {
        "data": {"image": "/data/upload/1/a.png", "camera": "gate"},
        "annotations": [{"result": [{"type": "rectanglelabels", "original_width": 64, "value": value}]}],
    }
    return _json(folder / "tasks.json", [task, task], rng)


def _json(place: Path, tree: object, rng: random.Random) -> Path:
    body = json.dumps(replaced(rng, tree, 0.05)).encode()
    place.write_bytes(mutated(rng, body) if rng.random() < 0.4 else body)
    return place


def _cvat(folder: Path, rng: random.Random) -> Path:
    box = f'<box label="cat" xtl="{_number(rng, 1)}" ytl="1" xbr="{_number(rng, 20)}" ybr="5" rotation="0"/>'
    track = '<track label="dog"><box frame="1" outside="0" xtl="1" ytl="1" xbr="5" ybr="5"/></track>'
    size = f'width="{_number(rng, 64)}" height="48"'
    text = f'<annotations><version>1.1</version><image id="0" name="a.png" {size}>{box}</image>{track}</annotations>'
    return _text(folder / "cvat.xml", text, rng)


def _voc(folder: Path, rng: random.Random) -> Path:
    box = f"<bndbox><xmin>{_number(rng, 1)}</xmin><ymin>1</ymin><xmax>{_number(rng, 9)}</xmax><ymax>9</ymax></bndbox>"
    size = f"<size><width>{_number(rng, 64)}</width><height>48</height></size>"
    found = f"<filename>a.png</filename>{size}<object><name>cat</name>{box}</object>"
    _text(folder / "a.xml", f"<annotation>{found}</annotation>", rng)
    return folder


def _yolo(folder: Path, rng: random.Random) -> Path:
    (folder / "labels").mkdir()
    _text(folder / "labels" / "a.txt", _rows(rng), rng)
    names = rng.choice(("names: [cat, dog]\n", "names: {0: cat, 1: dog}\nnc: 2\n", YAML_BOMB, CIRCLE))
    _text(folder / "data.yaml", names, rng)
    return folder


def _rows(rng: random.Random) -> str:
    box = [_number(rng, n) for n in (0.5, 0.5, 0.2, 0.2)]
    polygon = " ".join(_number(rng, n) for n in (0.1, 0.1, 0.6, 0.1, 0.5, 0.7))
    return f"{_number(rng, 0)} {' '.join(box)}\n1 {polygon}\n" * rng.choice((1, 1, 50))


def _number(rng: random.Random, usual: float) -> str:
    return rng.choice(NUMBERS) if rng.random() < 0.1 else str(usual)


def _text(place: Path, text: str, rng: random.Random) -> Path:
    body = text.encode()
    place.write_bytes(mutated(rng, body) if rng.random() < 0.6 else body)
    return place


FORMATS: tuple[Callable[[Path, random.Random], Path], ...] = (_coco, _label_studio, _cvat, _voc, _yolo)


def _trapped(folder: Path, rng: random.Random) -> None:
    """Replace a file by a link out of the data set, a pipe, a folder, a sparse file, or a damaged one."""
    places = sorted(path for path in folder.rglob("*") if path.is_file())
    place, how = rng.choice(places), rng.random()
    if how < 0.2:
        os.truncate(place, SPARSE_BYTES)
        return
    if how < 0.3:
        place.write_bytes(mutated(rng, place.read_bytes()))
        return
    place.unlink()
    if how < 0.75:
        place.symlink_to(rng.choice((*LINKS, str(place))))
    elif how < 0.9:
        os.mkfifo(place)
    else:
        place.mkdir()


def _imported(given: Path, images: Path | None, project: Path) -> None:
    """Import a data set, and check what is in the project afterwards."""
    bring(str(given), str(project), classes=CLASSES, images=None if images is None else str(images))
    for path in project.rglob("*"):
        assert not path.is_symlink(), f"{path} is a link"
        if path.is_file() and path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG"), f"{path} is no image"
    for path in project.glob("labels/*/*.txt"):
        for box in boxes_from_text(path.read_text(), str(path)):
            assert all(map(math.isfinite, box.xyxy)), f"{path}: {box}"
            assert -0.001 <= min(box.xyxy) <= max(box.xyxy) <= 1.001, f"{path}: {box}"


def _mot(folder: Path, rng: random.Random, name: str) -> Path:
    rows = [
        [_number(rng, frame), _number(rng, track), "10", _number(rng, 10), "20", "20", _number(rng, 1), "1", "1"]
        for frame in range(1, 6)
        for track in (1, 2)
    ]
    return _text(folder / name, "\n".join(map(",".join, rows)), rng)


def _truth(folder: Path, labels: Path) -> None:
    for one in read_truth(folder / "images", labels, CLASSES):
        assert np.isfinite(one.xyxy).all(), f"{one}"


def _warm_up(folder: Path) -> None:
    """Import what scores tracks, which takes seconds and 60 MB."""
    place = folder / "good.txt"
    place.write_text("1,1,10,10,20,20,1,1,1\n2,1,10,10,20,20,1,1,1\n")
    evaluate_mot(place, place)


def labels(rng: random.Random, folder: Path) -> Iterator[Try]:
    """Data sets of others, imported or used as ground truth, and files of tracks."""
    _warm_up(folder)
    for number in itertools.count():
        theirs, project = folder / "theirs", folder / "project"
        for place in (theirs, project):
            shutil.rmtree(place, ignore_errors=True)
        (theirs / "images").mkdir(parents=True)
        for at, name in enumerate(("a.png", "b.png")):
            (theirs / "images" / name).write_bytes(picture(60 + 90 * at))
        if number % 5 == 4:
            files = [_mot(theirs, rng, name) for name in ("gt.txt", "pred.txt")]
            yield Try(files[0].read_bytes(), partial(promised, EngineError, partial(read_mot, files[0])))
            yield Try(files[0].read_bytes(), partial(promised, EngineError, partial(evaluate_mot, *files)))
            continue
        make = rng.choice(FORMATS)
        given = make(theirs, rng)
        body = given.read_bytes() if given.is_file() else _contents(theirs)
        if rng.random() < 0.2:
            _trapped(theirs, rng)
        yield Try(body, partial(promised, EngineError, partial(_imported, given, None, project)))
        if make in (_coco, _yolo):
            place = given if given.is_file() else theirs / "labels"
            yield Try(body, partial(promised, EngineError, partial(_truth, theirs, place)))


def _contents(folder: Path) -> bytes:
    return b"\n".join(
        path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix in (".txt", ".yaml", ".xml")
    )
