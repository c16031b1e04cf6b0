"""Write your own sink, which stores tracks in a SQLite database: python examples/custom_sink.py [SOURCE]."""

import sqlite3
import sys

from engine import Packet, Pipeline, PipelineOptions, Run, SinkBase, SteadyTrack, load_detector, open_source
from engine.assets import demo_clip, demo_model


class SqliteSink(SinkBase):
    """Insert one row per tracked object; the pipeline makes all calls on one dedicated thread."""

    name = "sqlite"

    def open(self, run: Run) -> None:
        self._database = sqlite3.connect("tracks.db")
        self._database.execute("CREATE TABLE IF NOT EXISTS tracks (source, frame, track, class, score, x1, y1, x2, y2)")

    def write(self, packet: Packet) -> None:
        frame, tracks = packet.frame, packet.tracks
        names = map(packet.run.class_name, tracks.class_id.tolist())
        columns = zip(tracks.track_id.tolist(), names, tracks.score.tolist(), tracks.xyxy.tolist(), strict=True)
        rows = [
            (frame.source_id, frame.frame_id, track_id, name, score, *box) for track_id, name, score, box in columns
        ]
        self._database.executemany("INSERT INTO tracks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._database.commit()

    def close(self) -> None:
        self._database.close()


if __name__ == "__main__":
    source = open_source(sys.argv[1] if len(sys.argv) > 1 else str(demo_clip()))
    options = PipelineOptions(max_frames=50)
    Pipeline(source, load_detector(demo_model()), SteadyTrack(), SqliteSink(), options=options).run()
    with sqlite3.connect("tracks.db") as database:
        print(dict(database.execute("SELECT class, count(DISTINCT track) FROM tracks GROUP BY class")))
