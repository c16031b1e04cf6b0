"""CVAT 1.1: one XML file for images, or for a clip with tracks; boxes as corners in pixels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from engine.errors import ConfigError
from pipelines.learning.dataset.boxes import NamedBox, named_box
from pipelines.learning.dataset.formats.base import Exported, Images, Labelled, pictures_of
from pipelines.learning.dataset.formats.copies import copied
from pipelines.scoring.label_files import xml_of

CORNERS = ("xtl", "ytl", "xbr", "ybr")
OTHER_SHAPES = ("polygon", "polyline", "points", "cuboid", "ellipse", "mask", "skeleton")


def read_cvat(path: Path, images: Path | None) -> Iterator[Labelled]:
    """Yield the images of a CVAT file. Raises `ConfigError`."""
    root = xml_of(path)
    if root.tag != "annotations":
        raise ConfigError(f"{path}: begins with <{root.tag}>: expected <annotations> (CVAT)")
    folders = [images] if images else [path.parent, path.parent / "images"]
    places = Images(folders, path)
    try:
        for entry in root.findall("image"):
            size = float(entry.attrib["width"]), float(entry.attrib["height"])
            boxes = [
                _box(shape.attrib["label"], shape, size) for shape in entry.findall("box") if not _is_turned(shape)
            ]
            shapes = sum(len(entry.findall(kind)) for kind in ("box", *OTHER_SHAPES))
            name = entry.attrib["name"]
            part = next((one for one in ("train", "val", "test") if one in Path(name).parts), "")
            yield Labelled(places.find(name), boxes, part=part, left_out=shapes - len(boxes))
        if root.find("track") is not None:
            yield from _frames(root, folders)
    except ConfigError:
        raise
    except (KeyError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"{path}: {type(error).__name__} {error}: expected images with boxes of CVAT 1.1") from error


def _is_turned(shape: ElementTree.Element) -> bool:
    return float(shape.attrib.get("rotation", 0)) != 0


def _box(name: str, shape: ElementTree.Element, size_wh: tuple[float, float]) -> NamedBox:
    x1, y1, x2, y2 = (float(shape.attrib[key]) for key in CORNERS)
    return named_box(name, x1, y1, x2, y2, size_wh)


def _frames(root: ElementTree.Element, folders: Sequence[Path]) -> Iterator[Labelled]:
    """Yield the frames of a labelled clip: its images must be in the folder, in order, as CVAT exports them."""
    size = (
        float(root.findtext("meta//original_size/width") or 0),
        float(root.findtext("meta//original_size/height") or 0),
    )
    rows: dict[int, list[NamedBox]] = defaultdict(list)
    for track in root.findall("track"):
        for shape in track.findall("box"):
            if shape.attrib.get("outside") != "1":
                number = int(shape.attrib["frame"])
                if number < 0:
                    raise ValueError(f"frame {number}")
                rows[number].append(_box(track.attrib["label"], shape, size))
    pictures = [image for folder in folders if folder.is_dir() for image in pictures_of(folder)]
    if not pictures or max(rows, default=0) >= len(pictures):
        raise ValueError(f"tracks up to frame {max(rows, default=0)}, and {len(pictures)} images: give --images")
    for number, image in enumerate(pictures):
        yield Labelled(image, rows[number], fields={"clip": folders[0].name})


def write_cvat(items: Sequence[Exported], classes: Sequence[str], folder: Path) -> None:
    """Write `annotations.xml` and the images."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    for name in classes:
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
    for number, one in enumerate(items):
        copied(one.image, folder / "images" / one.name)
        width, height = one.size_wh
        attributes = {"id": str(number), "name": one.name, "width": str(width), "height": str(height)}
        entry = ElementTree.SubElement(root, "image", attributes)
        for box in one.boxes:
            corners = {key: f"{value:.9g}" for key, value in zip(CORNERS, one.pixels(box), strict=True)}
            ElementTree.SubElement(entry, "box", {"label": classes[box.class_id], "occluded": "0", **corners})
    ElementTree.ElementTree(root).write(folder / "annotations.xml", encoding="utf-8", xml_declaration=True)
