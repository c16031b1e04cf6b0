"""A few hours of a simulated fleet; `tools/fleet_check.py sim` simulates a day of 10,000 cameras."""

from __future__ import annotations

import pytest

from pipelines.fleet.simulation.day import DayOptions, simulate_day


def test_a_fleet_grows_loses_a_machine_and_moves_little() -> None:
    found = simulate_day(DayOptions(cameras=300, hours=1.0, cores=4.0, lost=0.1))
    assert found.machines_at_first <= found.lower_bound + 1
    assert found.machines_lost >= 1
    assert found.cameras_lost > 0
    assert found.recovery_s["p99"] <= 10.0, found
    assert found.moves_per_camera <= 1.0, found
    assert found.restarted_without_loss == 0, "cameras of machines that were never lost had to start again"
    assert found.without_owner_at_the_end == 0


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_a_day_of_ten_thousand_cameras() -> None:
    found = simulate_day(DayOptions())
    assert found.is_good, found
