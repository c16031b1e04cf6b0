"""A short soak test: 20 s, or FRAMEWIRE_SOAK_S (2 minutes in CI); `tools/soak.py` is for hours."""

from __future__ import annotations

import os

import pytest

from tests.faults.soak import soak
from tests.patience import AT_ONCE_S
from tests.rtsp_server import missing_server

pytestmark = pytest.mark.alone

SHORT_S = 20.0
SECONDS = float(os.environ.get("FRAMEWIRE_SOAK_S") or SHORT_S)
FAULTS = 6
ALLOWED = {  # over a whole run; a camera that is away at one end of it causes the difference of its reader
    "engine RSS (MB)": 40.0,
    "RSS per reader (MB)": 20.0,
    "threads": 4.0,
    "file descriptors": 24.0,
}


@pytest.mark.soak
@pytest.mark.rtsp
@pytest.mark.timeout(SECONDS + 120)
def test_nothing_grows_and_nothing_goes_missing() -> None:
    if missing_server():
        pytest.skip(missing_server())
    report = soak(SECONDS, cameras=4, fault_every_s=SECONDS / FAULTS)
    assert report.is_accounted, report.sources
    assert all(facts["published"] > 0 for facts in report.sources.values()), report.sources
    assert report.stop_s < AT_ONCE_S
    assert report.left_behind == 0
    assert report.faults >= FAULTS - 2
    growth = {slope.name: slope.second_half * SECONDS / 3600 for slope in report.slopes}
    assert {"threads", "file descriptors"} <= set(growth)
    assert all(risen < ALLOWED[name] for name, risen in growth.items()), growth
