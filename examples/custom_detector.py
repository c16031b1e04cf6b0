"""Write your own detector, for patches of one colour: python examples/custom_detector.py [SOURCE]."""

import sys
from collections.abc import Sequence

import cv2
import numpy as np

from engine import Detections, DetectorBase, Frame, Pipeline, PipelineOptions, SteadyTrack, open_source
from engine.assets import demo_clip


class ColorDetector(DetectorBase):
    """Find patches whose hue, saturation and value lie between two limits and that cover enough pixels."""

    name = "color"
    class_names = ("patch",)

    def __init__(self, low: Sequence[int], high: Sequence[int], min_area: int = 100) -> None:
        self._low, self._high, self._min_area = np.array(low), np.array(high), min_area

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        return [self._patches(frame.image) for frame in frames]

    def _patches(self, image: np.ndarray) -> Detections:
        mask = cv2.inRange(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), self._low, self._high)
        _, _, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(mask, np.ones((5, 5), np.uint8)))
        x, y, width, height, area = stats[1:].T  # row 0 is the background
        found = Detections(np.column_stack([x, y, x + width, y + height]), np.full(len(x), 0.9), np.zeros(len(x)))
        return found[area >= self._min_area]


if __name__ == "__main__":
    source = open_source(sys.argv[1] if len(sys.argv) > 1 else str(demo_clip()))
    yellow = ColorDetector(low=(20, 150, 160), high=(35, 255, 255))
    with Pipeline(source, yellow, SteadyTrack(), options=PipelineOptions(max_frames=60)) as pipeline:
        for packet in pipeline:
            places = [tuple(box) for box in packet.tracks.xyxy.round().astype(int).tolist()]
            print(packet.frame.frame_id, dict(zip(packet.tracks.track_id.tolist(), places, strict=True)))
