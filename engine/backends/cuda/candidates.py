"""Candidates of a raw head, found on the GPU: the kernel's parameters, and sorting its results on the host.

Of the (84, 8400) numbers that a detector returns per image, a few dozen columns matter. The kernel keeps the anchors
whose best score is above a threshold, replaces their scores by the best one and its class, and copies only these to
the host. They arrive in any order; sorting them makes the result equal to that of the whole head.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import ClassScores

KERNEL_NAME = "candidates"
BLOCK = (128, 1, 1)
PARAMETERS = struct.Struct("PPP5if")
"""`struct Candidates` of candidates.cu. The three addresses come first, which aligns it."""

SHARE = 8
"""Room for an eighth of the anchors. No real scene exceeds this at a reasonable threshold; if one does, the whole head
is copied."""
LEAST = 64


@dataclass(frozen=True, slots=True)
class CandidateLayout:
    """What the kernel keeps of a head.

    Attributes:
        scores: which rows are scores.
        rows: of the head.
        anchors: of the head.
        images: of the largest batch.
    """

    scores: ClassScores
    rows: int
    anchors: int
    images: int

    @property
    def limit(self) -> int:
        """Maximum number of candidates per image."""
        return min(self.anchors, max(LEAST, self.anchors // SHARE))

    @property
    def width(self) -> int:
        """Numbers per candidate: its anchor, then its rows."""
        return 1 + self.scores.merged(self.rows)

    def words(self, images: int) -> int:
        """Return the number of 32-bit words that hold the counts and candidates of a number of images."""
        return self.images + images * self.limit * self.width

    def grid(self, images: int) -> tuple[int, int, int]:
        """Return the launch grid."""
        return -(-self.anchors // BLOCK[0]), 1, images

    def parameters(self, head: int, kept: int, above: float) -> bytes:
        """Return the kernel's parameter.

        Args:
            head: address of the head on the GPU.
            kept: address of `words` 32-bit words; the first `images` of them must be zero.
            above: score that a candidate must exceed.
        """
        scores = self.scores
        return PARAMETERS.pack(
            *(head, kept, kept + 4 * self.images),
            *(self.rows, self.anchors, scores.first, scores.count, self.limit, above),
        )

    def ordered(self, words: NDArray[np.int32], images: int) -> NDArray[np.float32] | None:
        """Return each image's candidates, sorted by anchor: (images, merged rows, most candidates), padded with zeros.

        Returns None if an image has more than fit.

        Args:
            words: as the kernel wrote them.
            images: of the batch.
        """
        counts = words[:images]
        if (counts > self.limit).any():
            return None
        kept = words[self.images : self.words(images)].view(np.float32).reshape(images, self.limit, self.width)
        columns = []
        for found, count in zip(kept, counts.tolist(), strict=True):
            order = np.argsort(found[:count, 0])
            columns.append(found[order, 1:].T)
        return _padded(columns, self.width - 1)

    def merged(self, head: NDArray[Any], above: float) -> NDArray[np.float32]:
        """Return the same for a whole head, (images, rows, anchors), computed on the host."""
        first, end = self.scores.first, self.scores.first + self.scores.count
        columns = []
        for image in head:
            best = image[first:end].max(axis=0)
            with np.errstate(invalid="ignore"):
                found = image[:, np.flatnonzero(best > np.float32(above))]
            scores = found[first:end]
            pair = np.stack((scores.max(axis=0), scores.argmax(axis=0).astype(np.float32)))
            columns.append(np.concatenate((found[:first], pair, found[end:])))
        return _padded(columns, self.width - 1)


def _padded(columns: Sequence[NDArray[np.float32]], rows: int) -> NDArray[np.float32]:
    """Return (images, rows, most columns); a score of zero is above no threshold."""
    padded = np.zeros((len(columns), rows, max((found.shape[1] for found in columns), default=0)), np.float32)
    for image, found in zip(padded, columns, strict=True):
        image[:, : found.shape[1]] = found
    return padded
