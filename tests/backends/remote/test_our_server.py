"""A run on `framewire serve`: the same boxes as with the model here, and back after the server was killed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.data import Frame
from engine.detection.load import load_detector
from tests.backends.remote.restart import free_ports, restart_under_a_run, serving, start_our_server
from tests.pipelines.fleet.lab import boxes_model

pytestmark = pytest.mark.timeout(900)


def test_boxes_are_those_of_the_local_model(tmp_path: Path) -> None:
    model, port = boxes_model(tmp_path / "m.onnx", ("person", "dog")), free_ports(1)
    frame = Frame(np.zeros((240, 320, 3), np.uint8))
    with load_detector(model) as local:
        [expected] = local.detect([frame])
    with serving(start_our_server, model, port, tmp_path / "log"):
        with load_detector(f"kserve+http://127.0.0.1:{port}/yolo", deadline_ms=20_000) as remote:
            [found] = remote.detect([frame])
    assert len(expected) == 3
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=1e-3)
    np.testing.assert_array_equal(found.class_id, expected.class_id)
    assert remote.class_names == local.class_names


def test_a_run_counts_what_it_loses_and_is_back_by_itself(tmp_path: Path) -> None:
    found = restart_under_a_run(start_our_server, boxes_model(tmp_path / "m.onnx", ("person", "dog")), 1.0)
    assert found["unaccounted"] == 0
    assert found["dropped"].get("remote_away", 0) + found["dropped"].get("remote_late", 0) > 0
