"""Merge two detectors on the same frames, people and whatever moves: python examples/merge_detectors.py [SOURCE]."""

import sys
from collections.abc import Sequence
from itertools import islice

import numpy as np

from engine import Detections, Detector, DetectorBase, Frame, Pipeline, SteadyTrack, load_detector, open_source
from engine.assets import demo_clip, demo_model
from engine.detection.classic import MotionDetector


class Together(DetectorBase):
    """Several detectors as one; the class ids of each follow those of the previous one."""

    def __init__(self, *detectors: Detector) -> None:
        self._detectors = detectors
        self.name = " + ".join(detector.name for detector in detectors)
        self.class_names = tuple(name for detector in detectors for name in detector.class_names)
        self._first_id = np.cumsum([0, *(len(detector.class_names) for detector in detectors)])

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        return [self._merge([detector.detect([frame])[0] for detector in self._detectors]) for frame in frames]

    def _merge(self, found: list[Detections]) -> Detections:
        class_id = np.concatenate([rows.class_id + self._first_id[index] for index, rows in enumerate(found)])
        score = np.concatenate([rows.score for rows in found])
        return Detections(np.concatenate([rows.xyxy for rows in found]), score, class_id)


if __name__ == "__main__":
    source = open_source(sys.argv[1] if len(sys.argv) > 1 else str(demo_clip()))
    with load_detector(demo_model(), classes=["person"]) as network:
        with Pipeline(source, Together(network, MotionDetector()), SteadyTrack()) as pipeline:
            for packet in islice(pipeline, 60):
                names = [packet.run.class_name(int(class_id)) for class_id in packet.detections.class_id]
                print(packet.frame.frame_id, {name: names.count(name) for name in sorted(set(names))})
