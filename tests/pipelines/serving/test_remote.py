"""Cameras whose model is on our own server: the same boxes, and a server that is killed and comes back."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from engine.data import Packet
from engine.detection.load import load_detector
from engine.flow.options import PipelineOptions
from engine.flow.pipeline import Pipeline
from engine.sources.synthetic import Scene, SyntheticSource
from engine.tracking.untracked import Untracked
from engine.video.read_image import read_image
from tests.fakes import ListSink
from tests.onnx_models import save_constant_model
from tests.serving import models_of_files, serving
from tests.web_server import PATIENCE_S


@pytest.fixture
def quick_model(tmp_path: Path) -> Path:
    output = np.zeros((6, 84), np.float32)
    output[:, 3] = [32, 32, 20, 10, 0.9, 0.1]
    facts = {"names": "{0: 'person', 1: 'car'}", "task": "detect"}
    return save_constant_model(tmp_path / "quick.onnx", [output], 64, facts)


def test_boxes_are_those_of_the_local_model(data_dir: Path) -> None:
    from engine.data import Frame

    model, image = data_dir / "models/yolov8n_fp32_dequantised.onnx", data_dir / "images/assets/bus.jpg"
    frame = Frame(read_image(image))
    with load_detector(model, backend="onnxruntime") as local:
        [expected] = local.detect([frame])
    with serving(models_of_files(f"yolo={model}")) as here:
        with load_detector(f"kserve+http://127.0.0.1:{here.port}/yolo") as remote:
            [found] = remote.detect([frame])
            assert remote.class_names == local.class_names
            assert (remote.backend, remote.describe().device) == ("kserve", f"127.0.0.1:{here.port}")
    assert len(found) > 3
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=1e-4)
    np.testing.assert_array_equal(found.class_id, expected.class_id)


def test_cameras_share_batches_and_every_frame_is_accounted_for(quick_model: Path) -> None:
    sink = ListSink("list")
    with serving(models_of_files(f"quick={quick_model}", places=64)) as here:
        detector = load_detector(f"kserve+http://127.0.0.1:{here.port}/quick", max_batch=8)
        sources = [SyntheticSource(Scene(count=30, width=64, height=64), f"c{n}") for n in range(4)]
        pipeline = Pipeline(sources, detector, Untracked(), sink)
        pipeline.run()
        raw = here.server.models["quick"].raw
        assert raw is not None
        assert raw.done < 120
    assert {name: row["published"] for name, row in pipeline.stats.by_source().items()} == {
        f"c{n}": 30 for n in range(4)
    }
    assert {packet.detections.class_id[0] for packet in sink.packets} == {0}


class Waiting(ListSink):
    """Tells when packets arrive."""

    def __init__(self) -> None:
        super().__init__("waiting")
        self.came = threading.Event()

    def write(self, packet: Packet) -> None:
        super().write(packet)
        self.came.set()


def test_a_server_that_is_killed_costs_counted_frames_and_comes_back(quick_model: Path) -> None:
    sink, scene = Waiting(), Scene(width=64, height=64, fps=100, realtime=1)
    with ExitStack() as first:
        here = first.enter_context(serving(models_of_files(f"quick={quick_model}", places=64)))
        port = here.port
        detector = load_detector(f"kserve+http://127.0.0.1:{port}/quick", deadline_ms=200)
        pipeline = Pipeline([SyntheticSource(scene, "gate")], detector, Untracked(), sink, options=PipelineOptions())
        pipeline.start()
        try:
            assert sink.came.wait(PATIENCE_S)
            first.close()
            _until(lambda: any(cause.startswith("remote") for cause in _row(pipeline)["dropped"]))
            sink.came.clear()
            with serving(models_of_files(f"quick={quick_model}", places=64), port=port):
                assert sink.came.wait(PATIENCE_S)
        finally:
            pipeline.stop(PATIENCE_S)
    row = _row(pipeline)
    assert row["captured"] == row["published"] + sum(row["dropped"].values())
    assert row["dropped"].get("remote_away", 0) + row["dropped"].get("remote_late", 0) > 0


def _row(pipeline: Pipeline) -> dict[str, object]:
    return pipeline.stats.by_source()["gate"]


def _until(done: object) -> None:
    for _ in range(int(PATIENCE_S * 100)):
        if done():  # type: ignore[operator]
            return
        threading.Event().wait(0.01)
    pytest.fail("it did not happen")
