"""What the page shows: whether boxes belong to the frame under them, and how old the video is.

Frames of a synthetic camera show their number; a camera with a pixel clock paints the time into its images.
"""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.boxes import iou_matrix
from engine.sources.synthetic import SyntheticSource, scene_from_uri
from tests.freshness.pixel_clock import moment_us

SAME = 0.95
# In one animation frame: the number in the image that is shown, the boxes over it, and where the image lies.
SAMPLE = """
(name) => new Promise((done) => requestAnimationFrame(() => {
  const tile = document.querySelector(`.tile[data-source="${name}"]`), overlay = tile.querySelector(".overlay");
  const shown = tile.querySelector(".picture"), wide = shown.width, high = shown.height;
  const canvas = new OffscreenCanvas(wide, high), context = canvas.getContext("2d");
  context.drawImage(shown, 0, 0);
  const cell = (4 * wide) / 640, row = context.getImageData(0, Math.floor(cell / 2), Math.ceil(32 * cell), 1).data;
  let number = 0;
  for (let bit = 0; bit < 32; bit += 1) if (row[4 * Math.floor((bit + 0.5) * cell)] > 127) number += 2 ** bit;
  const scale = Math.min(overlay.width / wide, overlay.height / high);
  const x = (overlay.width - wide * scale) / 2, y = (overlay.height - high * scale) / 2, unit = (scale * wide) / 640;
  const inFrame = ([a, b, w, h]) => [(a - x) / unit, (b - y) / unit, (a - x + w) / unit, (b - y + h) / unit];
  const boxes = (overlay.drawn || []).map(inFrame);
  done({ number, boxes, isVideo: Boolean(tile.dataset.video), isDashed: overlay.dataset.frame === "" });
}))
"""
WIDE, HIGH = 320, 180
LOOK = f"""
() => {{
  const video = document.querySelector(".tile video"), canvas = new OffscreenCanvas({WIDE}, {HIGH});
  const context = canvas.getContext("2d"), ranges = video.buffered;
  const ahead = ranges.length ? ranges.end(ranges.length - 1) - video.currentTime : 0;
  context.drawImage(document.querySelector(".tile .picture"), 0, 0, {WIDE}, {HIGH});
  const at = Date.now();
  let text = "";
  for (const byte of context.getImageData(0, 0, {WIDE}, {HIGH}).data) text += String.fromCharCode(byte);
  return [at, ahead, video.playbackRate, btoa(text)];
}}
"""


@dataclass(frozen=True)
class Sample:
    """What was on the screen at one moment.

    Attributes:
        number: of the frame.
        is_video: whether it was the camera's own video.
        is_dashed: the boxes were marked as those of an earlier frame.
        overlap: the least IoU of a true box with one that was drawn.
        drawn_of: the frame near this one that the drawn boxes fit best.
    """

    number: int
    is_video: bool
    is_dashed: bool
    overlap: float
    drawn_of: int

    @property
    def is_right(self) -> bool:
        """Whether every box is where its object is."""
        return self.overlap >= SAME


def samples(page: Any, name: str, uri: str, count: int) -> list[Sample]:
    """Look at a tile this many times, at moments unrelated to its frames."""
    truth = SyntheticSource(scene_from_uri(uri))
    found: list[Sample] = []
    for number in range(count):
        page.wait_for_timeout(60 + 37 * (number % 3))
        found.append(_judged(truth, page.evaluate(SAMPLE, name)))
    return found


def share_right(seen: list[Sample]) -> float:
    """Return the share of samples whose boxes are right."""
    return sum(each.is_right for each in seen) / len(seen)


def _judged(truth: SyntheticSource, found: dict[str, Any]) -> Sample:
    number, drawn = found["number"], np.array(found["boxes"], np.float32).reshape(-1, 4)

    def overlap(frame: int) -> float:
        boxes = truth.truth(frame).xyxy
        return round(float(iou_matrix(boxes, drawn).max(axis=1, initial=0.0).min()), 3)

    near = max(range(max(number - 5, 0), number + 6), key=overlap)
    return Sample(number, found["isVideo"], found["isDashed"], overlap(number), near)


@dataclass(frozen=True)
class Lag:
    """What the screen showed at one moment.

    Attributes:
        age_s: of the image.
        ahead_s: video that had arrived and was not shown yet: the part of the age that is the player's.
        rate: how fast it was played.
    """

    age_s: float
    ahead_s: float
    rate: float


def lag_of(page: Any) -> Lag | None:
    """Return the age of the image on the screen; None if its clock is not readable."""
    at_ms, ahead_s, rate, pixels = page.evaluate(LOOK)
    shown = moment_us(np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(HIGH, WIDE, 4)[:, :, :3])
    if shown is None:
        return None
    at_s = at_ms / 1000 - (time.time() - time.monotonic())
    return Lag(at_s - shown / 1e6, ahead_s, rate)
