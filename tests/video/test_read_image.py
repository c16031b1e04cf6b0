"""Images of every kind are read whole or not at all, whatever their names; one set of suffixes holds everywhere."""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from engine.sources.open import open_source
from engine.video.read_image import IMAGE_SUFFIXES, can_write, damage_of_jpeg, decode_image, read_image, write_image
from pipelines.models.detect_images import expand_images
from pipelines.scoring.labels import find_images
from tests.media import Recorder, encode_clip, numbered_images

KINDS = [
    kind for kind in ("jpg", "png", "bmp", "webp", "tif", "ppm", "jp2", "gif", "avif") if can_write(Path(f"a.{kind}"))
]


def corners(height: int = 96, width: int = 128) -> np.ndarray:
    """Return a grey image, red at the top left and green at the bottom right."""
    image = np.full((height, width, 3), 60, np.uint8)
    image[:32, :32], image[-32:, -32:] = (0, 0, 255), (0, 255, 0)
    return image


def is_like(image: np.ndarray, expected: np.ndarray) -> bool:
    """Allow for lossy kinds; the palette of a GIF is the coarsest."""
    return image.shape == expected.shape and float(np.abs(image.astype(int) - expected).mean()) < 40


@pytest.fixture
def heif() -> ModuleType:
    return pytest.importorskip("pillow_heif", reason='HEIC is read with pip install "framewire[heif]"')


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_as_it_was_written(tmp_path: Path, kind: str) -> None:
    write_image(tmp_path / f"a.{kind}", corners())
    assert is_like(read_image(tmp_path / f"a.{kind}"), corners())


TILED_AVIF = """
AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUEAAAHhbWV0YQAAAAAAAAAoaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAGxpYmF2aW
YAAAAADnBpdG0AAAAAAAEAAABWaWxvYwAAAABEAAAFAAEAAAABAAACCQAAAAgAAgAAAAEAAAIRAAAAMwADAAAAAQAAAkQAAAAdAAQAAAABAAAC
RAAAAB0ABQAAAAEAAAJhAAAAJwAAAJBpaW5mAAAAAAAFAAAAGmluZmUCAAAAAAEAAGdyaWRDb2xvcgAAAAAaaW5mZQIAAAEAAgAAYXYwMUNvbG
9yAAAAABppbmZlAgAAAQADAABhdjAxQ29sb3IAAAAAGmluZmUCAAABAAQAAGF2MDFDb2xvcgAAAAAaaW5mZQIAAAEABQAAYXYwMUNvbG9yAAAA
ACBpcmVmAAAAAAAAABRkaW1nAAEABAACAAMABAAFAAAAmWlwcnAAAABfaXBjbwAAABRpc3BlAAAAAAAAAIAAAACAAAAAEHBpeGkAAAAAAwgICA
AAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAAxhdjFDgSAAAAAAADJpcG1hAAAAAAAAAAUAAQMBAgMAAgQEAoUDAAME
BAKFAwAEBAQChQMABQQEAoUDAAAAh21kYXQAAAEBAIAAgBIACgk4FX/9hAQ0GkAyJBeACSSSRAC0g+tJwJJXcqMf3ysBW+3WCXgDXlxJwyWS49
QF8BIACgk4FX/9hAQ0GkAyDheACSSSRAC0g+vo71MkEgAKCTgVf/2EBDQaQDIYF4AJJJJEALSD6+jvUtb3EmSlYXowlXFg
"""
"""`corners(128, 128)` by libavif's `avifenc --grid 2x2`, as phones write large photos."""


