"""Collect the tracks of a clip in a pandas table and save it as CSV: python examples/to_pandas.py [SOURCE]."""

import sys

import pandas as pd

from engine import Packet, Pipeline, PipelineOptions, SteadyTrack, load_detector, open_source
from engine.assets import demo_clip, demo_model


def table(packet: Packet) -> pd.DataFrame:
    """Return one row per tracked object of a frame."""
    tracks = packet.tracks
    names = [packet.run.class_name(int(class_id)) for class_id in tracks.class_id]
    return pd.DataFrame(tracks.xyxy, columns=["x1", "y1", "x2", "y2"]).assign(
        source=packet.frame.source_id,
        frame=packet.frame.frame_id,
        seconds=(packet.frame.pts_ns or 0) / 1e9,
        track_id=tracks.track_id,
        name=names,
        score=tracks.score,
    )


def main() -> None:
    """Write tracks.csv and print for how many frames each person was in view and how far they moved."""
    source = open_source(sys.argv[1] if len(sys.argv) > 1 else str(demo_clip()))
    detector = load_detector(demo_model(), classes=["person"])
    with Pipeline(source, detector, SteadyTrack(), options=PipelineOptions(max_frames=100)) as pipeline:
        rows = pd.concat([table(packet) for packet in pipeline], ignore_index=True)
    rows.to_csv("tracks.csv", index=False)
    by_track = rows.groupby("track_id")
    moved = by_track[["x1", "y2"]].agg(lambda column: column.diff().abs().sum()).sum(axis=1)
    print(pd.DataFrame({"frames": by_track.size(), "pixels moved": moved.round()}).to_string())


if __name__ == "__main__":
    main()
