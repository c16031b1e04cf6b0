"""`dataset import`: images and labels from other programs, images without labels, and frames of clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2

from engine.errors import ConfigError
from engine.paths import path_from_text
from engine.video.read_image import IMAGE_SUFFIXES
from pipelines.learning.dataset.boxes import Box, NamedBox
from pipelines.learning.dataset.formats.base import Labelled, pictures_of
from pipelines.learning.dataset.formats.coco import is_coco, read_coco
from pipelines.learning.dataset.formats.cvat import read_cvat
from pipelines.learning.dataset.formats.label_studio import is_label_studio, read_label_studio
from pipelines.learning.dataset.formats.voc import read_voc, voc_files
from pipelines.learning.dataset.formats.yolo import read_yolo
from pipelines.learning.dataset.likeness import is_known, look_of
from pipelines.learning.dataset.project import Project, open_or_create, read_picture
from pipelines.scoring.label_files import json_of

JPEG_QUALITY = 95
Progress = Callable[[int, int], None]


@dataclass
class Brought:
    """What an import did, in counts.

    Attributes:
        images: images added.
        labelled: images with labels.
        objects: boxes added.
        left_out: shapes that are not boxes, boxes without an area, and boxes of unwanted classes.
        alike: frames of a clip left out because they look like an existing one.
        clipped: boxes that extended beyond their image and were clipped.
        by_class: boxes by class.
    """

    images: int = 0
    labelled: int = 0
    objects: int = 0
    left_out: int = 0
    alike: int = 0
    clipped: int = 0
    by_class: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**{key: getattr(self, key) for key in self.__dataclass_fields__}, "by_class": dict(self.by_class)}


def bring(
    given: str,
    folder: str,
    *,
    classes: Sequence[str] = (),
    images: str | None = None,
    names: Sequence[str] = (),
    camera: str | None = None,
    every: int = 30,
    progress: Progress | None = None,
) -> Brought:
    """Import a data set, a folder of images or a clip into a project, which is created if it does not exist.

    Args:
        given: a COCO or Label Studio JSON file, a CVAT XML file, a folder (YOLO, VOC or just images), or a clip.
        folder: of the project.
        classes: the classes to keep; by default all of the data set's, or those of the project.
        images: where the images are, if not next to the labels.
        names: of the class numbers, for YOLO files without a data.yaml; by default `classes`.
        camera: the camera of the images, for `split --by camera`.
        every: take every n-th frame of a clip.
        progress: called with images done and the total, 0 if unknown.

    Raises:
        ConfigError: it is not one of these, a file is broken, or the project lacks a class.
    """
    source, place = path_from_text(given), None if images is None else path_from_text(images)
    if not source.exists():
        raise ConfigError(f"{source}: no such file or folder")
    if (source / "project.yaml").is_file():
        raise ConfigError(f"{source}: is a project: export it first, then import the export")
    if source.is_file() and source.suffix.lower() not in (".json", ".xml", *IMAGE_SUFFIXES):
        return _bring_clip(source, folder, classes, camera, every, progress)
    rows = list(_read(source, place, names or classes))
    if not rows:
        raise ConfigError(f"{source}: no images in it")
    found = list(dict.fromkeys(box.name for row in rows for box in row.boxes))
    project = _project(folder, list(classes) or found, found if not classes else ())
    brought = Brought()
    for number, row in enumerate(rows):
        _bring_one(project, row, camera, brought)
        if progress is not None:
            progress(number + 1, len(rows))
    return brought


def _project(folder: str, wanted: Sequence[str], found: Sequence[str]) -> Project:
    if not wanted and not (Path(folder) / "project.yaml").is_file():
        raise ConfigError(f"{folder}: the classes of this project are unknown: give --classes person,car")
    project = open_or_create(folder, wanted)
    foreign = [name for name in found if name not in project.classes]
    if foreign:
        raise ConfigError(
            f"{folder}: the data set has the class {foreign[0]!r}, the project only {', '.join(project.classes[:8])}: "
            "give --classes with those to import, or add it to project.yaml"
        )
    return project


def _read(source: Path, images: Path | None, names: Sequence[str]) -> Iterator[Labelled]:
    if source.is_file():
        yield from _read_file(source, images)
    elif (source / "data.yaml").is_file() or (source / "labels").is_dir():
        yield from read_yolo(source, images, names)
    elif voc_files(source):
        yield from read_voc(source, images)
    else:
        for image in pictures_of(source):
            fields = {"folder": image.parent.name}
            yield Labelled(image, is_labelled=False, fields=fields)


def _read_file(source: Path, images: Path | None) -> Iterator[Labelled]:
    suffix = source.suffix.lower()
    if suffix == ".xml":
        return read_cvat(source, images)
    if suffix in IMAGE_SUFFIXES:
        return iter([Labelled(source, is_labelled=False)])
    content = json_of(source)
    if is_coco(content):
        return read_coco(source, images)
    if is_label_studio(content):
        return read_label_studio(source, images)
    raise ConfigError(f"{source}: neither a COCO file (images, categories) nor tasks of Label Studio")


def _bring_one(project: Project, row: Labelled, camera: str | None, brought: Brought) -> None:
    content, image = read_picture(row.image)
    fields = {"folder": row.image.parent.name, **row.fields, **({"camera": camera} if camera else {})}
    if row.part:
        fields["part"] = row.part
    place = project.add(content, row.image.name, image, fields)
    brought.images += 1
    brought.left_out += row.left_out
    if not row.is_labelled:
        return
    boxes = [_box(project, one, brought) for one in row.boxes if one.name in project.classes and min(one.w, one.h) > 0]
    brought.left_out += len(row.boxes) - len(boxes)
    kept = [box for box in boxes if box is not None]
    project.save_boxes(place, kept, row.part or "train")
    brought.labelled += 1
    brought.objects += len(kept)
    brought.by_class.update(project.classes[box.class_id] for box in kept)


def _box(project: Project, one: NamedBox, brought: Brought) -> Box | None:
    """Return a box clipped to its image, or None if it lies entirely outside."""
    box = Box(project.classes.index(one.name), one.cx, one.cy, one.w, one.h)
    if min(box.xyxy) >= -1e-6 and max(box.xyxy) <= 1 + 1e-6:
        return box
    x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in box.xyxy)
    brought.clipped += 1
    return None if x2 <= x1 or y2 <= y1 else Box(box.class_id, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)


def _bring_clip(
    clip: Path, folder: str, classes: Sequence[str], camera: str | None, every: int, progress: Progress | None
) -> Brought:
    from engine.sources.open import open_source

    project, brought = _project(folder, classes, ()), Brought()
    known = [origin.look for origin in project.origins().values()]
    day = datetime.fromtimestamp(clip.stat().st_mtime, timezone.utc).date().isoformat()
    fields = {"camera": camera or clip.stem, "clip": clip.stem, "day": day}
    source = open_source(str(clip))
    total = (source.info.frame_count or 0) // every
    for frame in source:
        if frame.frame_id % every:
            continue
        look = look_of(frame.image)
        if is_known(look, known):
            brought.alike += 1
            continue
        known.append(look)
        name = f"{clip.stem}_{frame.frame_id:06d}.jpg"
        project.add(encoded(frame.image), name, frame.image, fields, frame=frame.frame_id)
        brought.images += 1
        if progress is not None:
            progress(brought.images + brought.alike, total)
    return brought


def encoded(image: Any) -> bytes:
    """Return a (H, W, 3) uint8 BGR image as a JPEG that preserves what models use. Raises `ConfigError`."""
    done, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ConfigError("a frame cannot be encoded as a JPEG")
    return bytes(content)
