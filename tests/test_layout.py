"""The house: no folder becomes a pile, and no file a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
MAX_FILES = 18
MAX_LINES = 400
PACKAGES = sorted(
    folder for package in ("engine", "pipelines") for folder in [CHECKOUT / package, *(CHECKOUT / package).rglob("*/")]
)


def _modules(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.py") if path.name != "__init__.py"]


def test_the_packages_are_found() -> None:
    assert sum(bool(_modules(folder)) for folder in PACKAGES) > 20


@pytest.mark.parametrize("folder", [pytest.param(f, id=str(f.relative_to(CHECKOUT))) for f in PACKAGES if _modules(f)])
def test_a_folder_holds_few_modules_and_says_what_they_are(folder: Path) -> None:
    assert len(_modules(folder)) <= MAX_FILES
    assert (folder / "__init__.py").read_text().startswith('"""')
    assert [path.name for path in _modules(folder) if len(path.read_text().splitlines()) > MAX_LINES] == []
