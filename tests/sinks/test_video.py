"""Video files: playable in a browser, with the source's own times and sizes."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest

from engine.data import Packet
from engine.errors import ConfigError, SinkError
from engine.protocols import OutputFile
from engine.sinks.video import VideoWriter
from tests.wire.samples import RUN, packet, status

NS_PER_S = 1_000_000_000


def shown(number: int, pts_s: float | None, *, size_wh: tuple[int, int] = (64, 48), source_id: str = "gate") -> Packet:
    """Return a packet whose image is of the grey value 20 * number."""
    made = packet(0, seq=number, size_wh=size_wh, source_id=source_id)
    image = np.full((size_wh[1], size_wh[0], 3), 20 * number, np.uint8)
    pts_ns = None if pts_s is None else round(pts_s * NS_PER_S)
    return dataclasses.replace(made, frame=dataclasses.replace(made.frame, image=image, pts_ns=pts_ns))


def written(writer: VideoWriter, packets: list[Packet], *, nominal: bool = True) -> None:
    writer.open(RUN)
    if nominal:
        writer.status(status("live"))
    for each in packets:
        writer.write(each)
    writer.close()
    writer.close()


class Facts(NamedTuple):
    """What a player sees of a file."""

    codec: str
    pix_fmt: str
    size_wh: tuple[int, int]
    duration_s: float


def read(path: Path) -> tuple[Facts, list[float], list[int]]:
    """Return the facts, and time in s and mean grey value of each frame."""
    with av.open(f"file:{path}") as container:
        stream = container.streams.video[0]
        duration_s = float((stream.duration or 0) * (stream.time_base or 0))
        context = stream.codec_context
        facts = Facts(context.name, context.pix_fmt or "", (stream.width, stream.height), duration_s)
        frames = [(float(f.time or 0), int(f.to_ndarray(format="gray").mean())) for f in container.decode(stream)]
        return facts, [time for time, _ in frames], [grey for _, grey in frames]


def test_a_video_is_what_browsers_play(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", fps=10)
    written(writer, [shown(n, n / 10) for n in range(12)], nominal=False)
    facts, times, greys = read(writer.path)
    assert (facts.codec, facts.pix_fmt, facts.size_wh) == ("h264", "yuv420p", (64, 48))
    data = writer.path.read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")  # index first: playable while it loads
    np.testing.assert_allclose(times, np.arange(12) / 10, atol=1e-4)
    assert facts.duration_s == pytest.approx(1.2, abs=0.02)
    assert greys == sorted(greys)
    assert len(set(greys)) == 12


def test_uneven_times_of_the_source_are_kept(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4")
    written(writer, [shown(n, pts) for n, pts in enumerate([5.0, 5.04, 5.5, 5.52, 9.0])])
    np.testing.assert_allclose(read(writer.path)[1], [0, 0.04, 0.5, 0.52, 4.0], atol=1e-4)


def test_frames_without_times_follow_the_nominal_rate(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4")
    written(writer, [shown(n, None) for n in range(5)])
    np.testing.assert_allclose(read(writer.path)[1], np.arange(5) / 25, atol=1e-4)  # 25 is what status() says


def test_a_rate_may_be_given_where_nothing_is_known(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mkv", fps=5)
    written(writer, [shown(n, None) for n in range(4)], nominal=False)
    np.testing.assert_allclose(read(writer.path)[1], np.arange(4) / 5, atol=1e-3)


def test_times_that_start_anew_go_on_after_the_last_frame(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4")
    packets = [shown(n, 100 + n / 25) for n in range(3)]
    again = [shown(n, 7000 + n / 25) for n in range(3)]
    again = [dataclasses.replace(p, frame=dataclasses.replace(p.frame, stream_epoch=1)) for p in again]
    written(writer, packets + again)
    np.testing.assert_allclose(read(writer.path)[1], np.arange(6) / 25, atol=1e-3)


@pytest.mark.parametrize("size_wh", [(65, 49), (1, 1), (3, 2), (64, 1)], ids=str)
def test_odd_sizes_become_even(tmp_path: Path, size_wh: tuple[int, int]) -> None:
    writer = VideoWriter(tmp_path / "out.mp4")
    written(writer, [shown(n, n / 25, size_wh=size_wh) for n in range(3)])
    facts, times, _ = read(writer.path)
    assert facts.size_wh == (size_wh[0] + size_wh[0] % 2, size_wh[1] + size_wh[1] % 2)
    assert len(times) == 3


def test_a_change_of_size_is_fitted_into_the_first_size(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4")
    sizes = [(64, 48), (128, 48), (32, 48), (20, 20), (65, 48)]
    written(writer, [shown(3, n / 25, size_wh=size) for n, size in enumerate(sizes)])
    facts, times, _ = read(writer.path)
    assert (facts.size_wh, len(times)) == ((64, 48), 5)


def test_several_sources_have_a_file_each(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", per_source=True)
    written(writer, [shown(n, n / 25, source_id=name) for n in range(3) for name in ("gate", "a/b")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out_a_b.mp4", "out_gate.mp4"]
    assert len(read(writer.path_for("a/b"))[1]) == 3


def test_a_second_source_in_one_file_is_an_error(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4")
    writer.open(RUN)
    writer.write(shown(0, 0, source_id="gate"))
    with pytest.raises(SinkError, match="already holds source gate"):
        writer.write(shown(0, 0, source_id="yard"))
    writer.close()


def test_the_end_of_a_source_finishes_its_file(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4")
    writer.open(RUN)
    writer.write(shown(0, 0))
    writer.status(status("ended"))
    assert len(read(writer.path)[1]) == 1
    writer.close()


@pytest.mark.parametrize("per_source", [True, False])
def test_a_source_that_comes_back_gets_another_file(tmp_path: Path, per_source: bool) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", per_source=per_source)
    writer.open(RUN)
    for count in (3, 2, 1):
        for n in range(count):
            writer.write(shown(n, n / 25))
        writer.status(status("ended"))
    writer.close()
    first = writer.path_for("gate")
    others = [first.with_name(f"{first.stem}-{n}.mp4") for n in (2, 3)]
    assert [len(read(path)[1]) for path in (first, *others)] == [3, 2, 1]


def test_a_run_without_frames_leaves_no_file(tmp_path: Path) -> None:
    written(VideoWriter(tmp_path / "out.mp4"), [])
    assert list(tmp_path.iterdir()) == []


def test_what_draw_returns_is_written(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", draw=lambda p: np.full_like(p.frame.image, 255))
    written(writer, [shown(0, n / 25) for n in range(3)])
    assert min(read(writer.path)[2]) > 250


def test_a_folder_that_cannot_be_written_is_an_error_at_opening(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"cannot write .*missing/out.mp4: No such file"):
        VideoWriter(tmp_path / "missing" / "out.mp4").open(RUN)


def test_an_unknown_encoder_is_an_error_at_opening(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="no encoder libx999"):
        VideoWriter(tmp_path / "out.mp4", codec="libx999").open(RUN)


@pytest.mark.parametrize("name", ["out.txt", "out", "out.jpg"])
def test_a_name_that_holds_no_video_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"end it in \.mp4"):
        VideoWriter(name)


def test_a_rate_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="fps is 0"):
        VideoWriter("out.mp4", fps=0)


KILLED = """
import os, signal, sys
from tests.sinks.test_video import RUN, VideoWriter, shown, status
writer = VideoWriter(sys.argv[1])
writer.open(RUN)
writer.status(status("live"))
for number in range(int(sys.argv[2])):
    writer.write(shown(number % 12, number / 25))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "10:00:00.mp4"])
