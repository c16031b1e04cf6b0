"""Video files: every frame, exact times, any format; damage is counted and reported, never hidden."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from engine.errors import SourceError
from engine.sources.open import open_source
from engine.sources.synthetic import number_in_image
from tests.media import Recorder, encode_clip, file_server, numbered_images, rotate_mp4

CLIPS = [
    ("vtest.avi", 795, 768, 576),
    ("Retail02_short.mp4", 603, 1920, 1080),
    ("numbered_10_frames.mp4", 10, 640, 480),
]


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        pytest.param("a.mp4", "libx264", "yuv420p", id="h264"),
        pytest.param("a.mp4", "libx265", "yuv420p", id="hevc"),
        pytest.param("a.mkv", "libx264", "yuv444p", id="4:4:4"),
        pytest.param("a.mkv", "libx265", "yuv420p10le", id="10 bit"),
        pytest.param("a.avi", "mjpeg", "yuvj420p", id="mjpeg full range"),
        pytest.param("a.mkv", "ffv1", "gray", id="grayscale"),
        pytest.param("a.mkv", "ffv1", "bgra", id="alpha"),
        pytest.param("a.mkv", "ffv1", "gray16le", id="16 bit grayscale"),
        pytest.param("a.mpg", "mpeg2video", "yuv420p", id="mpeg2 program stream"),
        pytest.param("a.webm", "libvpx-vp9", "yuv420p", id="vp9"),
    ],
)
def test_every_frame_comes_in_order_whatever_the_format(
    tmp_path: Path, name: str, codec: str, pixel_format: str
) -> None:
    clip = encode_clip(tmp_path / name, numbered_images(20), codec=codec, pixel_format=pixel_format)
    frames = list(open_source(clip))
    assert [number_in_image(frame.image) for frame in frames] == list(range(20))
    assert [frame.frame_id for frame in frames] == list(range(20))


def test_metadata_that_is_not_utf8_does_not_stop_a_video_from_opening(tmp_path: Path) -> None:
    clip = encode_clip(tmp_path / "a.avi", numbered_images(3), codec="mjpeg", pixel_format="yuvj420p")
    data = clip.read_bytes()
    at = data.index(b"Lavf")  # the ISFT entry: which program wrote the file
    clip.write_bytes(data[:at] + b"\xff\xe9\x80\xfe" + data[at + 4 :])
    assert len(list(open_source(clip))) == 3


@pytest.mark.parametrize("size", [(319, 241), (1, 1), (17, 5), (641, 3)], ids=str)
def test_odd_sizes_are_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    image = np.full((height, width, 3), 200, np.uint8)
    clip = encode_clip(tmp_path / "odd.mkv", [image] * 3, codec="ffv1", pixel_format="bgr0")
    frames = list(open_source(clip))
    assert [frame.image.shape for frame in frames] == [(height, width, 3)] * 3
    assert all(frame.image.flags.c_contiguous for frame in frames)
    np.testing.assert_array_equal(frames[1].image, image)


def test_colours_are_blue_green_red(tmp_path: Path) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:] = (250, 120, 10)
    clip = encode_clip(tmp_path / "c.mkv", [image], codec="ffv1", pixel_format="bgr0")
    np.testing.assert_array_equal(next(iter(open_source(clip))).image, image)


@pytest.mark.parametrize("rate", [25, 30, 7])
def test_stream_times_are_exact(tmp_path: Path, rate: int) -> None:
    clip = encode_clip(tmp_path / "t.mp4", numbered_images(15), rate=rate)
    times = [frame.pts_ns for frame in open_source(clip)]
    assert times == [number * 1_000_000_000 // rate for number in range(15)]


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        pytest.param((0, 1, -1, 0), lambda image: np.rot90(image, 3), id="90 clockwise, as a phone held upright"),
        pytest.param((-1, 0, 0, -1), lambda image: np.rot90(image, 2), id="180"),
        pytest.param((0, -1, 1, 0), np.rot90, id="90 counterclockwise"),
        pytest.param((-1, 0, 0, 1), np.fliplr, id="mirrored, as front cameras are"),
        pytest.param((1, 0, 0, -1), np.flipud, id="upside down"),
        pytest.param((0, 1, 1, 0), lambda image: image.swapaxes(0, 1), id="transposed"),
        pytest.param((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1), id="transposed across"),
    ],
)
@pytest.mark.parametrize("reader", ["file", "process", "thread"])
def test_the_display_matrix_is_honoured(
    tmp_path: Path, matrix: tuple[int, int, int, int], turned: Callable[[np.ndarray], np.ndarray], reader: str
) -> None:
    clip = encode_clip(tmp_path / "r.mp4", numbered_images(3))
    upright = [frame.image for frame in open_source(clip)]
    rotate_mp4(clip, matrix)
    with file_server(tmp_path) as base:
        source = open_source(clip) if reader == "file" else open_source(f"{base}/{clip.name}", reader=reader)
        for frame, image in zip(source, upright, strict=True):
            np.testing.assert_array_equal(frame.image, turned(image))
    assert (source.info.width, source.info.height) == (frame.width, frame.height)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [pytest.param(None, 64 / 45, id="as it is"), pytest.param((0, 1, -1, 0), 45 / 64, id="turned")],
)
def test_the_shape_of_pixels_is_told(tmp_path: Path, matrix: tuple[int, int, int, int] | None, expected: float) -> None:
    clip = encode_clip(tmp_path / "wide.mp4", numbered_images(3), pixel_aspect=Fraction(64, 45))
    if matrix:
        rotate_mp4(clip, matrix)
    source = open_source(clip)
    assert [frame.pixel_aspect for frame in source] == [pytest.approx(expected)] * 3
    assert source.info.pixel_aspect == pytest.approx(64 / 45)


def test_square_pixels_are_the_default(tmp_path: Path) -> None:
    clip = encode_clip(tmp_path / "a.mp4", numbered_images(2))
    assert [frame.pixel_aspect for frame in open_source(clip)] == [1.0, 1.0]


@pytest.mark.parametrize("begin_s", [0.5, 4.5])
def test_frames_that_an_edit_list_hides_are_not_damaged(tmp_path: Path, begin_s: float) -> None:
    """As `ffmpeg -ss 4.5 -c copy` writes it: the frames since the previous keyframe are in the file, but not shown."""
    clip = encode_clip(tmp_path / "a.mp4", numbered_images(60), rate=10, options={"g": "20", "bf": "0"})
    data = bytearray(clip.read_bytes())
    at = data.find(b"elst") + 12
    movie_scale, media_scale = (struct.unpack_from(">I", data, data.find(box) + 16)[0] for box in (b"mvhd", b"mdhd"))
    struct.pack_into(">Ii", data, at, movie_scale, int(begin_s * media_scale))
    clip.write_bytes(data)
    source, recorder = open_source(clip), Recorder()
    source.attach(recorder)
    numbers = [number_in_image(frame.image) for frame in source]
    assert numbers[0] == begin_s * 10
    assert not recorder.losses
    assert recorder.statuses[-1].reason == "end of stream"


def two_streams(path: Path, sizes: list[tuple[int, int]], counts: list[int], default: int | None = None) -> Path:
    with av.open(str(path), "w") as output:
        streams: list[Any] = [output.add_stream("libx264", rate=10) for _ in sizes]
        for number, (stream, (width, height)) in enumerate(zip(streams, sizes, strict=True)):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            if default is not None:
                stream.disposition = Disposition.default if number == default else Disposition(0)
        for stream, (width, height), count in zip(streams, sizes, counts, strict=True):
            for image in numbered_images(count, width, height):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
            output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "sizes", "counts", "expected"),
    [
        pytest.param("a.mp4", [(160, 96), (320, 240)], [20, 20], 1, id="preview first"),
        pytest.param("a.mkv", [(160, 96), (320, 240)], [20, 20], 1, id="preview first in Matroska"),
        pytest.param("a.mp4", [(640, 480), (320, 240)], [1, 20], 1, id="large cover of one frame first"),
        pytest.param("a.mp4", [(640, 480), (320, 240)], [3, 20], 1, id="short large intro"),
        pytest.param("a.mp4", [(320, 240), (320, 240)], [20, 20], 0, id="equal"),
        pytest.param("a.mp4", [(320, 240), (160, 96)], [20, 20], 0, id="film first"),
    ],
)
def test_the_film_is_decoded_and_not_its_preview(
    tmp_path: Path, name: str, sizes: list[tuple[int, int]], counts: list[int], expected: int
) -> None:
    source = open_source(two_streams(tmp_path / name, sizes, counts))
    frames = list(source)
    assert {(frame.width, frame.height) for frame in frames} == {sizes[expected]}
    assert len(frames) == counts[expected]


def test_among_equal_streams_the_default_one_counts(tmp_path: Path) -> None:
    clip = two_streams(tmp_path / "a.mkv", [(320, 240), (320, 240)], [10, 15], default=1)
    assert len(list(open_source(clip))) == 15


def test_a_truncated_video_delivers_what_decodes_and_counts_the_rest(tmp_path: Path) -> None:
    clip = encode_clip(tmp_path / "cut.mp4", numbered_images(100))
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) * 6 // 10])
    source, recorder = open_source(clip), Recorder()
    source.attach(recorder)
    numbers = [number_in_image(frame.image) for frame in source]
    assert 20 < len(numbers) < 90
    assert numbers == list(range(len(numbers)))
    assert len(numbers) + recorder.losses["corrupt"] == 100
    assert "missing" in recorder.statuses[-1].reason


def test_corrupt_frames_are_counted_and_not_delivered(tmp_path: Path) -> None:
    clip = encode_clip(tmp_path / "bad.mp4", numbered_images(100), options={"g": "10"})
    data = bytearray(clip.read_bytes())
    rng, start = random.Random(1), data.find(b"mdat") + 3000
    for _ in range(40):
        data[rng.randrange(start, len(data))] = rng.randrange(256)
    clip.write_bytes(data)
    source, recorder = open_source(clip), Recorder()
    source.attach(recorder)
    delivered = sum(1 for _ in source)
    assert recorder.losses["corrupt"] > 10, "frames with missing parts count too, not only those without a picture"
    assert delivered + recorder.losses["corrupt"] == 100


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"this is a letter, no video\n" * 50, "not a video", id="text named mp4"),
        pytest.param(b"\x00\x00\x00\x20ftypisom" + b"\x00" * 500, "cannot open", id="header and nothing else"),
    ],
)
def test_what_is_no_video_is_a_source_error(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "letter.mp4"
    path.write_bytes(content)
    source, recorder = open_source(path), Recorder()
    source.attach(recorder)
    with pytest.raises(SourceError, match=words):
        list(source)
    assert recorder.states == ["connecting", "ended"]


def test_a_file_without_video_is_a_source_error(tmp_path: Path) -> None:
    import av

    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with pytest.raises(SourceError, match="no video stream"):
        list(open_source(path))


def test_facts_of_the_file_are_known_once_it_is_open(tmp_path: Path) -> None:
    source = open_source(encode_clip(tmp_path / "gate one.mp4", numbered_images(7), rate=30))
    list(source)
    info = source.info
    assert (info.source_id, info.width, info.height, info.fps) == ("gate_one", 320, 240, 30.0)
    assert (info.frame_count, info.codec, info.is_live) == (7, "h264", False)


@pytest.mark.parametrize(("name", "count", "width", "height"), CLIPS)
def test_real_clips_are_read_whole(data_dir: Path, name: str, count: int, width: int, height: int) -> None:
    source, recorder = open_source(data_dir / "videos" / name), Recorder()
    source.attach(recorder)
    number = -1
    for number, frame in enumerate(source):
        assert frame.frame_id == number
    assert (number + 1, frame.width, frame.height) == (count, width, height)
    assert not recorder.losses


@pytest.mark.parametrize(
    ("codec", "pixel_format"),
    [
        ("ffv1", "gray"),
        ("ffv1", "gray10le"),
        ("ffv1", "yuv420p12le"),
        ("ffv1", "yuv444p10le"),
        ("ffv1", "gbrp10le"),
        ("ffv1", "yuva420p"),
        ("libx264", "yuv444p"),
        ("png", "rgba"),
    ],
)
def test_every_pixel_format_is_read(tmp_path: Path, codec: str, pixel_format: str) -> None:
    """Grey, more than 8 bits, full chroma, alpha, RGB: the frames carry their numbers."""
    clip = encode_clip(tmp_path / "a.nut", numbered_images(5), codec=codec, pixel_format=pixel_format)
    assert [number_in_image(frame.image) for frame in open_source(str(clip))] == list(range(5))
