"""Images in requests: raw or as a file in a form, with the header checked before any pixel is decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message

import numpy as np
from numpy.typing import NDArray

from engine.video.read_image import decode_image
from engine.video.sizes.image_header import image_size_wh
from engine.video.sizes.limits import FrameTooLargeError
from pipelines.serving.refusals import RefusedError

KINDS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}
EXPECTED = "expected a JPEG, PNG or WebP image, as the body or as a file of a form"
MAX_BOUNDARY = 70
MAX_PARTS = 32
MAX_PART_HEAD = 4096


@dataclass(frozen=True, slots=True)
class Upload:
    """An encoded image whose header was checked.

    Attributes:
        data: the file.
        pixels: width times height, as the header claims.
    """

    data: memoryview
    pixels: int


def image_in(body: bytes, headers: Mapping[str, str], max_pixels: int) -> Upload:
    """Return the image of a request.

    Args:
        body: of the request.
        headers: of the request, by lower-case name.
        max_pixels: largest width times height.

    Raises:
        RefusedError: not an image, an unsupported format, or too many pixels; the status says which.
    """
    data = memoryview(body)
    kind, boundary = _content_type(headers.get("content-type", ""))
    if kind == "multipart/form-data":
        data = _file_in_form(body, boundary)
    if not _is_known(data):
        raise RefusedError(f"{len(data)} bytes that are not such an image: {EXPECTED}", 415 if len(data) else 400)
    size_wh = image_size_wh(data)
    if size_wh is None or min(size_wh) < 1:
        raise RefusedError(f"the header of the image is damaged: {EXPECTED}")
    if size_wh[0] * size_wh[1] > max_pixels:
        raise RefusedError(
            f"the image is {size_wh[0]}x{size_wh[1]}: at most {max_pixels / 1e6:g} million pixels are accepted", 413
        )
    return Upload(data, size_wh[0] * size_wh[1])


def pixels_of(upload: Upload, max_pixels: int) -> NDArray[np.uint8]:
    """Return the pixels of a checked image, (H, W, 3) BGR, upright. Raises `RefusedError` for a damaged one."""
    try:
        return decode_image(np.frombuffer(upload.data, np.uint8), max_pixels)
    except FrameTooLargeError as error:
        raise RefusedError(str(error), 413) from error
    except ValueError as error:
        raise RefusedError(f"the image cannot be decoded: {error}") from error


def _is_known(data: memoryview) -> bool:
    head = bytes(data[:16])
    return head.startswith(tuple(KINDS)) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _content_type(text: str) -> tuple[str, bytes]:
    """Return the media type and the boundary of a form."""
    header = Message()
    header["content-type"] = text[:1000].replace("\r", "").replace("\n", "")
    boundary = str(header.get_param("boundary", "") or "")
    return header.get_content_type() if text else "", boundary.encode("latin-1", "replace")


def _file_in_form(body: bytes, boundary: bytes) -> memoryview:
    """Return the content of the first part that has a file name, or of the only part.

    Raises:
        RefusedError: it is not a form, or has no file.
    """
    if not 0 < len(boundary) <= MAX_BOUNDARY:
        raise RefusedError("the form has no boundary: let your HTTP client make the Content-Type")
    parts = _parts(body, b"--" + boundary)
    for head, part in parts:
        if b"filename" in head.lower():
            return part
    if len(parts) == 1:
        return parts[0][1]
    raise RefusedError(f"the form has {len(parts)} parts and no file: {EXPECTED}")


def _parts(body: bytes, mark: bytes) -> list[tuple[bytes, memoryview]]:
    """Return head and content of the parts of a form; looks at each byte once and copies none."""
    view, found = memoryview(body), list[tuple[bytes, memoryview]]()
    at = body.find(mark)
    while at >= 0 and len(found) < MAX_PARTS:
        begin = at + len(mark)
        if body[begin : begin + 2] == b"--":
            return found
        end = body.find(b"\r\n" + mark, begin)
        head_end = body.find(b"\r\n\r\n", begin, begin + MAX_PART_HEAD)
        if end < 0 or not 0 <= head_end <= end:
            raise RefusedError("the form is cut off: send it again")
        found.append((body[begin:head_end], view[head_end + 4 : end]))
        at = end + 2
    return found
