"""One engine with its page, shared by the tests of a worker; those that end it start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pipelines.web.page.site import Site

for package in ("uvicorn", "httptools"):
    pytest.importorskip(package, reason='needs the extra "web": pip install "framewire[web]"')


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    with Site() as made:
        yield made
