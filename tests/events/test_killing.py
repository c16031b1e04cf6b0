"""The log after `kill -9`: nothing twice, nothing left open, nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.events.killing import killed_often


def test_a_killed_engine_leaves_nothing_open_twice_or_lost(tmp_path: Path) -> None:
    found = killed_often(tmp_path, 2, seed=1)
    assert found["events"] > 5


@pytest.mark.soak
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_fifty_kills(tmp_path: Path, store: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres_url") if store == "postgresql" else None
    found = killed_often(tmp_path, 50, seed=2, store=url)
    print(store, found)
    assert found["kills"] == 50
