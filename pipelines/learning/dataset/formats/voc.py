"""Pascal VOC: one XML file per image, corners in pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from engine.errors import ConfigError
from pipelines.learning.dataset.boxes import NamedBox, named_box
from pipelines.learning.dataset.formats.base import Exported, Images, Labelled, checked
from pipelines.learning.dataset.formats.copies import copied
from pipelines.scoring.label_files import MAX_IMAGE_BYTES, xml_of


def voc_files(folder: Path) -> list[Path]:
    """Return the XML files of a VOC data set, by name."""
    return sorted(path for path in folder.rglob("*.xml") if path.is_file())


def read_voc(folder: Path, images: Path | None) -> Iterator[Labelled]:
    """Yield the images of a folder of VOC files. Raises `ConfigError`."""
    places = Images([images or folder], folder)
    for path in voc_files(folder):
        root = xml_of(checked(path, [folder]), MAX_IMAGE_BYTES)
        if root.tag != "annotation":
            raise ConfigError(f"{path}: begins with <{root.tag}>: expected <annotation> (Pascal VOC)")
        try:
            size = float(_text(root, "size/width")), float(_text(root, "size/height"))
            boxes = [_box(entry, size) for entry in root.findall("object")]
            name = root.findtext("filename") or f"{path.stem}.jpg"
        except (ValueError, ArithmeticError) as error:
            raise ConfigError(f"{path}: {error}: expected size and objects with a bndbox") from error
        part = next((name for name in ("train", "val", "test") if name in path.relative_to(folder).parts), "")
        yield Labelled(places.find(f"{part}/{name}" if part else name), boxes, part=part)


def _text(entry: ElementTree.Element, path: str) -> str:
    found = entry.findtext(path)
    if found is None:
        raise ValueError(f"no {path}")
    return found


def _box(entry: ElementTree.Element, size_wh: tuple[float, float]) -> NamedBox:
    corners = [float(_text(entry, f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
    return named_box(_text(entry, "name"), corners[0], corners[1], corners[2], corners[3], size_wh)


def write_voc(items: Sequence[Exported], classes: Sequence[str], folder: Path) -> None:
    """Write the images in `JPEGImages`, the labels in `Annotations`, each by split."""
    for one in items:
        copied(one.image, folder / "JPEGImages" / one.name)
        root = ElementTree.Element("annotation")
        ElementTree.SubElement(root, "filename").text = Path(one.name).name
        size = ElementTree.SubElement(root, "size")
        for key, value in zip(("width", "height", "depth"), (*one.size_wh, 3), strict=True):
            ElementTree.SubElement(size, key).text = str(value)
        for box in one.boxes:
            entry = ElementTree.SubElement(root, "object")
            ElementTree.SubElement(entry, "name").text = classes[box.class_id]
            corners = ElementTree.SubElement(entry, "bndbox")
            for key, number in zip(("xmin", "ymin", "xmax", "ymax"), one.pixels(box), strict=True):
                ElementTree.SubElement(corners, key).text = f"{number:.9g}"
        place = (folder / "Annotations" / one.name).with_suffix(".xml")
        place.parent.mkdir(parents=True, exist_ok=True)
        ElementTree.ElementTree(root).write(place, encoding="unicode")
