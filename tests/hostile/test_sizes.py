"""Sizes without limits: images and streams that claim more pixels than any camera has."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import zlib
from pathlib import Path
from struct import pack

import av
import pytest

from engine.errors import SourceError
from engine.sources.open import open_source
from engine.video.read_image import read_image
from engine.video.sizes.limits import FrameTooLargeError
from tests.hostile.servers import claiming, hostile_camera, jpeg, send_jpegs
from tests.media import Recorder


def peak_mb(code: str) -> float:
    """Return the peak memory of a Python process that runs `code`, in MB, beyond that of one that only imports."""
    program = textwrap.dedent(code) + "\nfrom engine.process import peak_memory_mb; print(peak_memory_mb())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    return float(done.stdout.split()[-1])


def png_claiming(width: int, height: int) -> bytes:
    """Return a PNG bomb: black rows that compress to almost nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return pack(">I", len(body)) + kind + body + pack(">I", zlib.crc32(kind + body))

    rows = zlib.compress(bytes(1 + width * 3) * min(height, 50), 9)
    head = pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param("bomb.jpg", claiming(30000, 30000), id="jpeg"),
        pytest.param("bomb.png", png_claiming(30000, 30000), id="png"),
        pytest.param("bomb.ppm", b"P6\n30000 30000\n255\n" + bytes(100), id="ppm"),
        pytest.param("bomb.png", claiming(30000, 30000), id="jpeg named png"),
    ],
)
def test_an_image_that_claims_too_many_pixels_takes_no_memory(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FrameTooLargeError, match="30000x30000"):
        read_image(tmp_path / name)
    with_limit = f"""
        import cv2, engine.sources.images
        from engine.errors import SourceError
        from engine.sources.open import open_source
        from pathlib import Path
        source = open_source({str(tmp_path / name)!r})
        print(list(source))
    """
    assert peak_mb(with_limit) < peak_mb("import cv2, engine.sources.images, engine.sources.open") + 30


@pytest.mark.parametrize("kind", [b"IDAT", b"tEXt", b"eXIf"])
def test_a_png_whose_chunk_claims_a_gigabyte_takes_no_memory(kind: bytes, tmp_path: Path) -> None:
    """Found by tools/attack.py: OpenCV took 2.4 GB and 6 s for a damaged length."""
    good = png_claiming(64, 48)
    at = good.find(b"IDAT") - 4
    (tmp_path / "bomb.png").write_bytes(good[:at] + pack(">I", 0x48950020) + kind + good[at + 8 :])
    with pytest.raises(ValueError, match="claims more bytes"):
        read_image(tmp_path / "bomb.png")


def test_a_limit_of_the_user_holds_for_images_files_and_cameras(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(64, 48))
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            output.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        output.mux(stream.encode(None))
    small = {"max_pixels": 64 * 48 - 1}
    heard = Recorder()
    images = open_source(tmp_path / "a.jpg", **small)
    images.attach(heard)
    assert (list(images), heard.losses["corrupt"]) == ([], 1)
    with pytest.raises(SourceError):
        list(open_source(tmp_path / "a.mp4", **small))
    with hostile_camera(send_jpegs(lambda: jpeg(64, 48), fps=100)) as camera:
        for reader in ("process", "thread"):
            with pytest.raises(SourceError, match="64x48.*raise max_pixels"):
                list(open_source(camera.url(), reader=reader, reconnect=False, **small))
    assert len(list(open_source(tmp_path / "a.mp4", max_pixels=64 * 48))) == 5


@pytest.mark.parametrize("size_wh", [(16000, 16000), (65500, 4000), (65500, 65500)])
def test_a_camera_of_huge_jpegs_is_refused_with_its_size(size_wh: tuple[int, int]) -> None:
    """Only the header is huge: a decoder that believes it allocates at once."""
    with hostile_camera(send_jpegs(lambda: claiming(*size_wh), fps=100)) as camera:
        with pytest.raises(SourceError, match=f"{size_wh[0]}x{size_wh[1]}.*raise max_pixels"):
            list(open_source(camera.url(), reconnect=False))
