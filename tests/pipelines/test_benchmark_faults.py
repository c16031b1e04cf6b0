"""Finding the fault harness, which is not in the installed package."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from pipelines import benchmark_faults


def test_the_checkout_of_the_package_is_found() -> None:
    assert (benchmark_faults.checkout() / "pyproject.toml").is_file()


def test_an_installed_package_says_where_the_faults_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_faults, "__file__", str(tmp_path / "site-packages" / "pipelines" / "x.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="source checkout"):
        benchmark_faults.play_faults()


def test_a_checkout_is_also_found_where_one_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = benchmark_faults.checkout()
    monkeypatch.setattr(benchmark_faults, "__file__", str(tmp_path / "site-packages" / "pipelines" / "x.py"))
    monkeypatch.chdir(root)
    assert benchmark_faults.checkout() == root
