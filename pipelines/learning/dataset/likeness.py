"""How alike two images look: perceptual hashes of 64 bits, and small grey copies that show what moved.

The hash is that of the whole scene (the signs of low frequencies of a cosine transform). A fixed camera always sees the
same scene, so its images are near-duplicates only if nothing in them has moved either.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

ALIKE = 6
"""Maximum number of bits in which two images of one scene differ, after recompression or a small shift."""
NEW = 20
"""Number of differing bits from which an image counts as new; unrelated images differ in 32 on average."""
MOVED = 40
"""Difference of a cell of two grey copies, whose deviation is 48, from which something has moved. Another compression
changes a cell by 3, a shift by two pixels by 20, in the dark by 33; a person far away half a second later by 100."""
_SIDE, _KEPT = 32, 8
_DEVIATION, _MIDDLE = 48.0, 128


class Look(NamedTuple):
    """What is remembered of an image to compare it with others.

    Attributes:
        bits: perceptual hash.
        cells: grey copy of 32 x 32 cells of one byte, with the same mean and deviation for all images; empty if
            unknown.
    """

    bits: int
    cells: bytes = b""

    def text(self) -> str:
        """Return the cells as text."""
        return base64.b64encode(self.cells).decode()


UNKNOWN = Look(0)


def look_of(image: NDArray[np.uint8]) -> Look:
    """Return what is remembered of a BGR image (H, W, 3)."""
    grey = _small(image)
    spread = max(float(grey.std()), 1.0)
    cells = (grey - grey.mean()) * (_DEVIATION / spread) + _MIDDLE
    return Look(fingerprint(image), cells.round().clip(0, 255).astype(np.uint8).tobytes())


def cells_from(text: object) -> bytes:
    """Return the cells that `Look.text` wrote, empty if the text is something else."""
    try:
        cells = base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError):
        return b""
    return cells if len(cells) == _SIDE * _SIDE else b""


def is_known(one: Look, others: Iterable[Look]) -> bool:
    """Return whether an image is a near-duplicate of any other: the same scene, in which nothing has moved."""
    near = [other.cells for other in others if distance(one.bits, other.bits) <= ALIKE]
    return bool((~_moved(one.cells, near)).any())


def _moved(cells: bytes, others: Sequence[bytes]) -> NDArray[np.bool_]:
    """Return for each other image whether something has moved; never where cells are unknown."""
    known = np.array([bool(cells) and bool(other) for other in others], bool)
    found = np.zeros(len(others), bool)
    if known.any():
        joined = b"".join(other for other, kept in zip(others, known.tolist(), strict=True) if kept)
        theirs, mine = np.frombuffer(joined, np.uint8).reshape(-1, _SIDE * _SIDE), np.frombuffer(cells, np.uint8)
        found[known] = (np.maximum(theirs, mine) - np.minimum(theirs, mine)).max(axis=1) >= MOVED
    return found


def fingerprint(image: NDArray[np.uint8]) -> int:
    """Return the hash of a BGR image (H, W, 3)."""
    low = cv2.dct(_small(image))[:_KEPT, :_KEPT].ravel()
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _small(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return np.asarray(cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.float32)


def distance(a: int, b: int) -> int:
    """Return the number of bits in which two hashes differ.

    >>> distance(0b1011, 0b0001)
    2
    """
    return (a ^ b).bit_count()


def nearest(one: Look, others: Iterable[Look]) -> int:
    """Return the smallest distance of this hash to any of the others, 64 if there are none."""
    return min((distance(one.bits, other.bits) for other in others), default=64)


def clusters(looks: Sequence[Look]) -> list[int]:
    """Return a cluster number for each image; near-duplicates, also through others, share one.

    >>> clusters([Look(0), Look(1), Look(2**40 - 1), Look(3)])
    [0, 0, 2, 0]
    """
    values = np.array([one.bits for one in looks], np.uint64)
    label = list(range(len(looks)))

    def root(at: int) -> int:
        while label[at] != at:
            label[at] = label[label[at]]
            at = label[at]
        return at

    for at in range(len(values) - 1):
        differ = np.unpackbits((values[at + 1 :] ^ values[at]).view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)
        near = np.flatnonzero(differ <= ALIKE) + at + 1
        moved = _moved(looks[at].cells, [looks[other].cells for other in near.tolist()])
        for other in near[~moved].tolist():
            first, second = sorted((root(at), root(other)))
            label[second] = first
    return [root(at) for at in range(len(label))]
