"""Many viewers of one camera's video, one of whom never reads; and clients that send a request byte by byte."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.pipelines.web.page.site import PATIENCE_S, Site, wait_for
from tests.pipelines.web.page.test_web_metrics import figures, metrics_of
from tests.pipelines.web.viewers import Viewers, lazy_viewer

VIEWERS = 12
LIVE = 'framewire_web_viewers{kind="live"}'
SENT = 'framewire_web_video_bytes_total{source="gate"}'
SKIPS = 'framewire_web_video_skips_total{source="gate"}'


@pytest.mark.rtsp
def test_a_viewer_that_never_reads_skips_and_the_others_miss_nothing(serve: Callable[..., Any]) -> None:
    """E14 in a short form: `tools/measure/live_view.py --cameras 1 --viewers 50` measures what it costs the engine."""
    pytest.importorskip("prometheus_client", reason='pip install "framewire[metrics]"')
    camera = serve(codec="h264", size="640x360", fps=10, gop=10, kbps=6000, pattern="snow")
    with Site("--set", "web.metrics=127.0.0.1:0", sources={"gate": camera.url}) as site, ExitStack() as lazy:
        address = metrics_of(site)
        viewers = Viewers(site.port, VIEWERS, ["gate"])
        wait_for(lambda: figures(address)[LIVE] == VIEWERS, "the viewers")
        wait_for(lambda: figures(address).get(SENT, 0) > 0, "video")
        lazy.enter_context(lazy_viewer(site.port, ["gate"]))
        wait_for(lambda: figures(address).get(SKIPS, 0) > 0, "the first skip")
        found = viewers.end()
        published = site.get("sources/gate")[1]
    assert found["failed"] == 0
    assert found["fragments"] > 3 * VIEWERS
    assert found["missed"] < 0.05 * found["fragments"], "viewers that read missed images that others got"
    assert published["state"] == "live"


def test_clients_that_dawdle_hold_up_nobody_at_another_address(site: Site) -> None:
    """Slow-loris: as many connections as one client may have, each with half a request."""
    with ExitStack() as open_ones:
        for _ in range(140):
            slow = open_ones.enter_context(socket.create_connection(("127.0.0.1", site.port), timeout=PATIENCE_S))
            slow.sendall(b"GET / HTTP/1.1\r\nHost: local")
        client = HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE_S, source_address=("127.0.0.2", 0))
        client.request("GET", "/api/v1/me")
        assert client.getresponse().status == 200
        client.close()
        assert slow.recv(100).split()[1] in (b"408", b"503"), "one more than its share is refused, or all time out"
