"""Frames that the network held back are as old as they are, not as fresh as they came."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from engine.errors import SourceError
from engine.sources.open import open_source
from engine.sources.synthetic import number_in_image
from engine.video.decode import VideoReader
from engine.video.timing.backlog import Backlog, Overload
from tests.faults.cameras import transport_stream
from tests.media import Recorder, encode_clip, numbered_images

MS = 1_000_000


def lateness(arrivals_ms: list[int], pts_ms: list[int | None]) -> list[int]:
    backlog, previous_ms, late = Backlog(), 0, []
    for arrival, pts in zip(arrivals_ms, pts_ms, strict=True):
        waited_ns = (arrival - previous_ms) * MS
        late.append(backlog.late_ns(arrival * MS, None if pts is None else pts * MS, waited_ns) // MS)
        previous_ms = arrival
    return late


@pytest.mark.parametrize(
    ("arrivals", "pts", "late"),
    [
        pytest.param([0, 40, 80], [0, 40, 80], [0, 0, 0], id="steady"),
        pytest.param([0, 40, 230, 235, 270], [0, 40, 80, 120, 160], [0, 0, 0, 0, 0], id="jitter below the limit"),
        pytest.param(
            [0, 40, 4040, 4041, 4042, 4082], [0, 40, 80, 120, 160, 200], [0, 0, 3960, 3921, 3882, 0], id="burst"
        ),
        pytest.param([0, 40, 4040, 4080], [0, 40, 80, 120], [0, 0, 3960, 0], id="the camera itself paused"),
        pytest.param([0, 40, 4040, 4080], [0, 40, 4040, 4080], [0, 0, 0, 0], id="a gap that stream time shows"),
        pytest.param([0, 40, 4040, 4041], [9000, 9040, 40, 80], [0, 0, 0, 0], id="stream time begins anew"),
        pytest.param([0, 4000], [0, None], [0, 0], id="no stream time"),
        pytest.param([0, 1000, 2000], [0, 1000, 2000], [0, 0, 0], id="a slow camera"),
    ],
)
def test_lateness(arrivals: list[int], pts: list[int | None], late: list[int]) -> None:
    assert lateness(arrivals, pts) == late


def test_a_burst_that_catches_up_ends_at_zero() -> None:
    arrivals = [0, 40, 1040, *(1040 + n for n in range(1, 40))]
    assert lateness(arrivals, [40 * n for n in range(42)])[-1] == 0


@pytest.mark.parametrize("interval_ms", [20, 40, 100, 500, 600, 1000, 2000, 30_000])
@pytest.mark.parametrize("step_ms", [1, 40, 90])
def test_frames_that_are_numbered_instead_of_timed_are_fresh_at_any_rate(interval_ms: int, step_ms: int) -> None:
    late = lateness([interval_ms * n for n in range(40)], [step_ms * n for n in range(40)])
    assert late == [0] * 40


def test_a_standstill_of_a_slow_camera_counts_in_its_own_rate() -> None:
    """One frame per second with 40 ms of stream time each, held back for 5 s: five frames then come at once."""
    arrivals = [*(1000 * n for n in range(10)), *(14_000 + n for n in range(6)), 15_000]
    late = lateness(arrivals, [40 * n for n in range(17)])
    assert late[:10] == [0] * 10
    assert late[10] == pytest.approx(4000, abs=5)
    assert late[13] == pytest.approx(1000, abs=10)
    assert late[-1] == 0


def test_a_camera_that_slows_down_at_night_is_misjudged_for_one_frame_only() -> None:
    day, night = [40 * n for n in range(50)], [1960 + 1000 * n for n in range(1, 30)]
    assert [late for late in lateness(day + night, [40 * n for n in range(79)]) if late] == [960]


def test_pauses_at_random_are_no_standstills_of_the_network() -> None:
    arrivals = [0]
    for pause in random.Random(1).choices((40, 100, 700, 1500, 3000), k=300):
        arrivals.append(arrivals[-1] + pause)
    assert sum(late > 0 for late in lateness(arrivals, [40 * n for n in range(301)])) <= 2


def test_a_group_of_frames_at_the_start_is_not_taken_for_the_rate() -> None:
    """Servers send all frames since the last keyframe at once; then the network stands still for 3 s."""
    live = [24 + 40 * n for n in range(1, 60)]
    arrivals = [*range(25), *live, *(live[-1] + 3000 + n for n in range(75))]
    late = lateness(arrivals, [40 * n for n in range(159)])
    assert not any(late[:84])
    assert 2500 < late[84] < 3000


def test_a_decoder_that_is_too_slow_makes_frames_older_and_older() -> None:
    backlog = Backlog()
    late = [backlog.late_ns(60 * n * MS, 40 * n * MS, 0) // MS for n in range(50)]
    assert late == [20 * n for n in range(50)]


def test_a_decoder_that_is_too_slow_is_overloaded_and_one_that_catches_up_is_not() -> None:
    slow, quick = Overload(), Overload()
    assert any(slow.is_behind(60 * n * MS, 20 * n * MS) for n in range(50))
    assert not any(quick.is_behind(5 * n * MS, (8000 - 35 * n) * MS) for n in range(230))


def test_live_frames_stay_current_with_a_decoder_that_is_too_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding takes twice the camera's interval: without giving up frames, the last would be 5 s late."""
    clip = encode_clip(tmp_path / "a.ts", numbered_images(125), options={"tune": "zerolatency", "g": "10"})
    real = VideoReader._decode

    def slow(reader: VideoReader, packet: Any) -> Any:
        threading.Event().wait(0.08)
        return real(reader, packet)

    monkeypatch.setattr(VideoReader, "_decode", slow)
    with transport_stream([clip], 5.0) as port:
        source, recorder = open_source(f"tcp://127.0.0.1:{port}", reader="thread", reconnect=False), Recorder()
        source.attach(recorder)
        frames = []
        with suppress(SourceError):
            frames.extend(source)
    lags = [frame.captured_ns - (frame.pts_ns or 0) for frame in frames]
    assert recorder.losses["stale"] > 20
    assert not recorder.losses["corrupt"]
    assert number_in_image(frames[-1].image) > 100
    assert max(lags) - min(lags) < 700 * MS, "captured_ns tells the camera's time, not the reader's"
