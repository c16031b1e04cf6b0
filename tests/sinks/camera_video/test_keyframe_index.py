"""The index beside a recording: written, read, damaged, rebuilt."""

from __future__ import annotations

import os
from pathlib import Path

import av
import pytest

from engine.clock import NS_PER_S
from engine.sinks.camera_video.keyframe_index import (
    IndexWriter,
    Keyframe,
    index_path,
    load_index,
    read_index,
    settled,
)
from engine.sinks.camera_video.segments import Captured, SegmentFolder, SegmentWriter
from tests.media import encode_clip, numbered_images

UTC_NS = 1_700_000_000 * NS_PER_S
ROWS = [Keyframe(second * 1_000_000, UTC_NS + second * NS_PER_S, "rtcp") for second in range(5)]


def written(path: Path, rows: list[Keyframe]) -> Path:
    writer = IndexWriter(path)
    for row in rows:
        writer.add(row)
    writer.close()
    return path


def record(folder: Path, *, delay_s: float = 0.0, count: int = 60) -> Path:
    """Record an encoded clip whose frames were captured from `UTC_NS` on, and return the file."""
    clip = encode_clip(folder / "given.mp4", numbered_images(count), options={"g": "25", "bf": "0"})
    writer = SegmentWriter(SegmentFolder(str(folder / "cam"), segment_s=1000))
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            if packet.size:
                at_ns = UTC_NS + int((float(packet.pts * packet.time_base) + delay_s) * NS_PER_S)
                writer.write(packet, stream, Captured(at_ns, "rtcp"))
        writer.close()
    (path,) = (folder / "cam").glob("*.mp4")
    return path


def test_a_recording_gets_a_row_per_keyframe_and_one_for_its_end(tmp_path: Path) -> None:
    rows = read_index(record(tmp_path))
    assert [row.time_us for row in rows] == [0, 1_000_000, 2_000_000, 2_400_000]
    assert [row.utc_ns - UTC_NS for row in rows] == [0, NS_PER_S, 2 * NS_PER_S, 24 * NS_PER_S // 10]
    assert [row.kind for row in rows] == ["keyframe"] * 3 + ["end"]
    assert rows[0].sync == "rtcp"


def test_a_frame_that_waited_less_corrects_the_keyframe_before_it(tmp_path: Path) -> None:
    given = [Keyframe(0, UTC_NS + NS_PER_S)]
    given += [Keyframe(at, UTC_NS + at * 1000 + late, kind="clock") for at, late in ((40_000, 500), (80_000, 400))]
    given += [Keyframe(120_000, UTC_NS + 120_000_500, "rtcp", "clock"), Keyframe(160_000, UTC_NS, "rtcp", "clock")]
    rows = read_index(written(tmp_path / "a.mp4", given))
    assert [row.time_us for row in rows] == [0, 40_000, 120_000], "one row per gain"
    assert rows[0] == Keyframe(0, UTC_NS + 500, "rtcp")


def test_its_name_is_the_time_of_the_first_frame(tmp_path: Path) -> None:
    assert record(tmp_path).name == "2023-11-14T22-13-20Z.mp4"


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_torn_row_is_left_out(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path / "a.mp4", ROWS)
    data = index_path(path).read_bytes()
    index_path(path).write_bytes(data[:-cut])
    assert read_index(path) == ROWS[:-1]


@pytest.mark.parametrize("byte", [0, 24, 40, 70])
def test_a_damaged_row_ends_the_index(tmp_path: Path, byte: int) -> None:
    path = written(tmp_path / "a.mp4", ROWS)
    data = bytearray(index_path(path).read_bytes())
    data[byte] ^= 0xFF
    index_path(path).write_bytes(data)
    read = read_index(path)
    assert read == ROWS[: len(read)]
    assert len(read) < len(ROWS)


@pytest.mark.parametrize("damage", ["missing", "empty", "noise"])
def test_an_index_is_rebuilt_from_the_recording_and_says_that_it_knows_less(tmp_path: Path, damage: str) -> None:
    path = record(tmp_path)
    expected = [row.time_us for row in read_index(path)]
    if damage == "missing":
        index_path(path).unlink()
    else:
        index_path(path).write_bytes(b"" if damage == "empty" else os.urandom(500))
    os.utime(path, (1_700_000_100, 1_700_000_100))
    rows = load_index(path)
    assert [row.time_us for row in rows] == expected
    assert {row.sync for row in rows} == {"name"}
    assert rows[0].utc_ns == UTC_NS, "the name is right to the second"
    assert read_index(path) == rows, "and stored for the next time"


def test_an_index_of_a_growing_recording_is_not_stored(tmp_path: Path) -> None:
    path = record(tmp_path)
    index_path(path).unlink()
    assert load_index(path)
    assert not index_path(path).exists()


def test_the_clock_of_the_camera_corrects_what_arrived_before_it_was_known() -> None:
    late_ns = 1_100_000_000
    rows = [Keyframe(0, UTC_NS + late_ns), Keyframe(1_000_000, UTC_NS + NS_PER_S + late_ns // 2), *ROWS[2:]]
    assert settled(rows) == ROWS


def test_among_times_of_arrival_the_earliest_counts() -> None:
    rows = [
        Keyframe(row.time_us, row.utc_ns + wait_ns) for row, wait_ns in zip(ROWS, (900, 500, 0, 30, 7), strict=True)
    ]
    assert [row.utc_ns for row in settled(rows)] == [row.utc_ns for row in ROWS]


def test_times_on_both_sides_of_a_step_of_the_clock_are_independent() -> None:
    stepped = [Keyframe(row.time_us, row.utc_ns + 3600 * NS_PER_S * (row.time_us >= 2_000_000)) for row in ROWS]
    assert settled(stepped) == stepped
