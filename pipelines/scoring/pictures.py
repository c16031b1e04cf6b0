"""Reading the images of a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.video.read_image import read_image


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Return a (h, w, 3) uint8 BGR image. Raises `ConfigError` if the file is not an image."""
    try:
        image: NDArray[np.uint8] = read_image(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not readable as an image: remove or replace it: {error}") from error
    return image
