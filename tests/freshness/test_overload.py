"""A detector three times too slow: results stay as old as they are at the start."""

from __future__ import annotations

import pytest

from tests.fakes import PixelDetector
from tests.freshness.overload import SLOWER, overload
from tests.rtsp_server import RtspServer, missing_server

FPS = 25
SECONDS = 5.0


def test_results_of_an_overloaded_detector_do_not_grow_old() -> None:
    uri = f"synthetic://?width=160&height=120&fps={FPS}&realtime=1"
    report = overload("short", uri, PixelDetector(work_s=SLOWER / FPS), SECONDS, part_s=2.5)
    assert report.slower > 0.8 * SLOWER, "the detector kept up: nothing was tested"
    assert report.is_fresh, report
    assert report.is_accounted


@pytest.mark.rtsp
def test_neither_do_those_of_a_network_camera() -> None:
    if missing_server():
        pytest.skip(missing_server())
    server = RtspServer(size="160x120", fps=FPS, gop=FPS)
    try:
        report = overload("short", server.url, PixelDetector(work_s=SLOWER / FPS), SECONDS, part_s=2.5)
    finally:
        server.close()
    assert report.slower > 0.8 * SLOWER, "the detector kept up: nothing was tested"
    assert report.is_fresh, report
    assert report.is_accounted