@pytest.mark.parametrize("frames", [2, 3, 200])
def test_the_video_of_a_killed_process_plays_to_its_last_frame_but_one(tmp_path: Path, name: str, frames: int) -> None:
    path = tmp_path / name
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(frames)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    times = read(path)[1]
    assert len(times) >= frames - 1
    np.testing.assert_allclose(times, np.arange(len(times)) / 25, atol=2e-3)


@pytest.mark.parametrize(("name", "fps"), [("out.mp4", 10), ("out.mov", 30), ("out.mkv", 1)])
def test_a_video_can_be_played_at_any_moment_since_its_second_frame(tmp_path: Path, name: str, fps: int) -> None:
    writer = VideoWriter(tmp_path / name, fps=fps)
    writer.open(RUN)
    writer.path.write_bytes(b"an older file, which stays until there is something to play")
    counts = []
    for number in range(40):
        writer.write(shown(number % 12, number / fps))
        if number == 0:
            assert writer.path.read_bytes()[:2] == b"an"
        else:
            counts.append(len(read(writer.path)[1]))
    writer.close()
    assert counts == list(range(1, 40))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_single_frame_makes_a_video(tmp_path: Path) -> None:
    for name in ("out.mp4", "out.mov", "out.mkv"):
        writer = VideoWriter(tmp_path / name)
        written(writer, [shown(5, 0.0)])
        assert len(read(writer.path)[1]) == 1
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", ["out.mp4", "out.mov"])
def test_a_finished_video_has_one_index_and_leaves_no_other_file(tmp_path: Path, name: str) -> None:
    writer = VideoWriter(tmp_path / name)
    written(writer, [shown(n % 12, n / 25) for n in range(100)])
    data = writer.path.read_bytes()
    assert data.count(b"moov") == 1
    assert b"moof" not in data
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(read(writer.path)[1]) == 100


def test_the_outputs_tell_path_frames_and_whether_they_are_complete(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4")
    writer.open(RUN)
    writer.write(shown(0, 0.0))
    assert writer.outputs() == [OutputFile(str(writer.path), 1, complete=False)]
    writer.write(shown(1, 0.1))
    writer.close()
    assert writer.outputs() == [OutputFile(str(writer.path), 2, complete=True)]


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_the_shape_of_pixels_is_kept(tmp_path: Path, name: str) -> None:
    wide = shown(0, 0.0)
    wide = dataclasses.replace(wide, frame=dataclasses.replace(wide.frame, pixel_aspect=64 / 45))
    writer = VideoWriter(tmp_path / name)
    written(writer, [wide])
    with av.open(str(writer.path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(64, 45)


def test_the_look_whether_a_folder_can_be_written_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / ".out.mp4.probe").symlink_to(tmp_path / "victim")
    VideoWriter(tmp_path / "out.mp4").open(RUN)
    assert not (tmp_path / "victim").exists()
    assert (tmp_path / ".out.mp4.probe").is_symlink()
