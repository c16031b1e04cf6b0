"""`bench --plan`: the number of cameras that it reports was run and kept up; no larger number is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.optional import require
from pipelines.config.file import load_config
from pipelines.measuring import plan as planning
from pipelines.measuring.plan import Trial, decode_cost_ms, estimates, plan, run_cameras, write_clip

SMALL = (160, 120)


def trial(cameras: int, capacity: float) -> Trial:
    asked = 10.0 * cameras
    fps = min(asked, capacity)
    return Trial(cameras, asked, fps, 1 - fps / asked, 50.0, 5.0)


@pytest.mark.parametrize("capacity", [25.0, 74.0, 213.0, 1990.0])
@pytest.mark.parametrize("first", [1, 6, 30])
def test_the_search_ends_within_15_percent_of_what_keeps_up_or_below_it(
    monkeypatch: pytest.MonkeyPatch, capacity: float, first: int
) -> None:
    monkeypatch.setattr(planning, "run_cameras", lambda config, clip, count, fps, seconds: trial(count, capacity))
    trials = planning._search(load_config(None, {}), "", 10.0, 1.0, first, lambda text: None)
    best = max((each.cameras for each in trials if each.keeps_up), default=0)
    assert best <= capacity / 10 * 1.021
    if 0.6 <= first * 10 / capacity <= 1.2:  # the first guess is a measured one
        assert best >= 0.85 * (capacity // 10)


def test_a_clip_is_what_a_camera_of_that_size_and_rate_sends(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "camera.mp4", (321, 240), 5.0)
    with require("av").open(str(clip)) as source:
        stream = source.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 320, 240)
        frames = list(source.decode(video=0))
    assert len(frames) == 10
    assert sum(frame.key_frame for frame in frames) == 2
    assert decode_cost_ms(str(clip), 0.2) > 0


def test_a_run_of_cameras_that_the_machine_carries_keeps_up(tmp_path: Path) -> None:
    clip = str(write_clip(tmp_path / "camera.mp4", SMALL, 2.0))
    config = load_config(None, {"detector.model": "motion"})
    found = run_cameras(config, clip, 2, 2.0, 3.0)
    assert found.cameras == 2
    assert found.fps == pytest.approx(4.0, rel=0.35)
    assert found.lost < 0.5


def test_a_plan_names_the_limit_and_the_cost_of_each_part() -> None:
    found = plan(load_config(None, {"pipeline.max_age_ms": None}), size_wh=SMALL, fps=1.0, seconds=4.0)
    assert found["cameras"] == max((t["cameras"] for t in found["trials"] if t["keeps_up"]), default=0)
    assert set(found["cpu_ms_per_frame"]) == {"decoding", "inference", "rest"}
    assert found["limit"].startswith("the ")
    assert found["cores"] >= 1


def test_fewer_detections_per_second_carry_more_cameras() -> None:
    parts = {"decoding": 2.0, "inference": 20.0, "rest": 1.0}
    five, two = estimates(parts, 10.0, 2.0)
    assert two["cameras"] >= five["cameras"] > 0
    assert estimates(parts, 1.0, 2.0) == []


def test_a_detector_without_a_backend_is_refused() -> None:
    with pytest.raises(ConfigError, match="no bare backend"):
        plan(load_config(None, {"detector.model": "motion"}), size_wh=SMALL, fps=5.0, seconds=0.5)
