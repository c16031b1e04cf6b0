"""What `kill -9` leaves of the log: nothing twice, nothing open, nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.events.killing import killed_often


def test_a_killed_engine_leaves_nothing_open_twice_or_lost(tmp_path: Path) -> None:
    found = killed_often(tmp_path, 2, seed=1)
    assert found["events"] > 5


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_fifty_kills(tmp_path: Path) -> None:
    assert killed_often(tmp_path, 50, seed=2)["kills"] == 50


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_kills_beside_a_server(tmp_path: Path, postgres_url: str) -> None:
    assert killed_often(tmp_path, 10, seed=3, store=postgres_url)["kills"] == 10
