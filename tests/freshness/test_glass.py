"""The age of a result on the wire is the one that a subscriber measures by a clock in the frame.

The smallest of many differences is compared: a busy machine delays some frames, but makes none younger.
"""

from __future__ import annotations

import pytest

from tests.freshness.glass import glass_to_subscriber
from tests.rtsp_server import missing_server

pytestmark = pytest.mark.alone

AGREE_MS = 5.0
ENCODE_MS = 10.0  # the time that H.265 takes before the frame arrives; the engine cannot know it
FPS = 20
SECONDS = 3.0


def test_the_age_at_a_subscriber_is_what_the_wire_says() -> None:
    report = glass_to_subscriber("mjpeg", SECONDS, fps=FPS)
    assert report.count > 10
    assert report.unreadable == 0
    assert -AGREE_MS < report.unknown_ms.least < AGREE_MS, report
    assert report.difference_ms.least < AGREE_MS, report


@pytest.mark.rtsp
@pytest.mark.parametrize("codec", ["jpeg", "h264", "h265"])
def test_so_it_is_with_a_network_camera(codec: str) -> None:
    if missing_server():
        pytest.skip(missing_server())
    report = glass_to_subscriber(f"rtsp-{codec}", SECONDS, fps=FPS)
    assert report.count > 10
    assert -AGREE_MS < report.unknown_ms.least < ENCODE_MS + AGREE_MS, report
    assert report.difference_ms.least < ENCODE_MS + AGREE_MS, report
    assert report.age_ms.least < 0.75 * 1000 / FPS, "results wait for the next frame"
