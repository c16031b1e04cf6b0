"""Count the people in a zone, now and in total: python examples/count_in_zone.py [SOURCE]."""

import sys

import cv2
import numpy as np

from engine import Pipeline, PipelineOptions, SteadyTrack, load_detector, open_source
from engine.assets import demo_clip, demo_model

PATH = np.array([[0, 210], [420, 160], [768, 330], [768, 470], [300, 330], [0, 270]], np.float32)  # pixels


def feet(xyxy: np.ndarray) -> np.ndarray:
    """Return the lower middle of each box, (N, 2): where an object stands."""
    return np.column_stack([(xyxy[:, 0] + xyxy[:, 2]) / 2, xyxy[:, 3]])


def main() -> None:
    """Print the count whenever it changes, then the number of different people that were in the zone."""
    source = open_source(sys.argv[1] if len(sys.argv) > 1 else str(demo_clip()))
    detector = load_detector(demo_model(), classes=["person"])
    seen: set[int] = set()
    before = -1
    with Pipeline(source, detector, SteadyTrack(), options=PipelineOptions(max_frames=100)) as pipeline:
        for packet in pipeline:
            tracks = packet.tracks
            inside = [cv2.pointPolygonTest(PATH, (float(x), float(y)), False) >= 0 for x, y in feet(tracks.xyxy)]
            seen.update(tracks.track_id[inside].tolist())
            if sum(inside) != before:
                before = sum(inside)
                print(f"frame {packet.frame.frame_id}: {before} in the zone")
    print(f"{len(seen)} different people were in the zone")


if __name__ == "__main__":
    main()
