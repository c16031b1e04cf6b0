"""Track the objects of a source and print one line per frame: python examples/minimal.py [SOURCE]."""

import sys

from engine import Pipeline, PipelineOptions, SteadyTrack, load_detector, open_source
from engine.assets import demo_clip, demo_model


def main() -> None:
    """Print the tracked objects of the first 50 frames; SOURCE may be a camera number, an address or a file."""
    source = open_source(sys.argv[1] if len(sys.argv) > 1 else str(demo_clip()))
    detector = load_detector(demo_model(), score_threshold=0.3)
    with Pipeline(source, detector, SteadyTrack(), options=PipelineOptions(max_frames=50)) as pipeline:
        for packet in pipeline:
            names = [packet.run.class_name(int(class_id)) for class_id in packet.tracks.class_id]
            objects = [f"{name} #{track_id}" for name, track_id in zip(names, packet.tracks.track_id, strict=True)]
            print(f"frame {packet.frame.frame_id}: {', '.join(objects) or 'nothing'}")


if __name__ == "__main__":
    main()
