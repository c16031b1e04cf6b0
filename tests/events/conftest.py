"""One server of PostgreSQL for all tests of this folder, and stores on both databases."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.events.store.place import StorePlace
from tests.events.postgres_server import HOW_TO_GET_IT, binary, postgres

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[str]:
    """The folder of a running server."""
    psycopg = pytest.importorskip("psycopg", reason=HOW_TO_GET_IT)
    if binary("initdb") is None or (shutil.which("runuser") is None):
        pytest.skip(HOW_TO_GET_IT)
    with postgres() as folder:
        assert psycopg
        yield folder


@pytest.fixture
def postgres_url(postgres_folder: str) -> str:
    """The address of a new, empty database."""
    import psycopg

    name = f"events{next(_NUMBERS)}"
    with psycopg.connect(f"host={postgres_folder} user=me dbname=postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql://me@/{name}?host={postgres_folder}"


MakePlace = Callable[[], StorePlace]


@pytest.fixture(params=["sqlite", "postgresql"])
def make_place(request: pytest.FixtureRequest, tmp_path: Path) -> MakePlace:
    """Return a function that names the same store again, as another process would."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    return lambda: StorePlace(tmp_path / "events", url)


@pytest.fixture
def place(make_place: MakePlace) -> StorePlace:
    """An empty store."""
    return make_place()
