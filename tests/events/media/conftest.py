"""A recording of numbered frames, encoded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.media import encode_clip, numbered_images


@pytest.fixture(scope="session")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of numbered frames with a keyframe every two seconds."""
    path = tmp_path_factory.mktemp("numbered") / "numbered.mp4"
    images = numbered_images(250, width=160, height=120)
    return encode_clip(path, images, options={"g": "50", "sc_threshold": "0", "preset": "ultrafast", "bf": "0"})
