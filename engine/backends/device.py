"""What a backend offers beyond the protocol where pictures and heads lie on a device of its own, a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import Pending


class Placement(Protocol):
    """Where an image lands in the model's frame; `engine.detection.letterbox.Letterbox` is one."""

    @property
    def source_wh(self) -> tuple[int, int]:
        """Size of the image."""

    @property
    def inner_wh(self) -> tuple[int, int]:
        """Size of the scaled image in the frame."""

    @property
    def pad_xy(self) -> tuple[int, int]:
        """Its left top corner there."""


@runtime_checkable
class DeviceBackend(Protocol):
    """A backend that letterboxes on its device, and leaves there what is no candidate."""

    def submit_images(self, images: Sequence[NDArray[np.uint8]], placements: Sequence[Placement]) -> Pending:
        """Start an inference on uint8 BGR images of any size each, letterboxed as `placements` say.

        The images are copied before it returns. Thread and errors as `Backend.submit`.
        """

    def keep_above(self, score: float) -> None:
        """From the next submission on, leave out anchors whose best score is not above `score`.

        Nothing is left out where `BackendOptions.class_scores` is None.
        """
