"""Draw where people walk, with supervision's annotators: python examples/heat_map.py [SOURCE]."""

import sys

import cv2
import supervision as sv

from engine import Pipeline, PipelineOptions, SteadyTrack, load_detector, open_source
from engine.assets import demo_clip, demo_model


def main() -> None:
    """Write heat_map.jpg: the last frame overlaid with the places where people were."""
    source = open_source(sys.argv[1] if len(sys.argv) > 1 else str(demo_clip()))
    detector = load_detector(demo_model(), classes=["person"])
    heat_map = sv.HeatMapAnnotator(position=sv.Position.BOTTOM_CENTER, radius=12)
    with Pipeline(source, detector, SteadyTrack(), options=PipelineOptions(max_frames=100)) as pipeline:
        for packet in pipeline:
            people = packet.tracks.to_supervision()  # from here on, everything that supervision offers
            image = heat_map.annotate(packet.frame.image.copy(), people)
    cv2.imwrite("heat_map.jpg", image)
    print("wrote heat_map.jpg")


if __name__ == "__main__":
    main()
