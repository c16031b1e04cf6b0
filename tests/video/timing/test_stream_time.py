"""Every frame of a file has a time that rises, whatever the file says: its results cannot depend on the machine."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data import Frame
from engine.sources.open import open_source
from engine.video.timing.stream_time import MPEG_WRAP_NS, StreamTime
from tests.media import encode_clip, numbered_images

MS = 1_000_000


@pytest.mark.parametrize(
    ("given_ms", "expected_ms"),
    [
        pytest.param([0, 100, 200], [0, 100, 200], id="as the file says"),
        pytest.param([700, 800], [700, 800], id="a file need not begin at 0"),
        pytest.param([0, 100, 7200_000], [0, 100, 7200_000], id="a gap"),
        pytest.param([None, None, None], [0, 100, 200], id="no times"),
        pytest.param([None, 100, None, 300], [0, 100, 200, 300], id="some times"),
        pytest.param([5000, 5100, 0, 100, 200], [5000, 5100, 5200, 5300, 5400], id="begins again"),
        pytest.param([0, 100, 300, 200, 400], [0, 100, 300, 400, 500], id="coding order"),
        pytest.param([0, 0, 0], [0, 100, 200], id="stands still"),
        pytest.param([10**16, 10**16 + 100], [0, 100], id="beyond 64 bits"),
        pytest.param([-(10**16), 5000], [0, 5000], id="before 64 bits"),
        pytest.param([0, 100, 10**16, 300], [0, 100, 200, 300], id="one beyond 64 bits"),
    ],
)
def test_stream_time_rises(given_ms: list[int | None], expected_ms: list[int]) -> None:
    time = StreamTime(fps=10)
    assert [time.of(None if ms is None else ms * MS) // MS for ms in given_ms] == expected_ms


def test_time_that_a_clock_of_33_bits_takes_for_its_next_round_has_gone_back() -> None:
    given_s = [3600, 3600.1, 1.6 + 95443.7, 1.7 + 95443.7, 40_000 + 95443.7, 2.0 + 2 * 95443.7]
    time = StreamTime(fps=10, wrap_ns=MPEG_WRAP_NS)
    found = [time.of(round(one * 1000) * MS) // MS for one in given_s]
    assert found[:4] == [3600_000, 3600_100, 3600_200, 3600_300]
    assert found[4] - found[3] == (40_000 - 1.7) * 1000, "a gap of hours is a gap"
    assert found[5] - found[4] == 100


def test_frames_that_were_not_decoded_take_their_time_where_there_are_no_times() -> None:
    time = StreamTime(fps=10)
    time.of(None)
    time.skip(2)
    assert time.of(None) == 300 * MS


def test_damage_in_a_file_with_times_does_not_move_them() -> None:
    time = StreamTime(fps=10)
    assert [time.of(0), time.skip(3), time.of(100 * MS)] == [0, None, 100 * MS]


ANY_TIME = st.none() | st.integers(-(10**15), 10**15) | st.integers(-(1 << 70), 1 << 70)


@given(
    st.lists(st.tuples(ANY_TIME, ANY_TIME), max_size=50),
    st.none() | st.floats(1, 240) | st.floats(0, exclude_min=True, allow_infinity=False),
)
def test_any_times_become_rising_ones_of_64_bits(times: list[tuple[int | None, int | None]], fps: float | None) -> None:
    time = StreamTime(fps)
    found = [time.of(pts, duration) for pts, duration in times]
    assert all(before < after for before, after in pairwise(found))
    assert all(abs(one) < 1 << 63 for one in found)


@pytest.mark.parametrize("begin_s", [10**10, 2 * 10**10, (1 << 63) // 10**9])
def test_a_file_far_from_zero_gives_what_it_gives_at_zero(begin_s: int, tmp_path: Path) -> None:
    path = tmp_path / "far.mkv"
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 64, 48
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * number, np.uint8), format="bgr24")
            frame.pts = number
            for packet in stream.encode(frame):
                packet.pts, packet.dts, packet.time_base = number * 100, number * 100, Fraction(1, 1000)
                packet.pts += begin_s * 1000
                packet.dts += begin_s * 1000
                container.mux(packet)
    frames = list(open_source(str(path)))
    assert [frame.pts_ns for frame in frames] == [number * 100 * MS for number in range(6)]


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [
        pytest.param("a.h264", "libx264", "h264", id="raw H.264"),
        pytest.param("a.hevc", "libx265", "hevc", id="raw HEVC"),
        pytest.param("a.avi", "libx264", "avi", id="H.264 with B-frames in AVI"),
        pytest.param("a.m2v", "mpeg2video", "mpeg2video", id="raw MPEG-2"),
    ],
)
def test_files_without_times_have_those_of_their_declared_rate(
    tmp_path: Path, name: str, codec: str, container: str
) -> None:
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    clip = encode_clip(tmp_path / name, numbered_images(30), codec=codec, container=container, rate=10, options=quiet)
    times = [frame.pts_ns for frame in open_source(clip)]
    steps = [(after - before) / 1e9 for before, after in pairwise(times)]
    assert len(times) == 30
    assert min(steps) > 0
    assert np.mean(steps) == pytest.approx(0.1, rel=0.1)


def test_joined_recordings_go_on_where_the_second_one_begins_again(tmp_path: Path) -> None:
    first = encode_clip(tmp_path / "a.ts", numbered_images(40), rate=10, first_pts=600)
    second = encode_clip(tmp_path / "b.ts", numbered_images(20), rate=10)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    steps = [after - before for before, after in pairwise(frame.pts_ns for frame in open_source(joined))]
    assert len(steps) >= 57
    assert all(0 < step <= 200 * MS for step in steps)


def test_images_without_times_are_tracked_as_if_they_had_a_rate(tmp_path: Path) -> None:
    for number, image in enumerate(numbered_images(3)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    frames = list(open_source(tmp_path))
    assert [frame.pts_ns for frame in frames] == [None] * 3
    assert [frame.scene_ns for frame in frames] == [0, 40 * MS, 80 * MS]


def test_the_scene_of_a_camera_is_when_it_was_captured() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    assert Frame(image, captured_ns=7, pts_ns=3).scene_ns == 7
    assert Frame(image, captured_ns=7, pts_ns=3, captured_source="file").scene_ns == 3
