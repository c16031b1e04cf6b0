"""What `open_source` sees at once, how it names sources, and that no password is ever printed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.clock import FakeClock
from engine.data import Frame, SourceInfo
from engine.errors import ConfigError, SourceError
from engine.sources.base import SourceBase
from engine.sources.camera import camera_address, camera_devices
from engine.sources.images import ImagesSource
from engine.sources.open import open_source
from engine.sources.paced import PacedSource
from engine.video.network import video_address_from_uri
from engine.video.options import SourceOptions
from engine.video.uri import name_from_uri, redact, unique_name
from tests.media import Recorder, encode_clip, numbered_images


def test_a_missing_file_is_refused_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "entrance.mp4").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"no such file: .*entrnce.mp4; did you mean .*entrance.mp4"):
        open_source(tmp_path / "entrnce.mp4")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(SourceError, match="is empty"):
        open_source(tmp_path / "empty.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything: run the tests as a user")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(SourceError, match="cannot be read"):
        open_source(path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no images"):
        open_source(tmp_path)


def test_an_unknown_scheme_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SourceError, match=r"gopher:// is unknown; expected .*rtsp://"):
        open_source("gopher://host/1")


@pytest.mark.parametrize("uri", ["rtsp://", "rtsp://host:port/1", "http:///x.mjpg"])
def test_an_address_that_cannot_work_is_refused(uri: str) -> None:
    with pytest.raises(SourceError, match="expected"):
        open_source(uri)


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown source option 'tranport': expected one of .*transport"):
        open_source("rtsp://host/1", tranport="tcp")


@pytest.mark.parametrize("options", [{"reader": "fork"}, {"read_timeout_s": 0}, {"slots": 2}, {"decoder": "gpu"}])
def test_an_option_that_cannot_work_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        open_source("rtsp://host/1", **options)


def test_a_missing_camera_lists_those_present(tmp_path: Path) -> None:
    (tmp_path / "video3").touch()
    (tmp_path / "v4l" / "by-id").mkdir(parents=True)
    (tmp_path / "v4l" / "by-id" / "usb-cam").touch()
    with pytest.raises(SourceError, match=r"no camera .*video0: this machine has .*usb-cam, .*video3"):
        camera_address("0", SourceOptions(), tmp_path)
    assert camera_devices(tmp_path) == [str(tmp_path / "v4l/by-id/usb-cam"), str(tmp_path / "video3")]


def test_a_file_in_place_of_a_camera_is_refused(tmp_path: Path) -> None:
    (tmp_path / "video0").touch()
    with pytest.raises(SourceError, match="is not a camera"):
        camera_address("0", SourceOptions(), tmp_path)


def test_a_camera_is_asked_for_size_rate_and_format() -> None:
    target = camera_address("/dev/null", SourceOptions(size_wh=(1280, 720), fps=30, pixel_format="mjpeg"), Path("/dev"))
    assert target.format == "v4l2"
    assert target.ffmpeg["video_size"] == "1280x720"
    assert target.ffmpeg["framerate"] == "30"
    assert target.ffmpeg["input_format"] == "mjpeg"


def test_rtsp_is_opened_over_tcp_with_low_delay_and_limits() -> None:
    target = video_address_from_uri("rtsp://host/1", SourceOptions(read_timeout_s=3))
    assert target.live
    assert target.host_port == ("host", 554)
    assert target.ffmpeg["rtsp_transport"] == "tcp"
    assert target.ffmpeg["fflags"] == "nobuffer+noparse"
    assert target.ffmpeg["flags"] == "low_delay"
    assert target.ffmpeg["timeout"] == "3000000"
    assert (target.open_timeout_s, target.read_timeout_s) == (10, 3)


def test_own_ffmpeg_options_win() -> None:
    target = video_address_from_uri("rtsp://host/1", SourceOptions(ffmpeg={"flags": "none"}))
    assert target.ffmpeg["flags"] == "none"


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("0", "camera0"),
        ("/dev/video2", "camera2"),
        ("/dev/v4l/by-id/usb-046d_C920-video-index0", "usb-046d_C920-video-index0"),
        ("rtsp://admin:x@gate.local:8554/a/b", "gate.local"),
        ("http://[::1]:80/x.mjpg", "1"),
        ("clips/front door.mp4", "front_door"),
        ("file:///tmp/a.mp4", "a"),
        ("shots/*.png", "shots"),
        ("synthetic://?count=1", "synthetic"),
        ("///", "images"),
    ],
)
def test_a_source_without_a_name_gets_one(uri: str, name: str) -> None:
    assert name_from_uri(uri) == name


def test_names_are_made_unique() -> None:
    taken: set[str] = set()
    for _ in range(3):
        taken.add(unique_name("gate", taken))
    assert taken == {"gate", "gate-2", "gate-3"}


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://admin:secret@10.0.0.7/live",
        "rtsp://admin:se/secret@10.0.0.7/live",
        "rtsp://admin:p@secret@10.0.0.7/live",
        "rtsp://:secret@10.0.0.7/live",
        "failed 'rtsp://admin:secret@10.0.0.7/live': no",
        "http://cam/videostream.cgi?user=admin&pwd=secret",
        "http://cam/x.mjpg?token=secret: refused",
        "HTTPS://a:secret@h/;auth=secret#x",
    ],
)
def test_passwords_are_removed(text: str) -> None:
    assert "secret" not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize("text", ["rtsp://10.0.0.7:554/live?channel=1", "clip.mp4", "rtsp://admin@10.0.0.7/live"])
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_the_password_is_in_no_fact_and_no_error() -> None:
    source, recorder = (
        open_source("rtsp://admin:hunter2@127.0.0.1:9/live", reconnect=False, reader="thread"),
        Recorder(),
    )
    source.attach(recorder)
    with pytest.raises(SourceError, match="refused") as caught:
        list(source)
    told = f"{caught.value} {source.info} {recorder.statuses}"
    assert "hunter2" not in told
    assert "127.0.0.1" in told


def test_images_come_in_natural_order_and_any_size(tmp_path: Path) -> None:
    for name, size in [("img10.png", 10), ("img2.png", 2), ("img1.jpg", 33)]:
        cv2.imwrite(str(tmp_path / name), np.zeros((size, size + 1, 3), np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    assert [frame.image.shape for frame in open_source(tmp_path)] == [(33, 34, 3), (2, 3, 3), (10, 11, 3)]
    assert [frame.width for frame in open_source(f"{tmp_path}/*.png", fps=10)] == [3, 11]


def test_grayscale_and_alpha_images_become_bgr(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), np.full((5, 5), 77, np.uint8))
    cv2.imwrite(str(tmp_path / "2.png"), np.full((5, 5, 4), 88, np.uint8))
    frames = list(open_source(tmp_path))
    assert [frame.image[0, 0].tolist() for frame in frames] == [[77, 77, 77], [88, 88, 88]]


def test_an_unreadable_image_is_counted(tmp_path: Path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "1.png").write_bytes(b"no image")
    source, recorder = open_source(tmp_path), Recorder()
    source.attach(recorder)
    assert [frame.frame_id for frame in source] == [0, 2]
    assert recorder.losses == {"corrupt": 1}


def test_a_growing_folder_is_followed(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((4, 4, 3), np.uint8))
    source = ImagesSource(tmp_path, "folder", grow_s=1.0)
    seen = []
    for frame in source:
        seen.append(frame.frame_id)
        if len(seen) < 4:
            cv2.imwrite(str(tmp_path / f"{len(seen)}.png"), np.zeros((4, 4, 3), np.uint8))
        else:
            source.interrupt()
    assert seen == [0, 1, 2, 3]


def test_an_image_that_is_taken_away_does_not_end_a_growing_folder(tmp_path: Path) -> None:
    class Shrinking(ImagesSource):
        def paths(self) -> list[Path]:
            return [tmp_path / "gone.png", *super().paths()]

    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((4, 4, 3), np.uint8))
    source = Shrinking(tmp_path, "folder", grow_s=1.0)
    for frame in source:
        assert frame.frame_id == 0
        source.interrupt()


def test_a_clip_played_at_its_rate_is_live_and_repeats(tmp_path: Path) -> None:
    clip = encode_clip(tmp_path / "loop.mp4", numbered_images(5), rate=20)
    source = open_source(clip, realtime=True, loop=True)
    assert source.info.is_live
    frames = []
    for frame in source:
        frames.append(frame)
        if len(frames) == 12:
            source.interrupt()
    times = [frame.pts_ns or 0 for frame in frames]
    assert times == sorted(set(times))
    assert [frame.captured_source for frame in frames] == ["arrival"] * 12
    elapsed_ns = frames[-1].captured_ns - frames[0].captured_ns
    # a busy machine may deliver the first frame late, and the others on time
    assert elapsed_ns >= 0.6 * (times[-1] - times[0]), "it is not played faster than its rate"


def test_a_recording_whose_time_does_not_begin_at_zero_is_played_at_once(tmp_path: Path) -> None:
    clip, clock = encode_clip(tmp_path / "late.ts", numbered_images(10), first_pts=500), FakeClock()
    begun_ns = clock.monotonic_ns()
    frames = list(PacedSource(lambda: open_source(clip), clock=clock))
    assert len(frames) == 10
    assert clock.monotonic_ns() - begun_ns < 1e9
    assert (frames[0].pts_ns or 0) >= 20e9, "the stream time is that of the recording"


def test_stream_time_that_begins_anew_within_a_recording_is_played_on(tmp_path: Path) -> None:
    part = encode_clip(tmp_path / "part.ts", numbered_images(20))
    both = tmp_path / "both.ts"
    both.write_bytes(part.read_bytes() * 2)
    expected = len(list(open_source(both)))
    source, recorder = PacedSource(lambda: open_source(both), clock=FakeClock()), Recorder()
    source.attach(recorder)
    times = [frame.pts_ns or 0 for frame in source]
    assert len(times) == expected > 35
    assert recorder.losses["stale"] == 0
    assert times == sorted(set(times))
    assert times[-1] - times[0] < 2e9


def test_a_clip_played_to_a_slow_reader_skips_frames_and_counts_them(tmp_path: Path) -> None:
    import threading

    clip = encode_clip(tmp_path / "late.mp4", numbered_images(40), rate=100)
    source, recorder = open_source(clip, realtime=True), Recorder()
    source.attach(recorder)
    delivered = sum(1 for _ in source if not threading.Event().wait(0.05))
    assert recorder.losses["stale"] > 0
    assert delivered + recorder.losses["stale"] == 40


@pytest.mark.parametrize(
    ("names", "sizes", "expected"),
    [
        pytest.param(["000001", "000002", "000003"], [(32, 24)] * 3, True, id="frames of a video"),
        pytest.param(["bus", "zidane", "dog"], [(32, 24)] * 3, False, id="named photos"),
        pytest.param(["1", "2", "3"], [(32, 24), (24, 32), (32, 24)], False, id="photos of several sizes"),
        pytest.param(["1", "2"], [(32, 24)] * 2, False, id="too few to tell"),
    ],
)
def test_frames_of_a_video_are_told_from_unrelated_photos(
    tmp_path: Path, names: list[str], sizes: list[tuple[int, int]], expected: bool
) -> None:
    for name, (width, height) in zip(names, sizes, strict=True):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((height, width, 3), np.uint8))
    assert ImagesSource(tmp_path, "photos").is_sequence() is expected


@pytest.mark.parametrize(
    "uri", ["x" * 5000, "a/" * 5000, "a\0b", "x" * 5000 + "*.png"], ids=["long", "deep", "NUL", "glob"]
)
def test_a_path_that_no_file_system_holds_is_a_source_error(uri: str) -> None:
    with pytest.raises(SourceError):
        open_source(uri)


def test_a_recording_that_cannot_be_read_at_its_rate_goes_on_more_slowly(tmp_path: Path) -> None:
    """Every frame takes longer than its interval; none but the first would ever be in time."""
    clip, clock = encode_clip(tmp_path / "slow.mp4", numbered_images(40), rate=25), FakeClock()

    class Slow(SourceBase):
        def __init__(self) -> None:
            super().__init__(SourceInfo("slow", "slow", is_live=False, fps=25.0))

        def _frames(self) -> Iterator[Frame]:
            for frame in open_source(clip):
                clock.advance(0.4)
                yield frame

    recorder, source = Recorder(), PacedSource(Slow, clock=clock)
    source.attach(recorder)
    delivered = len(list(source))
    assert 12 <= delivered <= 20, "about one in three"
    assert delivered + recorder.losses["stale"] == 40
