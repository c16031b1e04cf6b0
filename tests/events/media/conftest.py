"""A recording of numbered frames, encoded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.events.media.recorded import numbered_clip


@pytest.fixture(scope="session")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of numbered frames."""
    return numbered_clip(tmp_path_factory.mktemp("numbered"))
