"""What a GPU backend offers beyond the protocol: it letterboxes frames and filters candidates on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import Pending
from engine.lazy_image import YuvPlanes

Pixels = NDArray[np.uint8] | YuvPlanes
"""What a device letterboxes: a (H, W, 3) BGR image, or the planes of a decoder."""


class Placement(Protocol):
    """Where an image is placed in the model's frame; `engine.detection.letterbox.Letterbox` implements it."""

    @property
    def source_wh(self) -> tuple[int, int]:
        """Size of the image."""

    @property
    def inner_wh(self) -> tuple[int, int]:
        """Size of the scaled image in the frame."""

    @property
    def pad_xy(self) -> tuple[int, int]:
        """Its top left corner in the frame."""


@runtime_checkable
class DeviceBackend(Protocol):
    """A backend that letterboxes on its device and copies back only the candidates."""

    def submit_images(self, images: Sequence[Pixels], placements: Sequence[Placement]) -> Pending:
        """Start an inference on uint8 images of any sizes, BGR or planes, letterboxed according to `placements`.

        The images are copied before it returns. The thread and the errors are those of `Backend.submit`.
        """

    def keep_above(self, score: float) -> None:
        """Skip anchors whose best score is not above `score`, from the next submission on.

        Without `BackendOptions.class_scores`, nothing is skipped.
        """
