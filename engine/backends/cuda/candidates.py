"""The candidates of a raw head, found on the GPU: the kernel's parameters, and its answer put in order on the host.

Of the (84, 8400) numbers that a detector gives for an image, a few dozen columns matter. The kernel keeps the anchors
whose best score is above a threshold, each with that score and its class in place of all scores; only these are copied
to the host. They come in any order and are sorted there, so that the result is that of the whole head.
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
"""`struct Candidates` of cuda_candidates.cu: three addresses first, so that it is aligned."""

SHARE = 8
"""Room for an eighth of the anchors: more is no scene with a sound threshold, and comes over as the whole head."""
LEAST = 64


@dataclass(frozen=True, slots=True)
class CandidateLayout:
    """What is kept of a head.

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
        """Candidates of an image at most."""
        return min(self.anchors, max(LEAST, self.anchors // SHARE))

    @property
    def width(self) -> int:
        """Numbers per candidate: its anchor, then its rows."""
        return 1 + self.scores.merged(self.rows)

    def words(self, images: int) -> int:
        """Return the 32-bit words of the counts and of the candidates of so many images."""
        return self.images + images * self.limit * self.width

    def grid(self, images: int) -> tuple[int, int, int]:
        """Return the launch grid."""
        return -(-self.anchors // BLOCK[0]), 1, images

    def parameters(self, head: int, kept: int, above: float) -> bytes:
        """Return the kernel's parameter.

        Args:
            head: address of the head on the GPU.
            kept: address of `words` 32-bit words, of which the first `images` are zero.
            above: a candidate's score is above this.
        """
        scores = self.scores
        return PARAMETERS.pack(
            *(head, kept, kept + 4 * self.images),
            *(self.rows, self.anchors, scores.first, scores.count, self.limit, above),
        )

    def ordered(self, words: NDArray[np.int32], images: int) -> NDArray[np.float32] | None:
        """Return the candidates of each image by anchor, (images, merged rows, most candidates), zeros behind the last.

        None where an image has more than fit.

        Args:
            words: as the kernel left them.
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
        """Return the same of a whole head, (images, rows, anchors), worked out on the host."""
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
