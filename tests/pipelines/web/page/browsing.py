"""Chromium for tests: Debian's, driven by Playwright."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

AXE = "4.14.1"
HELP = 'apt-get install -y chromium && pip install playwright (or pip install "framewire[browser]")'
# Records the rectangles on each overlay since it was last cleared, in pixels of the canvas.
SPY = """
const made = CanvasRenderingContext2D.prototype, clear = made.clearRect, stroke = made.strokeRect;
made.clearRect = function (...a) { this.canvas.drawn = []; return clear.apply(this, a); };
made.strokeRect = function (...a) { (this.canvas.drawn ||= []).push(a); return stroke.apply(this, a); };
"""


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a browser; skip the test with the reason if there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip(f"no chromium: {HELP}")
    api = pytest.importorskip("playwright.sync_api", reason=f"no playwright: {HELP}")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Page:
    """A page that fails the test if it logs an error, throws, violates its policy or leaves its origin."""

    def __init__(self, browser: Any, url: str, path: str = "", *, expected: str = "\0", **options: Any) -> None:
        self.url = url
        self._expected = expected
        self.problems: list[str] = []
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        self.context.add_init_script(SPY)
        self.page = self.context.new_page()
        self.page.set_default_timeout(90_000)
        self.page.on("console", lambda m: m.type == "error" and self.problems.append(m.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", self._check)
        self.page.goto(f"{url}{path}")

    def _check(self, request: Any) -> None:
        if not request.url.startswith((self.url, "blob:", "data:")):
            self.problems.append(f"it asked {request.url}")

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, kind: Any, *_: object) -> None:
        self.context.close()
        if kind is None:
            assert [problem for problem in self.problems if self._expected not in problem] == []


@functools.cache
def axe() -> str:
    """Return the source of axe-core, fetched by npm into a temporary folder; skip the test if that is impossible."""
    if shutil.which("npm") is None:
        pytest.skip("no npm to fetch axe-core: apt-get install -y npm")
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"axe-core@{AXE}", "--pack-destination", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            pytest.skip(f"axe-core cannot be fetched from npm: {done.stderr[-200:]}")
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            file = archive.extractfile("package/axe.min.js")
            assert file is not None
            return file.read().decode()
