"""Finding the fault harness, which is not in the installed package."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from pipelines.measuring import faults


def test_the_checkout_of_the_package_is_found() -> None:
    assert (faults.checkout() / "pyproject.toml").is_file()


def test_an_installed_package_says_where_the_faults_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "__file__", str(tmp_path / "site-packages" / "pipelines" / "measuring" / "x.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="source checkout"):
        faults.play_faults()


def test_a_checkout_is_also_found_where_one_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = faults.checkout()
    monkeypatch.setattr(faults, "__file__", str(tmp_path / "site-packages" / "pipelines" / "measuring" / "x.py"))
    monkeypatch.chdir(root)
    assert faults.checkout() == root
