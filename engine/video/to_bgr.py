"""Conversion of decoded frames to BGR. Imports no numpy: the reader process uses it too."""

from __future__ import annotations

import threading
from typing import Any

from engine.video.orientation import orientation_of


class BgrConverter:
    """Converts decoded frames of any pixel format; keep one per stream, because it reuses FFmpeg's scaler.

    Attributes:
        lock: for users that convert on several threads; nothing here takes it.

    On one thread the scaler takes half as long as `cv2.cvtColor` (0.2 against 0.35 ms at 768 x 576, 0.8 against 1.8 ms
    at 1920 x 1080), supports every format and colour space, and interpolates colour.
    """

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()
        self.lock = threading.Lock()
        self._single: dict[str, Any] = {"threads": 1}
        self._rotation: float | None = None
        self._orientation = 0

    def orientation(self, frame: Any) -> int:
        """Return how a frame is turned and mirrored (`engine.video.orientation`).

        The side data is read only when the rotation has changed: reading it makes PyAV create a reference cycle, which
        keeps the frame's pixels alive until the next garbage collection (240 MB at 720p instead of 21).
        """
        if frame.rotation != self._rotation:
            self._rotation, self._orientation = frame.rotation, orientation_of(frame)
        return self._orientation

    def packed(self, frame: Any) -> Any:
        """Return the frame as an `av.VideoFrame` of format bgr24; rows may be padded."""
        try:
            return self._reformatter.reformat(frame, format="bgr24", **self._single)
        except TypeError:  # an older PyAV has no such argument and always converts on one thread
            self._single = {}
            return self._reformatter.reformat(frame, format="bgr24")
