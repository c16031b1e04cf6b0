"""How alike two pictures look: perceptual hashes (the signs of low frequencies of a cosine transform), 64 bits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

ALIKE = 6
"""Bits in which two pictures of one scene differ at most, after another compression or a small shift."""
NEW = 20
"""Bits from which a picture counts as new; unrelated ones differ in 32 on average."""
_SIDE, _KEPT = 32, 8


def fingerprint(image: NDArray[np.uint8]) -> int:
    """Return the hash of a BGR image (H, W, 3)."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:_KEPT, :_KEPT].ravel()
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def distance(a: int, b: int) -> int:
    """Return the number of bits in which two hashes differ.

    >>> distance(0b1011, 0b0001)
    2
    """
    return (a ^ b).bit_count()


def nearest(one: int, others: Iterable[int]) -> int:
    """Return the smallest distance to any of the others, 64 if there are none."""
    return min((distance(one, other) for other in others), default=64)


def clusters(hashes: Sequence[int], within: int = ALIKE) -> list[int]:
    """Return a cluster number for each hash; hashes that are alike, also through others, share one.

    >>> clusters([0, 1, 2**40 - 1, 3], within=1)
    [0, 0, 2, 0]
    """
    values = np.array(hashes, np.uint64)
    label = list(range(len(hashes)))

    def root(at: int) -> int:
        while label[at] != at:
            label[at] = label[label[at]]
            at = label[at]
        return at

    for at in range(len(values) - 1):
        differ = np.unpackbits((values[at + 1 :] ^ values[at]).view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)
        for other in np.flatnonzero(differ <= within).tolist():
            first, second = sorted((root(at), root(at + 1 + other)))
            label[second] = first
    return [root(at) for at in range(len(label))]
