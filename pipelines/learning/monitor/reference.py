"""The reference of a released model, from its test images."""

from __future__ import annotations

from pathlib import Path

from engine.data import Frame
from engine.detection.load import load_detector
from pipelines.learning.monitor.drift import Reference, frame_facts, make_reference
from pipelines.scoring.labels import find_images
from pipelines.scoring.pictures import read_picture


def reference_of(model: Path, images: Path) -> Reference:
    """Return a detector's statistics on the images of a folder.

    Raises:
        ModelError: the model cannot be loaded.
        ConfigError: an image cannot be read, or there are too few.
    """
    frames = []
    with load_detector(model, try_first=True) as detector:
        for path in find_images(images):
            image = read_picture(path)
            [found] = detector.detect([Frame(image)])
            frames.append(frame_facts(found, (image.shape[1], image.shape[0]), image))
        return make_reference(frames, len(detector.class_names) + 1, detector.class_names)  # and one for the rest
