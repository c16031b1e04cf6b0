"""Pictures that several tests learn from, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.learning.pictures import write_digits, write_textures


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """130 images of each digit."""
    pytest.importorskip("sklearn", reason='scikit-learn is missing: pip install "framewire[classic]"')
    return write_digits(tmp_path_factory.mktemp("digits"), 130)


@pytest.fixture(scope="session")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images of each of five textures."""
    return write_textures(tmp_path_factory.mktemp("textures"), 40)
