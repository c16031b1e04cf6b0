"""Frames that come in segments are released at the rate of their stream; nothing is lost, and delays shrink again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from engine.clock import FakeClock
from engine.errors import SourceError
from engine.sources.open import open_source
from engine.sources.synthetic import number_in_image
from engine.video.frames import DecodedFrame, MissingFrames
from engine.video.pace.pacing import NOTHING, Pace, paced
from engine.video.timing.arrivals import Stamp
from tests.media import Recorder, encode_clip, file_server, numbered_images

MS = 1_000_000
FPS, SEGMENT = 10, 20  # frames per second, and of a segment


def released_ms(published_ms: list[int], *, catches_up: bool = True) -> list[int]:
    """Return when each frame is released, if segments of 2 s are published at these times."""
    clock = FakeClock()

    def frames() -> Iterator[DecodedFrame]:
        for number, at_ms in enumerate(published_ms):
            clock.advance(max(at_ms * MS - clock.monotonic_ns(), 0) / 1e9)
            for at in range(SEGMENT):
                pts_ns = (number * SEGMENT + at) * 1_000 // FPS * MS
                yield DecodedFrame(None, Stamp(clock.monotonic_ns(), clock.utc_ns(), pts_ns))

    items = [item for item in paced(frames(), Pace(catches_up=catches_up), clock) if isinstance(item, DecodedFrame)]
    assert {item.stamp.captured_source for item in items} == {"segment"}
    return [item.stamp.captured_ns // MS for item in items]


def test_segments_become_an_even_stream() -> None:
    times = released_ms([0, 2000, 4000, 6000])
    assert times == [100 * number for number in range(4 * SEGMENT)]


def test_a_late_segment_moves_all_later_frames_back() -> None:
    times = released_ms([0, 2000, 4700, 6700, 8700])
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) == 4700 - 3900
    assert sorted(set(gaps)) == [100, 800]


def test_jitter_of_segments_makes_a_buffer_and_no_further_gaps() -> None:
    published = [2000 * number + 300 * (number % 2) for number in range(20)]
    gaps = np.diff(released_ms(published))
    assert (gaps > 100).sum() == 1


def test_a_buffer_that_is_larger_than_needed_shrinks() -> None:
    """Segments of three seconds ago all lie ready at the start: the delay is caught up at 1.2 times the rate."""
    published = [0, 0, 0, 0, 0, 0, 0, *(2000 * number for number in range(1, 40))]
    times = released_ms(published)
    delays = [at_ms - published[number // SEGMENT] for number, at_ms in enumerate(times)]
    assert max(delays[7 * SEGMENT : 9 * SEGMENT]) > 10_000
    assert delays[-SEGMENT] < 3_000
    assert min(np.diff(times)) > 80


def test_a_recording_is_played_at_its_own_rate_throughout() -> None:
    assert set(np.diff(released_ms([0] * 30, catches_up=False))) == {100}


@pytest.mark.parametrize("pts_ms", [[0, 100, 90_000, 90_100], [5000, 5100, 0, 100], [0, None, None, 300]])
def test_a_jump_or_lack_of_stream_time_is_never_waited_for(pts_ms: list[int | None]) -> None:
    pace = Pace()
    due = [pace.due_ns(None if pts is None else pts * MS, 1000 * MS, 0) // MS for pts in pts_ms]
    assert max(due) <= 1000 + 300


def test_losses_pass_and_long_waits_show_signs_of_life() -> None:
    clock = FakeClock()
    stamps = [Stamp(0, 0, pts * MS) for pts in (0, 1000)]
    given = [DecodedFrame(None, stamps[0]), MissingFrames(3, "corrupt"), DecodedFrame(None, stamps[1])]
    items = list(paced(iter(given), Pace(), clock))
    assert [item for item in items if isinstance(item, MissingFrames) and item.count] == [given[1]]
    assert items.count(NOTHING) == 4


@pytest.mark.parametrize("reader", ["process", "thread"])
def test_every_frame_of_a_playlist_is_delivered_at_its_rate(tmp_path: Path, reader: str) -> None:
    """40 frames in segments of a second; without pacing the newest-frame mailbox kept a few of them."""
    encode_clip(tmp_path / "live.m3u8", numbered_images(40), container="hls", rate=20, options={"g": "20"})
    with file_server(tmp_path) as base:
        source, recorder = open_source(f"{base}/live.m3u8", reader=reader, ffmpeg={"live_start_index": "0"}), Recorder()
        source.attach(recorder)
        frames = list(source)
    numbers = [number_in_image(frame.image) for frame in frames]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + recorder.losses["stale"] == 40
    assert len(numbers) > 20, "a reader that is kept from running misses a few; without pacing nearly all were missed"
    assert {frame.captured_source for frame in frames} == {"segment"}
    assert not recorder.losses["corrupt"]
    span_s = (frames[-1].captured_ns - frames[0].captured_ns) / 1e9
    assert span_s >= 0.9 * (numbers[-1] - numbers[0]) / 20


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        pytest.param("srt://127.0.0.1:9", r"has no srt://.*ffmpeg -i srt://", id="SRT"),
        pytest.param("HTTP://127.0.0.1:9/live.mpd?a=1", r"is DASH.*m3u8", id="DASH"),
    ],
)
def test_what_ffmpeg_lacks_is_refused_by_name_and_not_tried_again(uri: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        list(open_source(uri, reader="thread"))
