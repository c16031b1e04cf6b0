"""The metrics of a run: the same figures as its summary, in bounded number, in a form that Prometheus accepts."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.flow.options import PipelineOptions
from engine.flow.pipeline import Pipeline
from pipelines.build.events import events_of
from pipelines.build.pipeline import build_pipeline
from pipelines.config.file import load_config
from pipelines.metrics.engine import MAX_SOURCES, EngineMetrics, chosen
from pipelines.metrics.exposition import Bounded, Page, quoted, with_client
from tests.fakes import CountingSource, ListSink, OneTracker, PixelDetector
from tests.pipelines.metrics.scenes import big_run, samples, written_names

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus"
)


def page_of_a_run() -> tuple[Pipeline, str]:
    sources = [CountingSource("gate", 20), CountingSource('the "yard"\n', 7)]
    pipeline = Pipeline(sources, PixelDetector(), OneTracker(), ListSink(), options=PipelineOptions(max_frames=12))
    pipeline.run()
    return pipeline, EngineMetrics(pipeline).page()


def test_the_page_has_the_figures_of_the_snapshot() -> None:
    pipeline, text = page_of_a_run()
    found, stats = samples(text), pipeline.stats.snapshot()
    gate = stats.sources[0]
    assert found['framewire_frames_captured_total{source="gate"}'] == gate.captured == 12
    assert found['framewire_frames_published_total{source="gate"}'] == gate.published
    assert found['framewire_frame_age_seconds_count{source="gate"}'] == gate.latency.count
    assert found['framewire_frame_age_seconds_sum{source="gate"}'] == pytest.approx(gate.latency.sum / 1000, abs=1e-5)
    assert found['framewire_frames_published_total{source="the \\"yard\\"\\n"}'] == 7
    assert found["framewire_inferences_total"] == 19
    assert found['framewire_stage_duration_seconds_count{stage="infer"}'] == 19
    assert found['framewire_source_state{source="gate",state="ended"}'] == 1
    assert sum(v for k, v in found.items() if k.startswith('framewire_source_state{source="gate"')) == 1


def test_histograms_grow_from_edge_to_edge_up_to_their_count() -> None:
    _, text = page_of_a_run()
    found = samples(text)
    buckets = [v for k, v in found.items() if k.startswith('framewire_frame_age_seconds_bucket{source="gate"')]
    assert buckets == sorted(buckets)
    assert buckets[-1] == found['framewire_frame_age_seconds_count{source="gate"}']


@needs_promtool
def test_promtool_finds_no_fault_in_the_page() -> None:
    for page in (page_of_a_run()[1], EngineMetrics(big_run(2)).page()):
        done = subprocess.run(["promtool", "check", "metrics"], input=page, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_many_cameras_with_many_places_stay_below_30_000_series_and_3_megabytes() -> None:
    text = EngineMetrics(big_run(64, zones=10, lines=10)).page()
    found = samples(text)
    assert found['framewire_zone_occupancy{source="camera 63",zone="zone9",class="dog"}'] == 1
    assert found['framewire_line_crossings_total{source="camera 0",line="line0",direction="in",class="car"}'] == 3
    assert found['framewire_zone_dwell_seconds_bucket{source="camera 0",zone="zone0",le="10.0"}'] == 2
    assert found['framewire_zone_dwell_seconds_count{source="camera 0",zone="zone0"}'] == 3
    assert len(found) < 30_000
    assert len(text) < 3_000_000


def test_the_event_log_and_its_storage_are_on_the_page(tmp_path: Path) -> None:
    overrides = {
        "sources": [{"uri": "synthetic://?count=60&objects=3", "source_id": "gate"}],
        "detector.model": "motion",
        "publish.address": "none",
        "events.folder": str(tmp_path / "events"),
    }
    pipeline = build_pipeline(load_config(None, overrides))
    pipeline.run()
    found = samples(EngineMetrics(pipeline).page())
    facts = events_of(pipeline)["events"]
    assert found["framewire_events_stored_total"] == facts["stored"]
    assert found["framewire_events_waiting"] == facts["waiting"] == 0


def test_classes_beyond_the_bound_are_other_and_nothing_is_lost() -> None:
    classes = Bounded(3)
    first = classes.counts("gate", {"a": 1, "b": 2})
    later = classes.counts("gate", {"c": 3, "d": 4, "e": 5, "a": 6})
    assert first == {"a": 1, "b": 2}
    assert later == {"a": 6, "b": 0, "c": 3, "other": 9}


def test_sources_that_come_and_go_do_not_pile_up() -> None:
    stats = big_run(1, 0, 0).stats
    for n in range(400):
        stats.source(f"old {n}").set_state("ended", "", 0)
    found = chosen(stats.snapshot().sources)
    assert len(found) == MAX_SOURCES
    assert found[0].source_id == "camera 0"
    assert found[-1].source_id == "old 399"


def test_metrics_of_the_process_and_of_user_code_follow() -> None:
    pytest.importorskip("prometheus_client", reason='pip install "framewire[metrics]"')
    page = Page()
    page.gauge("framewire_x", "X.").add(1)
    found = samples(with_client([page.text()]))
    assert found["framewire_x"] == 1
    assert "process_cpu_seconds_total" in found


def test_label_values_are_escaped_and_short() -> None:
    assert quoted('back\\slash "quote"\nline') == 'back\\\\slash \\"quote\\"\\nline'
    assert len(quoted("x" * 1000)) == 200


def test_the_documented_metrics_are_those_of_the_code() -> None:
    text = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    documented = {name for name in re.findall(r"`(framewire_\w+)`", text) if not name.endswith("_")}
    assert documented - written_names() == set()
    of_others = ("framewire_proxy", "framewire_bridge", "framewire_record_", "framewire_serve_")
    assert {name for name in written_names() if not name.startswith(of_others)} <= documented
