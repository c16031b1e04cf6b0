"""`dataset stats` and `dataset check`: what a project contains, and what is wrong with it."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from pipelines.learning.dataset.boxes import Box, why_unsound
from pipelines.learning.dataset.likeness import clusters
from pipelines.learning.dataset.project import INBOX, PARTS, Project, read_picture
from pipelines.learning.dataset.split import MAX_COMPARED, check_test, read_splits

AREAS = ((0.0, "below 0.1 %"), (0.001, "0.1 to 1 %"), (0.01, "1 to 10 %"), (0.1, "above 10 %"))
"""As fractions of the image's area."""
SAME_IOU = 0.9
"""Two boxes of one class that overlap by more than this are one object labelled twice."""
TINY = 1 / 200
"""Side of a box, as a fraction of the image, below which hardly a pixel remains at typical input sizes."""


def stats(project: Project) -> dict[str, Any]:
    """Return counts of images, objects per class and split, sizes, and objects per image."""
    per_part: dict[str, Counter[str]] = {part: Counter() for part in PARTS}
    sizes: Counter[str] = Counter()
    empty, counts = 0, []
    for part, image in project.labelled():
        boxes = project.boxes(image)
        empty += not boxes
        counts.append(len(boxes))
        per_part[part].update(_name(project, box) for box in boxes)
        sizes.update(map(_size_name, boxes))
    rows = {name: {part: per_part[part][name] for part in PARTS} for name in project.classes}
    fields = Counter(origin.fields.get("camera", "") for origin in project.origins().values())
    return {
        "classes": rows,
        "images": {part: len(project.images(part)) for part in (INBOX, *PARTS)},
        "objects": sum(counts),
        "objects_per_image": round(sum(counts) / len(counts), 2) if counts else 0.0,
        "without_objects": empty,
        "areas": {name: sizes[name] for _, name in AREAS},
        "cameras": {name: count for name, count in sorted(fields.items()) if name},
    }


def _size_name(box: Box) -> str:
    """Return the range that the area of a box is in; boxes without an area are in the first."""
    return next((name for least, name in reversed(AREAS) if box.w * box.h >= least), AREAS[0][1])


def _name(project: Project, box: Box) -> str:
    return project.classes[box.class_id] if box.class_id < len(project.classes) else f"class {box.class_id}"


def check(project: Project, *, decode: bool = True) -> list[dict[str, str]]:
    """Return the problems found: `kind`, `place`, `what`; empty if there are none.

    Kinds: `label` (a line that is not a label, a box without area or outside), `twice` (one object labelled twice),
    `tiny`, `picture` (cannot be read), `orphan` (a label without its image), `leak` (near-duplicates in different
    splits), `lock` (the test split has changed).

    Args:
        project: the project.
        decode: read every image completely, to find damaged ones.
    """
    found: list[dict[str, str]] = []
    for _, image in project.labelled():
        found += _of_picture(project, image, decode=decode)
    for part in PARTS:
        stems = {image.stem for image in project.images(part)}
        for label in sorted((project.folder / "labels" / part).glob("*.txt")):
            if label.stem not in stems:
                found.append(_row("orphan", label, "labels without an image: delete them, or restore the image"))
    found += _leaks(project)
    try:
        check_test(project.folder)
    except ConfigError as error:
        found.append(_row("lock", project.folder / "splits.json", str(error)))
    return found


def _row(kind: str, place: Path, what: str) -> dict[str, str]:
    return {"kind": kind, "place": str(place), "what": what}


def _of_picture(project: Project, image: Path, *, decode: bool) -> list[dict[str, str]]:
    found, label = [], project.label_of(image)
    try:
        if decode:
            read_picture(image)
    except ConfigError as error:
        found.append(_row("picture", image, str(error)))
    if not label.is_file():
        return [
            *found,
            _row("label", image, "has no label file, but counts as labelled: label it, or move it to inbox"),
        ]
    try:
        boxes = project.boxes(image)
    except ConfigError as error:
        return [*found, _row("label", label, str(error))]
    for number, box in enumerate(boxes, 1):
        what = why_unsound(box, len(project.classes))
        if what is not None:
            found.append(_row("label", label, f"line {number} {what}"))
        elif min(box.w, box.h) < TINY:
            found.append(_row("tiny", label, f"line {number} is {box.w:.4f} x {box.h:.4f} of the picture"))
    for first, second in _twice(boxes):
        found.append(_row("twice", label, f"lines {first + 1} and {second + 1} label one object twice"))
    return found


def _twice(boxes: list[Box]) -> list[tuple[int, int]]:
    return [
        (at, other)
        for at, one in enumerate(boxes)
        for other in range(at + 1, len(boxes))
        if one.class_id == boxes[other].class_id and _iou(one, boxes[other]) > SAME_IOU
    ]


def _iou(a: Box, b: Box) -> float:
    ax1, ay1, ax2, ay2 = a.xyxy
    bx1, by1, bx2, by2 = b.xyxy
    shared = max(min(ax2, bx2) - max(ax1, bx1), 0.0) * max(min(ay2, by2) - max(ay1, by1), 0.0)
    return shared / max(a.w * a.h + b.w * b.h - shared, 1e-12)


def _leaks(project: Project) -> list[dict[str, str]]:
    """Return near-duplicates in different splits, if the project is split."""
    if not read_splits(project.folder):
        return []
    origins = project.origins()
    images = [(part, image) for part, image in project.labelled() if part != "held" and image.name in origins]
    if len(images) > MAX_COMPARED:
        return [_row("leak", project.folder, f"{len(images)} images: too many to compare with each other")]
    by_cluster = defaultdict(list)
    numbers = clusters([origins[image.name].look for _, image in images])
    for number, (part, image) in zip(numbers, images, strict=True):
        by_cluster[number].append((part, image))
    return [
        _row("leak", members[0][1], f"looks like {other} in {part}, and is itself in {members[0][0]}")
        for members in by_cluster.values()
        for part, other in members[1:]
        if part != members[0][0]
    ]
