"""Detection on single images: one JSON line and, optionally, one annotated image per image."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data import NO_IDENTITY, Detections, Frame, Packet, Run, Tracks
from engine.errors import ConfigError, SinkError
from engine.paths import how_to_write, utf8_text
from engine.protocols import Detector
from engine.video.read_image import IMAGE_SUFFIXES, can_write, read_image, write_image
from engine.wire import rle_from_mask

Progress = Callable[[int, int], None]
Picture = NDArray[np.uint8]
Draw = Callable[[Frame, Detections, Sequence[str]], Picture]
Hide = Callable[[Packet], Packet]


@dataclass(frozen=True, slots=True)
class ImageResult:
    """The detections on one image.

    Attributes:
        path: the file.
        frame: its pixels.
        detections: the objects found.
    """

    path: Path
    frame: Frame
    detections: Detections

    def as_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return plain values for JSON; boxes in pixels of the image."""
        found = self.detections
        objects: list[dict[str, Any]] = [
            {
                **_class_score(class_id, score, class_names),
                "xyxy": [round(value, 2) for value in xyxy],
            }
            for class_id, score, xyxy in zip(
                found.class_id.tolist(), found.score.tolist(), found.xyxy.tolist(), strict=True
            )
        ]
        for name in ("keypoints", "xyxyxyxy"):
            for row, values in zip(objects, found.extra.get(name, ()), strict=False):
                row[name] = np.round(values.astype(float), 2).tolist()
        for row, mask in zip(objects, found.extra.get("mask", ()), strict=False):
            runs = rle_from_mask(mask)
            row["mask"] = {"size": list(runs.size), "counts": list(runs.counts)}
        for row, pairs in zip(objects, found.extra.get("classes", ()), strict=False):
            row["classes"] = [_class_score(int(class_id), score, class_names) for class_id, score in pairs.tolist()]
        return {
            "image": utf8_text(str(self.path)),
            "width": self.frame.width,
            "height": self.frame.height,
            "objects": objects,
        }


def _class_score(class_id: int, score: float, class_names: Sequence[str]) -> dict[str, Any]:
    name = class_names[class_id] if class_id < len(class_names) else str(class_id)
    return {"class_id": class_id, "class_name": name, "score": round(score, 4)}


def expand_images(paths: Sequence[str | Path]) -> list[Path]:
    """Return the image files that `paths`, files and folders, refer to, in order.

    Raises:
        ConfigError: a path does not exist, or a folder has no images.
    """
    files: list[Path] = []
    for place in map(Path, paths):
        if place.is_dir():
            inside = sorted(path for path in place.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise ConfigError(f"{place}: no images in it: expected {', '.join(sorted(IMAGE_SUFFIXES))}")
            files += inside
        elif place.is_file():
            files.append(place)
        else:
            raise ConfigError(f"{place}: no such image or folder")
    return files


def detect_images(detector: Detector, paths: Sequence[str | Path]) -> Iterator[ImageResult]:
    """Yield the detections on each image, in order; opens and closes the detector.

    Raises:
        ConfigError: an image does not exist or cannot be read.
    """
    files = expand_images(paths)
    try:
        detector.open()
        for index, path in enumerate(files):
            try:
                image = read_image(path)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"{path}: not readable as an image: expected a whole JPEG, PNG, ... file: {error}"
                ) from error
            frame = Frame(np.asarray(image, np.uint8), path.stem, index, time.monotonic_ns(), time.time_ns())
            yield ImageResult(path, frame, detector.detect([frame])[0])
    finally:
        detector.close()


