"""Copies of pictures in an export."""

from __future__ import annotations

import shutil
from pathlib import Path


def copied(image: Path, place: Path) -> None:
    """Copy a picture to a place whose folders are made."""
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image, place)
