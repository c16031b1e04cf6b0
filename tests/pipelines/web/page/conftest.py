"""One engine with its page, shared by the tests of a worker; those that end it start their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.sources.synthetic import SyntheticSource, scene_from_uri
from tests.pipelines.web.page.browsing import chromium
from tests.pipelines.web.page.site import SCENE, Site
from tests.rtsp_server import RtspServer, missing_server

for package in ("uvicorn", "httptools"):
    pytest.importorskip(package, reason='needs the extra "web": pip install "framewire[web]"')


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    with Site() as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="session")
def numbered_camera_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of frames that show their number, as a camera sends it."""
    av = pytest.importorskip("av")
    path = tmp_path_factory.mktemp("clip") / "numbered.mp4"
    source = SyntheticSource(scene_from_uri(SCENE))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "18", "g": "20"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for number in range(600):
            frame = av.VideoFrame.from_ndarray(np.asarray(source.image(number)), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def serve() -> Iterator[Callable[..., RtspServer]]:
    """Start RTSP cameras by `serve(codec="h264", ...)`; all are ended after the test."""
    reason = missing_server()
    if reason:
        pytest.skip(reason)
    servers: list[RtspServer] = []

    def start(**arguments: object) -> RtspServer:
        servers.append(RtspServer(**arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
