"""Shows frames in windows on this machine's display."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data import Packet, Run, SourceStatus
from engine.errors import SinkError
from engine.imaging.grid import Grid
from engine.imaging.square import displayed
from engine.optional import require
from engine.protocols import SinkBase

QUIT_KEYS = frozenset((ord("q"), ord("Q"), 27))
MAX_WINDOW_WH = (1600, 900)
PROBE = "import cv2; cv2.namedWindow('framewire'); cv2.destroyAllWindows()"
PROBE_S = 15


class Window(SinkBase):
    """Shows each source in its own window, side by side; `q`, Escape or closing a window asks the run to end.

    Args:
        draw: draws the image to show from a packet (the overlay); None: the frame itself.
        on_quit: called once when the user asks to end.
        title: first part of the windows' titles.
        grid: shows all sources in one window; None: each in its own.
    """

    name = "window"
    blocking = True

    def __init__(
        self,
        draw: Callable[[Packet], NDArray[np.uint8]] | None = None,
        *,
        on_quit: Callable[[], None] | None = None,
        title: str = "framewire",
        grid: Grid | None = None,
    ) -> None:
        self._grid = grid
        self._draw = draw
        self._on_quit = on_quit
        self._title = title
        self._cv2: Any = None
        self._shown: dict[str, tuple[int, int]] = {}
        self._quit = False

    def open(self, run: Run) -> None:
        """Check that there is a display; the windows open with the first frames.

        Raises:
            SinkError: there is no display, or OpenCV was built without windows.
        """
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise SinkError(
                "cannot show a window: there is no display (DISPLAY and WAYLAND_DISPLAY are unset):"
                " run in a desktop session, or save a video with --save OUT.mp4"
            )
        if (reason := _refusal()) is not None:
            raise SinkError(f"cannot show a window: {reason}: check the display, or save a video with --save OUT.mp4")
        self._cv2 = require("cv2")

    def write(self, packet: Packet) -> None:
        """Show one packet.

        Raises:
            SinkError: the display fails.
        """
        if self._quit:
            return
        cv2, title = self._cv2, self._title if self._grid is not None else f"{self._title} {packet.frame.source_id}"
        image = packet.frame.image if self._draw is None else self._draw(packet)
        image = displayed(image, packet.frame.pixel_aspect)
        if self._grid is not None:
            self._grid.put(packet.frame.source_id, image)
            image = self._grid.picture()
        try:
            if title in self._shown and cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1:
                self._ask_to_quit()
                return
            if title not in self._shown:
                self._open_window(title, image.shape[1], image.shape[0])
            cv2.imshow(title, image)
            if cv2.waitKey(1) & 0xFF in QUIT_KEYS:
                self._ask_to_quit()
        except cv2.error as error:
            raise SinkError(f"cannot show a window: {error}: save a video with --save OUT.mp4 instead") from error

    def status(self, status: SourceStatus) -> None:
        """Mark the image of a source in a grid as lost."""
        if self._grid is not None and status.state not in ("live", "ended"):
            self._grid.note(status.source_id, status.state)

    def close(self) -> None:
        """Close the windows."""
        if self._cv2 is not None and self._shown:
            self._cv2.destroyAllWindows()
            self._shown.clear()

    def _open_window(self, title: str, width: int, height: int) -> None:
        self._cv2.namedWindow(title, self._cv2.WINDOW_NORMAL | self._cv2.WINDOW_KEEPRATIO)
        self._shown[title] = (width, height)
        for (shown, size_wh), (left, top, tile_wh) in zip(self._shown.items(), tiles(len(self._shown)), strict=False):
            scale = min(1.0, tile_wh[0] / size_wh[0], tile_wh[1] / size_wh[1])
            self._cv2.resizeWindow(shown, max(1, int(size_wh[0] * scale)), max(1, int(size_wh[1] * scale)))
            if len(self._shown) > 1:  # a single window stays where the desktop puts it
                self._cv2.moveWindow(shown, left, top)

    def _ask_to_quit(self) -> None:
        self._quit = True
        if self._on_quit is not None:
            self._on_quit()


def tiles(count: int) -> list[tuple[int, int, tuple[int, int]]]:
    """Return left, top and size of at least `count` places for windows, row by row, that do not overlap.

    >>> tiles(1), tiles(3)[2]
    ([(0, 0, (1600, 900))], (0, 450, (800, 450)))
    """
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    width, height = MAX_WINDOW_WH[0] // columns, MAX_WINDOW_WH[1] // rows
    return [(column * width, row * height, (width, height)) for row in range(rows) for column in range(columns)]


def _refusal() -> str | None:
    """Return why no window can open here, or None; tried in another process, because Qt would abort this one."""
    command = [sys.executable, "-c", PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S, check=False)
    except subprocess.TimeoutExpired:
        return f"the display did not answer in {PROBE_S} s"
    said = [line.strip() for line in done.stderr.splitlines() if line.strip() and "font" not in line.lower()]
    return None if done.returncode == 0 else (said[0] if said else f"the display ended with {done.returncode}")
