"""With a detector three times too slow, results stay as old as they are at the start.

`tools/measure/overload.py` compares their age with the promised one. A few seconds on a busy machine cannot, because
one late frame is their p99. A real fault still shows, because a queue without a limit is seconds old by the end.
"""

from __future__ import annotations

import pytest

from tests.fakes import PixelDetector
from tests.freshness.overload import SLOWER, Overload, overload
from tests.rtsp_server import RtspServer, missing_server

pytestmark = pytest.mark.alone

FPS = 25
SECONDS = 6.0
PART_S = 2.0


def check(report: Overload) -> None:
    assert report.slower > 0.5 * SLOWER, "the detector kept up: nothing was tested"
    assert len(report.ages) > 1
    assert all(part.p50 < report.limit_ms for part in report.ages), report
    assert report.p99_ms < 2 * report.limit_ms, report
    assert report.is_accounted


def test_results_of_an_overloaded_detector_do_not_grow_old() -> None:
    uri = f"synthetic://?width=160&height=120&fps={FPS}&realtime=1"
    check(overload("short", uri, PixelDetector(work_s=SLOWER / FPS), SECONDS, part_s=PART_S))


@pytest.mark.rtsp
def test_neither_do_those_of_a_network_camera() -> None:
    if missing_server():
        pytest.skip(missing_server())
    server = RtspServer(size="160x120", fps=FPS, gop=FPS)
    try:
        check(overload("short", server.url, PixelDetector(work_s=SLOWER / FPS), SECONDS, part_s=PART_S))
    finally:
        server.close()
