"""A soak of minutes; off by default because of its length."""

from __future__ import annotations

import os

import pytest

from tests.faults.soak import soak
from tests.rtsp_server import missing_server

SECONDS = float(os.environ.get("FRAMEWIRE_SOAK_S", "0"))


@pytest.mark.soak
@pytest.mark.rtsp
@pytest.mark.timeout(3600)
@pytest.mark.skipif(SECONDS < 60, reason="set FRAMEWIRE_SOAK_S=120 (seconds) to soak; tools/soak.py does it for longer")
def test_nothing_grows_and_nothing_goes_missing() -> None:
    if missing_server():
        pytest.skip(missing_server())
    report = soak(SECONDS, cameras=4, fault_every_s=20.0)
    assert report.is_accounted, report.sources
    assert report.stop_s < 2.0, "SIGINT ends an engine in less than a second; the machine may be busy"
    assert report.left_behind == 0
    assert report.faults > 0
    growth = {slope.name: slope.per_hour * SECONDS / 3600 / slope.mean for slope in report.slopes}
    assert all(part < 0.15 for part in growth.values()), f"growth over the run, as part of the mean: {growth}"
