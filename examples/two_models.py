"""Run two models side by side, each on its own camera: python examples/two_models.py [SOURCE [SOURCE]]."""

import sys
from itertools import islice

from engine import DetectorPool, Pipeline, PipelineOptions, SteadyTrack, load_detector, open_source
from engine.assets import demo_clip, demo_model
from engine.detection.classic import MotionDetector


def main() -> None:
    """Print what each camera sees; a source that the pool does not list uses the first model."""
    gate, yard = islice([*sys.argv[1:], str(demo_clip()), str(demo_clip())], 2)
    sources = [open_source(gate, source_id="gate"), open_source(yard, source_id="yard")]
    models = DetectorPool(
        {"people": load_detector(demo_model(), classes=["person"]), "motion": MotionDetector()},
        of_source={"yard": "motion"},
    )
    with Pipeline(sources, models, SteadyTrack(), options=PipelineOptions(max_frames=40)) as pipeline:
        for packet in pipeline:
            names = [packet.run.class_name(int(class_id)) for class_id in packet.tracks.class_id]
            print(f"{packet.frame.source_id} {packet.frame.frame_id}, {packet.run.model}: {len(names)} {set(names)}")


if __name__ == "__main__":
    main()
