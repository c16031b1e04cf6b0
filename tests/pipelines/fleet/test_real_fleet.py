"""Real engines under a real controller: killed, frozen, and without a head. Times are in `tools/fleet_check.py`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.transport.keys import make_keys
from tests.pipelines.fleet.lab import FleetLab, fleet_lab, freeze_a_node, kill_a_node, kill_the_head
from tests.pipelines.fleet.ray_cluster import control_service, ray_cluster

pytestmark = [pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def lab() -> Iterator[FleetLab]:
    with fleet_lab(4) as started:
        yield started


def test_cameras_are_shared_out_and_carry_their_owners_epoch(lab: FleetLab) -> None:
    assert sorted(lab.owners().values()) == ["n1", "n1", "n2", "n2"]
    seen = {name: lab.reader.last(name) for name in lab.cameras}
    assert {name: each.engine_id for name, each in seen.items()} == lab.owners()
    assert all(each.epoch >= 1 for each in seen.values())


def test_a_killed_node_loses_its_cameras_to_the_other_one(lab: FleetLab) -> None:
    found = kill_a_node(lab)
    assert found["lost"] == found["others"] == 2
    assert found["disorder"] == []
    assert set(lab.owners().values()) == {"n2"}


def test_a_frozen_node_is_not_heard_when_it_thaws(lab: FleetLab) -> None:
    found = freeze_a_node(lab, watch_s=2.0)
    assert found["lost"]
    assert found["messages_of_old_epochs_after_the_thaw"] == 0
    assert found["disorder"] == []


def test_nothing_stops_while_the_controller_is_away(lab: FleetLab) -> None:
    lab.set_lease(60.0)  # the keeper renews it; starting Python again takes long where many tests run
    found = kill_the_head(lab, away_s=1.0)
    assert found["moved"] == 0
    assert found["ledger_equals_engines"]
    assert found["disorder"] == []
    lab.kill_controller()
    before = max(lab.lease_ends())
    lab.wait(lambda: min(lab.lease_ends()) > before + 0.5, "the keeper's renewal")


@pytest.mark.soak  # a cluster takes a minute to start; tools/fleet_check.py kill --ray prints the times
def test_a_killed_node_of_a_ray_cluster_loses_its_cameras_to_the_other_one(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'framewire[fleet]'")
    keys = {name: str(make_keys(tmp_path, name)[1]) for name in ("keys", "engine_keys")}
    with ray_cluster(["n1", "n2"]) as address:
        changes = {"launcher": "ray", "ray": {"address": address, **keys}}
        with fleet_lab(4, changes=changes) as lab:
            found = kill_a_node(lab)
            assert found["lost"] == found["others"] == 2
            assert found["disorder"] == []
            assert set(lab.owners().values()) == {"n2"}


@pytest.mark.soak
def test_nothing_stops_while_the_control_service_of_ray_is_away(tmp_path: Path) -> None:
    """The controller waits for Ray on another thread: renewals of leases do not wait with it."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'framewire[fleet]'")
    keys = {name: str(make_keys(tmp_path, name)[1]) for name in ("keys", "engine_keys")}
    with ray_cluster(["n1", "n2"]) as address:
        changes = {"launcher": "ray", "ray": {"address": address, **keys}}
        with fleet_lab(4, lease_s=3.0, changes=changes) as lab:
            owners = lab.owners()
            at_s = time.monotonic()
            os.kill(control_service(address), signal.SIGSTOP)
            lab.wait(lambda: time.monotonic() > at_s + 20.0, "several leases")
            assert lab.owners() == owners
            assert max(lab.reader.gap_s(name, at_s) for name in lab.cameras) < 3.0, "its leases ran out"
            os.kill(control_service(address), signal.SIGCONT)
            lab.wait(lambda: lab.owners() == owners, "the same owners")
            assert lab.reader.disorder() == []
