"""Save the best crop of every tracked person: python examples/crop_objects.py [SOURCE].

Give `load_detector` a model with a face class to save faces instead.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from engine import Pipeline, PipelineOptions, SteadyTrack, load_detector, open_source
from engine.assets import demo_clip, demo_model

FOLDER = Path("crops")


def main() -> None:
    """Keep the crop with the highest score of each track, and write them all at the end."""
    source = open_source(sys.argv[1] if len(sys.argv) > 1 else str(demo_clip()))
    detector = load_detector(demo_model(), classes=["person"], score_threshold=0.4)
    best: dict[int, tuple[float, np.ndarray]] = {}
    with Pipeline(source, detector, SteadyTrack(), options=PipelineOptions(max_frames=80)) as pipeline:
        for packet in pipeline:
            tracks = packet.tracks[packet.tracks.detection_index >= 0]  # boxes that were detected, not predicted
            for track_id, score, box in zip(tracks.track_id.tolist(), tracks.score.tolist(), tracks.xyxy, strict=True):
                x1, y1, x2, y2 = box.round().astype(int).clip(0)
                crop = packet.frame.image[y1:y2, x1:x2]
                if crop.size and score > best.get(track_id, (0.0,))[0]:
                    best[track_id] = (score, crop.copy())
    FOLDER.mkdir(exist_ok=True)
    for track_id, (score, crop) in best.items():
        cv2.imwrite(str(FOLDER / f"person_{track_id}_{score:.2f}.jpg"), crop)
    print(f"wrote {len(best)} crops to {FOLDER}/")


if __name__ == "__main__":
    main()
