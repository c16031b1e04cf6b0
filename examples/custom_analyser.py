"""Write your own analyser that finds people standing still: python examples/custom_analyser.py [SOURCE]."""

import sys
from collections.abc import Sequence

import numpy as np

from engine import AnalyserBase, Packet, Pipeline, PipelineOptions, SteadyTrack, load_detector, open_source
from engine.assets import demo_clip, demo_model


class StandingStill(AnalyserBase):
    """Find the tracks that stayed within some pixels for some frames; all calls come from the tracking thread."""

    name = "standing"

    def __init__(self, within: float = 12, frames: int = 15) -> None:
        self._within, self._frames = within, frames
        self._feet: dict[str, dict[int, list[np.ndarray]]] = {}  # by source and track

    def analyse(self, packets: Sequence[Packet]) -> Sequence[Packet]:
        return [packet.with_analysis(self.name, self._standing(packet)) for packet in packets]

    def _standing(self, packet: Packet) -> list[int]:
        before, tracks = self._feet.get(packet.frame.source_id, {}), packet.tracks
        lower_middle = np.column_stack([tracks.xyxy[:, [0, 2]].mean(axis=1), tracks.xyxy[:, 3]])
        rows = zip(tracks.track_id.tolist(), lower_middle, strict=True)
        now = {track_id: [*before.get(track_id, []), feet][-self._frames :] for track_id, feet in rows}
        self._feet[packet.frame.source_id] = now  # and so forgets the tracks that are gone
        long_enough = {track_id: feet for track_id, feet in now.items() if len(feet) == self._frames}
        return [track_id for track_id, feet in long_enough.items() if np.ptp(feet, axis=0).max() <= self._within]


if __name__ == "__main__":
    source = open_source(sys.argv[1] if len(sys.argv) > 1 else str(demo_clip()), source_id="yard")
    people, options = load_detector(demo_model(), classes=["person"]), PipelineOptions(max_frames=80)
    with Pipeline(source, people, SteadyTrack(), analysers={"yard": [StandingStill()]}, options=options) as pipeline:
        for packet in pipeline:
            print(packet.frame.frame_id, "standing still:", packet.analyses["standing"])
