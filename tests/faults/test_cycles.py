"""A camera is opened and closed without a trace; `tools/open_close.py` does it 1,000 times."""

from __future__ import annotations

import pytest

from tests.faults.cycles import open_and_close
from tests.rtsp_server import RtspServer, missing_server

COUNT = 25
ALLOWED_KB = 150.0  # a frame of this camera is 230 kB: what kept one per cycle would show


@pytest.mark.rtsp
@pytest.mark.parametrize("reader", ["thread", "process"])
def test_opening_and_closing_leaves_nothing(reader: str) -> None:
    if missing_server():
        pytest.skip(missing_server())
    server = RtspServer(size="320x240", fps=25, gop=5)
    try:
        found = open_and_close(server.url, reader, COUNT)
    finally:
        server.kill()
    assert found.children == 0
    assert found.threads[1] <= found.threads[0]
    assert found.descriptors[1] <= found.descriptors[0]
    assert found.kb_per_cycle < ALLOWED_KB
