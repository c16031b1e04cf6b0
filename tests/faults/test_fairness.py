"""Many cameras on one detector that is too slow for all of them: each gets its share, and no more waits than needed."""

from __future__ import annotations

import threading

import pytest

from engine.flow.pipeline import Pipeline, PipelineOptions
from engine.sources.open import open_source
from tests.fakes import OneTracker, PixelDetector
from tests.faults.lab import is_accounted, summary
from tests.freshness.many_cameras import fairness, many_cameras

pytestmark = pytest.mark.alone

CAMERAS = 16


def test_sixteen_cameras_share_a_detector_that_is_too_slow() -> None:
    uri = "synthetic://?width=160&height=120&fps=20&realtime=1&objects=1"
    sources = [open_source(uri, source_id=f"cam{number}") for number in range(CAMERAS)]
    detector = PixelDetector(work_s=0.04, max_batch=4)
    pipeline = Pipeline(sources, detector, OneTracker(), options=PipelineOptions(max_age_ms=1000))
    pipeline.start()
    threading.Event().wait(4.0)
    assert pipeline.stop()
    counted = summary(pipeline)
    assert is_accounted(counted)
    assert fairness(counted) >= 0.9, counted
    assert any(facts["dropped"].get("overflow") for facts in counted.values()), "the detector was too slow"


def test_a_file_beside_a_camera_takes_only_what_the_camera_leaves() -> None:
    camera = open_source("synthetic://?width=160&height=120&fps=60&realtime=1&objects=1", source_id="camera")
    file = open_source("synthetic://?width=160&height=120&count=100000&objects=1", source_id="file")
    options = PipelineOptions(max_age_ms=1000)
    pipeline = Pipeline([camera, file], PixelDetector(work_s=0.03), OneTracker(), options=options)
    pipeline.start()
    threading.Event().wait(4.0)
    assert pipeline.stop()
    counted = summary(pipeline)
    assert is_accounted(counted)
    live, played = counted["camera"]["published"], counted["file"]["published"]
    assert counted["camera"]["dropped"].get("overflow"), "the detector was too slow for the camera alone"
    assert live >= 3 * played, "by turns it would be the same; by the rule nine times, less where the camera was late"
    assert played >= 0.05 * live, "the file goes on"


def test_an_engine_process_with_sixteen_cameras_leaves_nothing_behind() -> None:
    scene = "synthetic://?width=160&height=120&fps=10&realtime=1&objects=1"
    report = many_cameras({f"cam{number}": f"{scene}&seed={number}" for number in range(CAMERAS)}, 3.0, model="motion")
    assert len(report.sources) == CAMERAS
    assert all(facts["published"] for facts in report.sources.values())
    assert report.is_accounted, report.sources
    assert not report.left_behind
    assert {"engine RSS (MB)", "threads", "file descriptors"} <= {slope.name for slope in report.slopes}
