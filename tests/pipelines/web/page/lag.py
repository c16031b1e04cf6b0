"""How old the video on the screen is, read from the clock that the camera paints into its pictures."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.freshness.pixel_clock import moment_us

WIDE, HIGH = 320, 180
LOOK = f"""
() => {{
  const video = document.querySelector(".tile video"), canvas = new OffscreenCanvas({WIDE}, {HIGH});
  const context = canvas.getContext("2d"), ranges = video.buffered;
  const ahead = ranges.length ? ranges.end(ranges.length - 1) - video.currentTime : 0;
  context.drawImage(video, 0, 0, {WIDE}, {HIGH});
  const at = Date.now();
  let text = "";
  for (const byte of context.getImageData(0, 0, {WIDE}, {HIGH}).data) text += String.fromCharCode(byte);
  return [at, ahead, video.playbackRate, btoa(text)];
}}
"""


@dataclass(frozen=True)
class Lag:
    """What the screen showed at one moment.

    Attributes:
        age_s: of the picture.
        ahead_s: video that had arrived and was not shown yet: the part of the age that is the player's.
        rate: how fast it was played.
    """

    age_s: float
    ahead_s: float
    rate: float


def lag_of(page: Any) -> Lag | None:
    """Return the age of the picture on the screen; None if its clock is not readable."""
    at_ms, ahead_s, rate, pixels = page.evaluate(LOOK)
    shown = moment_us(np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(HIGH, WIDE, 4)[:, :, :3])
    if shown is None:
        return None
    at_s = at_ms / 1000 - (time.time() - time.monotonic())
    return Lag(at_s - shown / 1e6, ahead_s, rate)
