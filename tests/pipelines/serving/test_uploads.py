from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.serving.refusals import RefusedError
from pipelines.serving.uploads import image_in, pixels_of
from tests.serving import encoded

ANY = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MAX = 1_000_000


def _form(content: bytes, *, boundary: str = "xyz", head: str = 'name="image"; filename="a.jpg"') -> bytes:
    before = f'--{boundary}\r\nContent-Disposition: form-data; name="model"\r\n\r\ndemo\r\n'
    mark = f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\nContent-Type: image/jpeg\r\n\r\n"
    return before.encode() + mark.encode() + content + f"\r\n--{boundary}--\r\n".encode()


@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp"])
def test_an_image_arrives_raw_or_in_a_form(kind: str) -> None:
    data = encoded(kind)
    raw = pixels_of(image_in(data, {}, MAX), MAX)
    form = image_in(_form(data), {"content-type": 'multipart/form-data; boundary="xyz"'}, MAX)
    assert raw.shape == (48, 64, 3)
    assert bytes(form.data) == data
    assert form.pixels == 64 * 48
    assert np.array_equal(pixels_of(form, MAX), raw)


def test_an_image_is_made_upright_as_files_are() -> None:
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    data = encoded()
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    assert pixels_of(image_in(data, {}, MAX), MAX).shape == (64, 48, 3)


@pytest.mark.parametrize("kind", [".bmp", ".tiff"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(RefusedError, match="expected a JPEG, PNG or WebP") as refused:
        image_in(encoded(kind), {}, MAX)
    assert refused.value.status == 415


def test_nothing_is_refused() -> None:
    with pytest.raises(RefusedError, match="0 bytes") as refused:
        image_in(b"", {}, MAX)
    assert refused.value.status == 400


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    huge = bytearray(encoded(".png"))
    huge[16:24] = struct.pack(">II", 60_000, 60_000)
    with pytest.raises(RefusedError, match="60000x60000") as refused:
        image_in(bytes(huge), {}, MAX)
    assert refused.value.status == 413


@pytest.mark.parametrize("cut", [12, 100, -10])
def test_a_cut_image_is_refused(cut: int) -> None:
    with pytest.raises(RefusedError, match=r"cut|truncated|damaged|decoded"):
        pixels_of(image_in(encoded()[:cut], {}, MAX), MAX)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", _form(b"")),
        ("multipart/form-data; boundary=xyz", b"--xyz\r\nno end"),
        ("multipart/form-data; boundary=other", _form(encoded())),
        ("multipart/form-data; boundary=xyz", _form(encoded(), head='name="image"')),
        (f"multipart/form-data; boundary={'x' * 300}", _form(encoded())),
    ],
)
def test_a_form_without_its_file_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(RefusedError):
        image_in(body, {"content-type": content_type}, MAX)


@ANY
@given(body=st.binary(max_size=400), content_type=st.text(max_size=60))
def test_anything_is_refused_or_an_image(body: bytes, content_type: str) -> None:
    for text in (content_type, "multipart/form-data; boundary=" + content_type):
        for prefix in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF1234WEBP", b"--x\r\n"):
            try:
                pixels_of(image_in(prefix + body, {"content-type": text}, MAX), MAX)
            except RefusedError:
                continue
