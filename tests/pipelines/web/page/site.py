"""A running engine with its page: two synthetic cameras whose frames show their number, and boxes that are exact."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tests.test_layout import CHECKOUT

PATIENCE_S = 90.0
SCENE = "synthetic://?width=640&height=360&fps=8&objects=2&seed=5&realtime=1"
COMMAND = [sys.executable, "-c", "from pipelines.entry import main; main()"]
T = TypeVar("T")


def wait_for(look: Callable[[], T], what: str) -> T:
    """Return the first true answer."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = look()
        if found or time.monotonic() > deadline:
            assert found, f"{what} did not happen in {PATIENCE_S} s"
            return found
        time.sleep(0.05)


class Site:
    """`framewire run … --web 127.0.0.1:0`; further arguments are appended to the command.

    `token` is sent with every request, for sites with users.
    """

    def __init__(self, *arguments: str, sources: dict[str, str] | None = None, token: str = "") -> None:
        self.token = token
        sources = {"cam": SCENE, "yard": SCENE} if sources is None else sources
        self.runtime = tempfile.mkdtemp(prefix="fw")
        os.chmod(self.runtime, 0o700)
        command = [*COMMAND, "run", "--model", "tests.pipelines.web.page.truth:TruthDetector", "--publish", "none"]
        command += ["--tracker", "tests.pipelines.web.page.truth:RowTracker"]
        command += ["--set", f"detector.parameters={{uri: '{SCENE}'}}", "--web", "127.0.0.1:0", "--json"]
        command += [word for name, uri in sources.items() for word in ("--source", f"{name}={uri}")]
        environment = {**os.environ, "XDG_RUNTIME_DIR": self.runtime, "PYTHONPATH": str(CHECKOUT)}
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=CHECKOUT,
        )
        self.log: list[str] = []
        self._reading = threading.Thread(target=self._read_log, daemon=True)
        self._reading.start()
        self.summary: dict[str, Any] = {}

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(iter(self.process.stderr.readline, ""))

    def __enter__(self) -> Site:
        try:
            self.url = wait_for(self._found_url, "the address of the page")
            self.port = int(urlsplit(self.url).port or 0)
            wait_for(lambda: [s for s in self.get("sources")[1] if s["fps"]], "the first frames")
        except BaseException:
            self.close()
            raise
        return self

    def _found_url(self) -> str:
        assert self.process.poll() is None, "".join(self.log)
        return next((line.split()[-1] for line in self.log if "page at" in line), "")

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the run, keep its summary, and remove its files."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=PATIENCE_S) if self.process.stdout else ("", "")
        self._reading.join()
        lines = (out or "").splitlines()
        self.summary = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
        shutil.rmtree(self.runtime, ignore_errors=True)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and the body of an answer: from JSON, or as bytes."""
        client = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            known = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            client.request(method, path, data, {**known, **(headers or {})})
            answer = client.getresponse()
            raw = answer.read()
        finally:
            client.close()
        found = {name.lower(): value for name, value in answer.getheaders()}
        is_json = found.get("content-type") == "application/json"
        return answer.status, found, json.loads(raw) if is_json else raw

    def get(self, path: str) -> tuple[int, Any]:
        """Return status and body of `GET /api/v1/<path>`."""
        status, _, body = self.ask("GET", f"/api/v1/{path}")
        return status, body
