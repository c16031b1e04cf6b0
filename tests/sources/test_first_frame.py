"""The size of a file's frames, before the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.sources.base import SourceBase
from engine.sources.open import open_source
from tests.media import encode_clip, file_server, numbered_images, rotate_mp4


def size_wh(path: Path, **options: object) -> tuple[int, int] | None:
    source = open_source(path, **options)
    assert isinstance(source, SourceBase)
    return source.frame_wh()


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        pytest.param((1, 0, 0, 1), (320, 240), id="upright"),
        pytest.param((0, 1, -1, 0), (240, 320), id="a quarter clockwise"),
        pytest.param((-1, 0, 0, -1), (320, 240), id="upside down"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"realtime": True}])
def test_the_size_is_that_of_the_frames_that_the_source_yields(
    tmp_path: Path, matrix: tuple[int, int, int, int], expected: tuple[int, int], options: dict[str, object]
) -> None:
    clip = encode_clip(tmp_path / "a.mp4", numbered_images(3))
    rotate_mp4(clip, matrix)
    assert size_wh(clip, **options) == expected
    frame = next(iter(open_source(clip)))
    assert (frame.width, frame.height) == expected


@pytest.mark.parametrize(
    "content",
    [pytest.param(b"not a video" * 100, id="text"), pytest.param(None, id="cut off"), pytest.param(b"", id="emptied")],
)
def test_a_file_that_cannot_be_read_has_no_size_and_raises_nothing(tmp_path: Path, content: bytes | None) -> None:
    clip = encode_clip(tmp_path / "a.mp4", numbered_images(3))
    source = open_source(clip)
    clip.write_bytes(clip.read_bytes()[:600] if content is None else content)
    assert isinstance(source, SourceBase)
    assert source.frame_wh() is None


def test_a_frame_larger_than_max_pixels_is_not_decoded(tmp_path: Path) -> None:
    clip = encode_clip(tmp_path / "a.mp4", numbered_images(3))
    assert size_wh(clip, max_pixels=10_000) is None


def test_a_playlist_is_followed_to_files_only(tmp_path: Path) -> None:
    encode_clip(tmp_path / "a.ts", numbered_images(3))
    playlist = tmp_path / "a.m3u8"
    with file_server(tmp_path) as url:
        for segment, expected in (("a.ts", (320, 240)), (f"{url}/a.ts", None)):
            playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{segment}\n#EXT-X-ENDLIST\n")
            assert size_wh(playlist) == expected
