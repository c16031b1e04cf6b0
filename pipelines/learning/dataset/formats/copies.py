"""Copies of images in an export."""

from __future__ import annotations

import shutil
from pathlib import Path


def copied(image: Path, place: Path) -> None:
    """Copy an image, creating the target's folders."""
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image, place)
