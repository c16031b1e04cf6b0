"""Files that come with the package: a detector, a face detector and a clip; LICENSES.md has their origins."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from engine.errors import ConfigError

DEMO_MODEL = "nanodet-g.onnx"
FACE_MODEL = "centerface.onnx"
DEMO_CLIP = "pedestrians.mp4"
DEMO_SCORE_THRESHOLD = 0.4
"""Recommended in the file's metadata.

F1 over all classes on 128 COCO images peaks near 0.35, and F1 for the people in the clip near 0.5. On the clip, 0.4
leaves 7.3 people per frame, of which 87 % are correct, and misses 2 %.
"""


def demo_model() -> Path:
    """Return the ONNX file of the demo detector: NanoDet-g, 80 COCO classes, 416 x 416, for trying things out.

    Raises:
        ConfigError: the file is missing from this installation.
    """
    return asset(DEMO_MODEL)


def face_model() -> Path:
    """Return the ONNX file of the face detector: CenterFace, one class, 640 x 640.

    Raises:
        ConfigError: the file is missing from this installation.
    """
    return asset(FACE_MODEL)


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
        raise ConfigError(f"demo asset {path} is missing: reinstall framewire, or run tools/make/make_demo_assets.py")
    return path
