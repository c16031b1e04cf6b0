"""Inputs in shared memory: a server on this host reads them there; one that cannot gets them as bytes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.backends.base import BackendOptions
from engine.backends.remote.backend import KServeBackend
from tests.backends.remote import test_kserve
from tests.backends.remote.test_kserve import FEEDS, ask, serving

METADATA = test_kserve.METADATA | {"extensions": ["binary_tensor_data", "system_shared_memory"]}


class Sharing(test_kserve.Server):
    """Returns twice its input, which it reads where the request says."""

    def __init__(self, *, refuses: str = "", needs: str = "") -> None:
        super().__init__(metadata=METADATA)
        self.RequestHandlerClass = _Handler
        self.regions: dict[str, np.ndarray] = {}
        self.refuses, self.needs = refuses, needs
        self.sent_bytes = 0

    def answer(self, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if "systemsharedmemory" in path:
            return self._region(*path.split("/")[-2:], headers, body)
        head = int(headers["Inference-Header-Content-Length"])
        asked, self.sent_bytes = json.loads(body[:head])["inputs"][0], self.sent_bytes + len(body) - head
        where = asked["parameters"]
        if "shared_memory_region" in where and where["shared_memory_region"] not in self.regions:
            return 400, {}, b'{"error": "Unable to find shared memory region: gone"}'
        if "shared_memory_region" in where:
            at, count = where["shared_memory_offset"], where["shared_memory_byte_size"]
            data = self.regions[where["shared_memory_region"]][at : at + count].tobytes()
        else:
            data = body[head:]
        output = (np.frombuffer(data, np.float32) * 2).tobytes()
        row = {
            "name": "y",
            "datatype": "FP32",
            "shape": asked["shape"],
            "parameters": {"binary_data_size": len(output)},
        }
        text = json.dumps({"outputs": [row]}).encode()
        return 200, {"Inference-Header-Content-Length": str(len(text))}, text + output

    def _region(self, name: str, verb: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if self.refuses or (self.needs and headers.get("triton-access-token") != self.needs):
            return 403, {}, json.dumps({"error": self.refuses or "restricted"}).encode()
        if verb == "unregister":
            del self.regions[name]
        else:
            asked = json.loads(body)
            self.regions[name] = np.memmap(f"/dev/shm{asked['key']}", np.uint8, "r", shape=(asked["byte_size"],))
        return 200, {}, b""


class _Handler(test_kserve._Handler):
    server: Any

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._send(*self.server.answer(self.path, self.headers, body))


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Any:
    yield
    assert not [name for name in os.listdir("/dev/shm") if name.startswith(f"framewire-{os.getpid()}-")]


def opened(server: test_kserve.Server) -> KServeBackend:
    backend = KServeBackend(Path(f"kserve+http://{server.address}/m"), BackendOptions(deadline_ms=20_000, depth=1))
    backend.open()
    return backend


def test_inputs_are_not_sent_and_the_region_is_given_back() -> None:
    with serving(Sharing()) as server:
        backend = opened(server)
        for _ in range(3):
            np.testing.assert_array_equal(ask(backend), FEEDS["x"] * 2)
        assert (server.sent_bytes, len(server.regions)) == (0, 1)
        backend.close()
        assert not server.regions


def test_a_server_that_was_started_again_gets_another_region() -> None:
    with serving(Sharing()) as server:
        backend = opened(server)
        ask(backend)
        server.regions.clear()
        np.testing.assert_array_equal(ask(backend), FEEDS["x"] * 2)
        assert (server.sent_bytes, len(server.regions)) == (0, 1)
        backend.close()


@pytest.mark.parametrize("given", ["", "off", "triton-access-token=wrong", "no header=x"])
def test_inputs_are_sent_where_sharing_is_refused_or_switched_off(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("FRAMEWIRE_KSERVE_SHARED_MEMORY", given)
    with serving(Sharing(needs="the right token")) as server:
        backend = opened(server)
        for _ in range(2):
            np.testing.assert_array_equal(ask(backend), FEEDS["x"] * 2)
        assert server.sent_bytes == 2 * FEEDS["x"].nbytes
        assert not server.regions
        backend.close()


def test_a_restricted_server_gets_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMEWIRE_KSERVE_SHARED_MEMORY", "triton-access-token=open sesame")
    with serving(Sharing(needs="open sesame")) as server:
        backend = opened(server)
        np.testing.assert_array_equal(ask(backend), FEEDS["x"] * 2)
        assert server.sent_bytes == 0
        backend.close()