def test_all_tiles_of_an_image_are_read() -> None:
    assert is_like(decode_image(np.frombuffer(base64.b64decode(TILED_AVIF), np.uint8)), corners(128, 128))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_an_image_that_is_cut_short_is_an_error(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    encoded = cv2.imencode(f".{kind}", noise)[1]
    with pytest.raises(ValueError, match=r"truncated|decode|damaged|claims more bytes"):
        decode_image(encoded[: int(len(encoded) * share)])


def test_a_jpeg_whose_last_bytes_are_missing_is_an_error_and_one_with_padding_is_not() -> None:
    encoded = cv2.imencode(".jpg", corners())[1]
    with pytest.raises(ValueError, match="the JPEG is truncated"):
        decode_image(encoded[:-2])
    assert is_like(decode_image(np.concatenate((encoded, np.zeros(300, np.uint8)))), corners())


def damaged(jpeg: bytes, seed: int = 0) -> bytes:
    """Return a JPEG with 600 bytes in its middle replaced, its beginning and its end as they were."""
    noise = np.random.default_rng(seed).integers(0, 255, 600, np.uint8).tobytes().replace(b"\xff", b"\xfe")
    middle = len(jpeg) // 2
    return jpeg[:middle] + noise + jpeg[middle + len(noise) :]


def busy() -> bytes:
    """Return a JPEG of some ten thousand bytes."""
    return cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize("seed", range(5))
def test_a_jpeg_that_is_damaged_in_its_middle_is_an_error(seed: int) -> None:
    with pytest.raises(ValueError, match="the JPEG is damaged"):
        decode_image(np.frombuffer(damaged(busy(), seed), np.uint8))


def test_a_jpeg_with_the_header_of_a_larger_one_is_an_error() -> None:
    forged = bytearray(busy())
    at = forged.find(b"\xff\xc0")
    forged[at + 5 : at + 9] = struct.pack(">HH", 960, 1280)
    with pytest.raises(ValueError, match="the JPEG is damaged"):
        decode_image(np.frombuffer(forged, np.uint8))


def test_what_ffmpeg_does_not_decode_is_left_to_opencv() -> None:
    arithmetic = busy().replace(b"\xff\xc0", b"\xff\xc9", 1)
    assert damage_of_jpeg(arithmetic) is None


@pytest.mark.parametrize(
    "options",
    [
        [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
        [cv2.IMWRITE_JPEG_RST_INTERVAL, 3],
        [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411],
        [cv2.IMWRITE_JPEG_QUALITY, 1],
    ],
)
@pytest.mark.parametrize(
    "after", [b"", b"\0" * 99, busy(), damaged(busy()), b"\0\0\0\x18ftypmp42" + b"\xff\xd8\xff\xda" * 9]
)
def test_a_whole_jpeg_is_read_whatever_follows_it(options: list[int], after: bytes) -> None:
    """Phones append a preview, a depth map or a short film to a photo."""
    encoded = cv2.imencode(".jpg", corners(), options)[1].tobytes()
    assert is_like(decode_image(np.frombuffer(encoded + after, np.uint8)), corners())


def test_the_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", corners())
    (tmp_path / "a.png").rename(tmp_path / "a.jfif")
    assert is_like(read_image(tmp_path / "a.jfif"), corners())


def test_heic_is_read_by_libheif(tmp_path: Path, heif: ModuleType) -> None:
    heif.from_bytes("BGR", (128, 96), corners().tobytes()).save(tmp_path / "a.heic", quality=90)
    assert is_like(read_image(tmp_path / "a.heic"), corners())
    assert [frame.image.shape for frame in open_source(tmp_path / "a.heic")] == [(96, 128, 3)]


def test_names_that_are_not_utf8_are_read_and_written(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9_1.png"))
    try:
        write_image(path, corners())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert is_like(read_image(path), corners())
    [frame] = open_source(path)
    assert is_like(frame.image, corners())
    assert open_source(path).info.uri.encode().endswith("caf\N{REPLACEMENT CHARACTER}_1.png".encode())


def test_a_video_whose_name_is_not_utf8_is_read(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    clip = encode_clip(tmp_path / "a.mp4", numbered_images(3))
    try:
        clip.rename(path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    source = open_source(path)
    assert len(list(source)) == 3
    source.info.uri.encode()


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_folders_are_read_with_one_set_of_suffixes_everywhere(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / "a.png", corners())
    path = (tmp_path / "a.png").rename(tmp_path / f"a{suffix}")
    (tmp_path / "notes.txt").write_text("no image")
    assert expand_images([tmp_path]) == find_images(tmp_path) == [path]
    assert len(list(open_source(tmp_path))) == 1


def test_a_folder_counts_what_is_damaged(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        write_image(tmp_path / name, corners())
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-200])
    (tmp_path / "d.jpg").write_bytes(damaged(busy()))
    source, recorder = open_source(tmp_path), Recorder()
    source.attach(recorder)
    assert [frame.frame_id for frame in source] == [0, 2]
    assert recorder.losses == {"corrupt": 2}


@pytest.mark.parametrize("harm", [lambda jpeg: jpeg[: len(jpeg) // 2], damaged])
def test_motion_jpeg_frames_that_are_cut_short_or_damaged_are_counted(
    tmp_path: Path, harm: Callable[[bytes], bytes]
) -> None:
    encoded = [cv2.imencode(".jpg", image)[1].tobytes() for image in numbered_images(6)]
    film = tmp_path / "a.mjpeg"
    film.write_bytes(b"".join(harm(data) if number % 2 else data for number, data in enumerate(encoded)))
    source, recorder = open_source(film), Recorder()
    source.attach(recorder)
    assert len(list(source)) == 3
    assert recorder.losses["corrupt"] == 3


UPRIGHT = {1: "", 2: "h", 3: "hv", 4: "v", 5: "t", 6: "tv", 7: "thv", 8: "th"}
"""What brings an upright picture into the form that an EXIF orientation stores: transpose, then mirror."""


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_jpeg_is_shown_upright_for_every_orientation(tmp_path: Path, orientation: int) -> None:
    stored = corners()
    for step in UPRIGHT[orientation]:
        stored = {"t": stored.transpose(1, 0, 2), "h": stored[:, ::-1], "v": stored[::-1]}[step]
    data = cv2.imencode(".jpg", np.ascontiguousarray(stored))[1].tobytes()
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    for image in (read_image(tmp_path / "a.jpg"), next(iter(open_source(tmp_path))).image):
        assert image.shape == corners().shape
        assert np.abs(image.astype(int) - corners()).mean() < 10  # 35 if it were mirrored