def detect_to_files(
    detector: Detector,
    paths: Sequence[str | Path],
    *,
    save: str | Path | None = None,
    jsonl: str | Path | None = None,
    draw: Draw | None = None,
    hide: Hide | None = None,
    progress: Progress | None = None,
) -> Iterator[dict[str, Any]]:
    """Detect on images, write the requested outputs, and yield one plain result per image as soon as it is done.

    Args:
        detector: opened and closed here.
        paths: images and folders of images.
        save: folder for annotated images, named like the originals; JPEG if OpenCV cannot write their format.
        jsonl: file for one JSON line per image; lines written before an unreadable image are kept.
        draw: draws the annotated image; None: the engine's overlay.
        hide: hides people on an image before it is drawn; None: nothing is hidden.
        progress: called with the number of images done and the total.

    Raises:
        ConfigError: an image does not exist or cannot be read, or an annotated image would overwrite another image.
        SinkError: an output that cannot be written.
    """
    files = expand_images(paths)
    targets = _targets(files, Path(save)) if save is not None else []
    paint = draw if draw is not None or save is None else _overlay()
    with _line_writer(None if jsonl is None else Path(jsonl)) as write_line:
        for index, result in enumerate(detect_images(detector, files)):
            found = result.as_dict(detector.class_names)
            write_line(json.dumps(found))
            if targets and paint is not None:
                frame = _shown(result, detector.class_names, hide)
                _write(targets[index], paint(frame, result.detections, detector.class_names))
            if progress is not None:
                progress(index + 1, len(files))
            yield found


def _shown(result: ImageResult, class_names: Sequence[str], hide: Hide | None) -> Frame:
    """Return the frame to draw on, with people hidden if they must be."""
    return result.frame if hide is None else hide(packet_of_image(result.frame, result.detections, class_names)).frame


def packet_of_image(frame: Frame, detections: Detections, class_names: Sequence[str]) -> Packet:
    """Return the detections on a single image as the packet of a run without a tracker."""
    rows, nobody = np.arange(len(detections)), np.full(len(detections), NO_IDENTITY)
    tracks = Tracks(detections.xyxy, detections.score, detections.class_id, nobody, detection_index=rows)
    return Packet(frame, detections, tracks, Run("detect", 0, "", tuple(class_names)))


def _targets(files: Sequence[Path], folder: Path) -> list[Path]:
    """Return the path of each image's annotated image.

    Raises:
        ConfigError: it would overwrite an image or another annotated image.
    """
    images = {path.resolve(): path for path in files}
    source_by_target: dict[Path, Path] = {}
    targets = []
    for path in files:
        target = folder / path.name
        if not can_write(target):
            target = target.with_suffix(".jpg")
        place = target.resolve()
        if place in images:
            raise ConfigError(f"{target}: would overwrite the image {images[place]}: save to another folder")
        other = source_by_target.setdefault(place, path)
        if other.resolve() != path.resolve():
            raise ConfigError(f"{target}: the image of both {other} and {path}: save them to separate folders")
        targets.append(target)
    return targets


def _overlay() -> Draw:
    """Return a function that draws boxes, labels, masks, keypoints and oriented boxes, one colour per class."""
    from engine.imaging.overlay import Overlay

    overlay = Overlay(trace=False, color_by="class")

    def draw(frame: Frame, detections: Detections, class_names: Sequence[str]) -> Picture:
        return overlay.draw(packet_of_image(frame, detections, class_names))

    return draw


def _write(path: Path, picture: Picture) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"{path.parent}: cannot be created: {error.strerror}") from error
    try:
        write_image(path, picture)
    except (OSError, ValueError) as error:
        raise SinkError(
            f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}: {how_to_write(error)}"
        ) from error


@contextmanager
def _line_writer(path: Path | None) -> Iterator[Callable[[str], None]]:
    """Yield a function that writes a line at once; it does nothing if there is no path."""
    if path is None:
        yield lambda line: None
        return
    with _told(path):
        file = path.open("w", encoding="utf-8", buffering=1)

    def write(line: str) -> None:
        with _told(path):
            file.write(line + "\n")

    try:
        yield write
    finally:
        with suppress(OSError):  # a failed line has already been reported
            file.close()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SinkError(f"{path}: cannot be written: {error.strerror}: {how_to_write(error)}") from error
