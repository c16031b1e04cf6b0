"""Clips cut from recordings made here, read by decoding."""

from __future__ import annotations

import os
from pathlib import Path

import av
import pytest

from engine.clock import NS_PER_S
from engine.events.media.cut import Clip, Wanted, cut
from engine.sinks.camera_video.keyframe_index import index_path
from engine.sinks.camera_video.segments import Captured, SegmentFolder, SegmentWriter
from tests.events.media.recorded import FPS, UTC_NS, record, shown
from tests.media import encode_clip, numbered_images

COUNT = 200


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Numbered frames with a keyframe every 2 s: without and with B-frames, of another size, and as VP8."""
    folder, images = tmp_path_factory.mktemp("encoded"), numbered_images(COUNT, width=160, height=120)
    gop = {"g": "50", "sc_threshold": "0", "preset": "ultrafast"}
    other = numbered_images(COUNT // 2 + 25)
    return {
        "plain": encode_clip(folder / "plain.mp4", images, options={**gop, "bf": "0"}),
        "b-frames": encode_clip(folder / "b.mp4", images, options={**gop, "bf": "3", "b_strategy": "0"}),
        "other": encode_clip(folder / "other.mp4", other, options={**gop, "bf": "0"}),
        "vp8": encode_clip(folder / "v.mkv", images, codec="libvpx", options={"g": "50", "deadline": "realtime"}),
    }


def cut_of(folder: Path, begin_s: float, end_s: float) -> Clip:
    span = (UTC_NS + round(seconds * NS_PER_S) for seconds in (begin_s, end_s))
    return cut(Wanted(folder, *span, folder.parent / "clips" / "day" / "event"))


@pytest.mark.parametrize("kind", ["plain", "b-frames"])
@pytest.mark.parametrize(("begin_s", "end_s"), [(0, 2), (1, 3), (2, 4), (3.96, 4.04), (1.22, 5.5), (5.99, 8)])
def test_the_first_frame_shown_is_the_wanted_one(
    encoded: dict[str, Path], tmp_path: Path, kind: str, begin_s: float, end_s: float
) -> None:
    record(encoded[kind], tmp_path / "cam")
    clip = cut_of(tmp_path / "cam", begin_s, end_s)
    assert (clip.state, clip.reason, clip.sync) == ("exact", "", "rtcp")
    frames = shown(clip.paths[0])
    first, last = -(-round(begin_s * FPS, 3) // 1), -(-round(end_s * FPS, 3) // 1) - 1
    assert frames[0] == (first, 0.0)
    assert frames[-1][0] == last
    numbers = [number for number, _ in frames]
    assert numbers == list(range(int(first), int(first) + len(frames)))
    assert [at for _, at in frames] == pytest.approx([at / FPS for at in range(len(frames))], abs=0.001)
    assert clip.began_ns == UTC_NS + int(first) * NS_PER_S // FPS
    assert clip.sizes == [clip.paths[0].stat().st_size]


def test_recordings_that_follow_each_other_become_one_clip(encoded: dict[str, Path], tmp_path: Path) -> None:
    for part in (slice(0, 100), slice(100, None)):
        record(encoded["plain"], tmp_path / "cam", segment=part)
    assert len(list((tmp_path / "cam").glob("*.mp4"))) == 2
    clip = cut_of(tmp_path / "cam", 3, 5)
    assert (clip.state, len(clip.paths)) == ("exact", 1)
    assert [number for number, _ in shown(clip.paths[0])] == list(range(75, 125))


def test_a_gap_is_told_and_takes_its_time(encoded: dict[str, Path], tmp_path: Path) -> None:
    record(encoded["plain"], tmp_path / "cam", segment=slice(0, 50))
    record(encoded["plain"], tmp_path / "cam", after_s=4.0, segment=slice(50, None))
    clip = cut_of(tmp_path / "cam", 1, 8)
    assert (clip.state, clip.reason) == ("partial", "no video for 4.0 s from 22:13:21.9 UTC")
    frames = shown(clip.paths[0])
    assert frames[24][0] == 49
    assert frames[25] == (50, pytest.approx(5.0))


@pytest.mark.parametrize(
    ("begin_s", "end_s", "words"),
    [
        (-3, 2, "the recording begins 3.0 s after the wanted start"),
        (6, 11, "the recording ends 3.0 s before the wanted end"),
    ],
)
def test_what_is_missing_at_the_ends_is_told(
    encoded: dict[str, Path], tmp_path: Path, begin_s: float, end_s: float, words: str
) -> None:
    record(encoded["plain"], tmp_path / "cam")
    clip = cut_of(tmp_path / "cam", begin_s, end_s)
    assert (clip.state, clip.reason) == ("partial", words)
    assert clip.is_final == (begin_s < 0)


def test_another_video_format_begins_another_file(encoded: dict[str, Path], tmp_path: Path) -> None:
    record(encoded["plain"], tmp_path / "cam", segment=slice(0, 100))
    record(encoded["other"], tmp_path / "cam", segment=slice(100, None))
    clip = cut_of(tmp_path / "cam", 3, 5)
    assert clip.state == "partial"
    assert "format changed" in clip.reason
    assert [path.name for path in clip.paths] == ["event.mp4", "event_2.mp4"]
    assert [len(shown(path)) for path in clip.paths] == [25, 25]
    assert shown(clip.paths[1])[0] == (100, 0.0)


def test_a_codec_without_edit_list_begins_at_its_keyframe_and_says_so(encoded: dict[str, Path], tmp_path: Path) -> None:
    record(encoded["vp8"], tmp_path / "cam", container="mkv")
    clip = cut_of(tmp_path / "cam", 3, 5)
    assert (clip.state, clip.paths[0].suffix) == ("keyframe", ".mkv")
    assert "1.0 s earlier" in clip.reason
    assert shown(clip.paths[0])[0] == (50, 0.0)


@pytest.mark.parametrize("span", [(-20, -10), (60, 70)])
def test_without_a_recording_there_is_no_clip(encoded: dict[str, Path], tmp_path: Path, span: tuple[int, int]) -> None:
    record(encoded["plain"], tmp_path / "cam")
    clip = cut_of(tmp_path / "cam", *span)
    assert (clip.state, clip.reason, clip.paths) == ("none", "there is no recording of this time", [])
    assert cut_of(tmp_path / "nowhere", 0, 1).state == "none"


def test_a_lost_index_costs_only_precision_of_time(encoded: dict[str, Path], tmp_path: Path) -> None:
    record(encoded["plain"], tmp_path / "cam")
    (path,) = (tmp_path / "cam").glob("*.mp4")
    index_path(path).unlink()
    clip = cut_of(tmp_path / "cam", 3, 5)
    assert (clip.state, clip.sync) == ("exact", "name")
    assert shown(clip.paths[0])[0] == (75, 0.0)


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_damaged_recording_gives_what_it_holds(encoded: dict[str, Path], tmp_path: Path, damage: str) -> None:
    record(encoded["plain"], tmp_path / "cam")
    (path,) = (tmp_path / "cam").glob("*.mp4")
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) // 3], "noise": os.urandom(5000), "empty": b""}[damage])
    clip = cut_of(tmp_path / "cam", 0, 4)
    assert clip.state in ("partial", "none")
    assert clip.reason
    assert not list(tmp_path.rglob("*.part"))


def test_a_folder_that_cannot_be_written_is_told(encoded: dict[str, Path], tmp_path: Path) -> None:
    record(encoded["plain"], tmp_path / "cam")
    (tmp_path / "clips").write_text("a file")
    clip = cut_of(tmp_path / "cam", 1, 2)
    assert clip.state == "none"
    assert "cannot write event" in clip.reason


def test_the_recording_being_written_can_be_cut(encoded: dict[str, Path], tmp_path: Path) -> None:
    writer = SegmentWriter(SegmentFolder(str(tmp_path / "cam"), segment_s=1000))
    with av.open(str(encoded["plain"])) as given:
        stream = given.streams.video[0]
        for packet in given.demux(stream):
            if packet.size:
                at_ns = UTC_NS + round(float(packet.pts * packet.time_base) * NS_PER_S)
                writer.write(packet, stream, Captured(at_ns, "rtcp"))
        clip = cut_of(tmp_path / "cam", 3, 5)
        early = cut_of(tmp_path / "cam", 3, 9)
        writer.close()
    assert (clip.state, clip.is_final) == ("exact", True)
    assert shown(clip.paths[0])[0] == (75, 0.0)
    assert not early.is_final
