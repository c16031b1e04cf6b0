"""Times within a recorded file, and which files are kept."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from fractions import Fraction
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace

import av
import pytest

from engine.errors import ConfigError
from engine.sinks.camera_video.record_process import Recorder
from engine.sinks.camera_video.recordings import record_plan
from engine.sinks.camera_video.segments import SegmentError, SegmentFolder, SegmentWriter, Timeline
from engine.video.address import VideoAddress
from engine.video.options import SourceOptions
from tests.media import encode_clip, numbered_images

TICKS = Fraction(1, 1000)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param([5000, 5040, 5080], [0, 40, 80], id="begins at 0"),
        pytest.param([None, 40, 80], [0, 40, 80], id="the first has none, as with RTSP"),
        pytest.param([None, None, 80], [0, 40, 80], id="two have none"),
        pytest.param([0, 40, 30, 80], [0, 40, 41, 80], id="one goes back a little"),
        pytest.param([90_000, 90_040, 0, 40], [0, 40, 80, 120], id="the camera starts anew"),
        pytest.param([0, 40, 3_600_000, 3_600_040], [0, 40, 80, 120], id="an hour is jumped over"),
        pytest.param([0, 40, 5000], [0, 40, 5000], id="a gap stays"),
    ],
)
def test_times_begin_at_0_and_rise(given: list[int | None], expected: list[int]) -> None:
    timeline = Timeline(TICKS)
    packets = [SimpleNamespace(pts=time, dts=time, duration=40) for time in given]
    for packet in packets:
        timeline.place(packet)
    assert [packet.dts for packet in packets] == expected
    assert [packet.pts for packet in packets] == expected


def test_the_order_of_pictures_is_kept_where_it_differs_from_that_of_packets() -> None:
    timeline = Timeline(TICKS)
    packets = [SimpleNamespace(pts=pts, dts=dts, duration=40) for dts, pts in [(0, 80), (40, 200), (80, 120)]]
    for packet in packets:
        timeline.place(packet)
    assert [(packet.dts, packet.pts) for packet in packets] == [(0, 80), (40, 200), (80, 120)]


def files(folder: Path, names: list[str], size: int = 100) -> None:
    for number, name in enumerate(names):
        (folder / name).write_bytes(bytes(size))
        written = time.time() - 3600 * (len(names) - number)
        os.utime(folder / name, (written, written))


NAMES = [f"2026-01-0{day}T00-00-00Z.mp4" for day in range(1, 7)]


def test_the_oldest_files_are_deleted_until_there_is_room_for_another(tmp_path: Path) -> None:
    files(tmp_path, NAMES)
    assert SegmentFolder(str(tmp_path), max_bytes=400).tidy() == 3
    assert sorted(os.listdir(tmp_path)) == NAMES[3:], "300 bytes, and a quarter of 400 is left for the next"


def test_files_are_deleted_for_their_age(tmp_path: Path) -> None:
    files(tmp_path, NAMES)
    assert SegmentFolder(str(tmp_path), keep_s=2.5 * 3600).tidy() == 4
    assert sorted(os.listdir(tmp_path)) == NAMES[4:]


def test_files_are_deleted_for_their_age_also_while_the_camera_is_away(tmp_path: Path) -> None:
    files(tmp_path, NAMES)
    here, there = Pipe()
    here.send_bytes(b"stop")
    with here, there, socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # it does not listen: refused
        away = VideoAddress("rtsp://127.0.0.1/x", host_port=deaf.getsockname(), live=True)
        Recorder(away, SegmentFolder(str(tmp_path), keep_s=2.5 * 3600, max_bytes=1), SourceOptions(), there).run()
        told = []
        while here.poll(0):
            told.append(json.loads(here.recv_bytes()))
    assert [each["state"] for each in told] == ["connecting", "offline", "ended"]
    assert told[-1]["deleted"] == 4
    assert sorted(os.listdir(tmp_path)) == NAMES[4:]


def test_what_is_not_ours_is_never_deleted(tmp_path: Path) -> None:
    others = ["notes.txt", "holiday.mp4", "2026-01-01.mp4", "2026-01-01T00-00-00Z.mp4.bak"]
    files(tmp_path, others)
    assert SegmentFolder(str(tmp_path), max_bytes=1, keep_s=1).tidy() == 0
    assert sorted(os.listdir(tmp_path)) == sorted(others)


def test_two_files_of_one_second_have_names_of_their_own(tmp_path: Path) -> None:
    folder = SegmentFolder(str(tmp_path / "new"))
    taken = folder.new_path()
    taken.touch()
    second = folder.new_path()
    assert second != taken
    assert second.parent == tmp_path / "new"


@pytest.mark.parametrize("source_id", ["..", ".", "../up", "a/b", ".hidden"])
def test_a_recording_stays_below_its_folder(tmp_path: Path, source_id: str) -> None:
    plan = record_plan("rtsp://gate/1", source_id, tmp_path, SourceOptions())
    assert Path(plan.files.folder).parent == tmp_path.resolve()
    assert not Path(plan.files.folder).name.startswith(".")


@pytest.mark.parametrize("uri", ["0", "/dev/video0", "clip.mp4", "synthetic://?fps=5"])
def test_only_network_streams_are_recorded(tmp_path: Path, uri: str) -> None:
    with pytest.raises(ConfigError, match="main stream"):
        record_plan(uri, "cam", tmp_path, SourceOptions())


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        pytest.param("/proc/nowhere", "check that the folder and its disk are there", id="cannot be made"),
        pytest.param("/dev/null/below", "check that the folder and its disk are there", id="below a file"),
    ],
)
def test_a_folder_that_cannot_be_made_is_named(folder: str, words: str) -> None:
    writer = SegmentWriter(SegmentFolder(folder))
    with pytest.raises(SegmentError, match=f"cannot write {folder}.*{words}"):
        writer.write(SimpleNamespace(is_keyframe=True, size=1), None)
    assert not writer.is_open
    writer.close()


def test_what_no_file_of_this_kind_holds_is_told_with_a_remedy(tmp_path: Path) -> None:
    clip = encode_clip(tmp_path / "clip.avi", numbered_images(2), codec="wmv2")
    writer = SegmentWriter(SegmentFolder(str(tmp_path / "kept"), container="mp4"))
    with av.open(str(clip)) as container:
        packet = next(container.demux(video=0))
        with pytest.raises(SegmentError, match="container mkv holds more"):
            writer.write(packet, container.streams.video[0])
    with suppress(SegmentError):
        writer.close()


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o640, 0o750), (0o077, 0o600, 0o700)])
def test_recordings_are_closed_to_others(tmp_path: Path, umask: int, file_mode: int, folder_mode: int) -> None:
    before = os.umask(umask)
    try:
        path = SegmentFolder(str(tmp_path / "all" / "gate")).new_path()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == file_mode
    assert {place.stat().st_mode & 0o777 for place in (path.parent, path.parent.parent)} == {folder_mode}


def test_a_link_in_the_place_of_a_recording_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "gmtime", lambda _: time.struct_time((2030, 1, 2, 3, 4, 5, 2, 2, 0)))
    (tmp_path / "2030-01-02T03-04-05Z.mp4").symlink_to(tmp_path / "victim")
    assert SegmentFolder(str(tmp_path)).new_path().name == "2030-01-02T03-04-05Z_1.mp4"
    assert not (tmp_path / "victim").exists()


def test_a_clock_that_jumps_two_days_ahead_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SegmentWriter(SegmentFolder(str(tmp_path), keep_s=24 * 3600))
    paths = [SegmentFolder(str(tmp_path)).new_path() for _ in range(3)]
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 2 * 86400)
    writer.tidy()
    assert (writer.deleted, [path.exists() for path in paths]) == (0, [True] * 3)


def test_a_start_with_a_clock_two_days_ahead_deletes_nothing_at_once(tmp_path: Path) -> None:
    files(tmp_path, NAMES)
    early = SegmentWriter(SegmentFolder(str(tmp_path), keep_s=0.5 * 3600))
    early.tidy()
    assert early.deleted == 0
    assert SegmentFolder(str(tmp_path), keep_s=0.5 * 3600).tidy() == len(NAMES)


def test_files_of_this_process_are_the_newest_whatever_the_clock_has_named_them(tmp_path: Path) -> None:
    for name in ("2031-01-01T00-00-00Z.mp4", "2026-01-01T00-00-00Z.mp4"):
        (tmp_path / name).write_bytes(bytes(200))
    SegmentFolder(str(tmp_path), max_bytes=300).tidy(newest=["2026-01-01T00-00-00Z.mp4"])
    assert [path.name for path in tmp_path.iterdir()] == ["2026-01-01T00-00-00Z.mp4"]
