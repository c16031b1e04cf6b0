"""Reads and writes MOTChallenge text files, and runs a tracker over them without any video."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_MS, NS_PER_S
from engine.data import Detections, Tracks
from engine.errors import ConfigError, SinkError, SourceError
from engine.protocols import Tracker
from pipelines.scoring.label_files import text_of

_NO_ID, _NO_CLASS = -1, -1
_MOT16_COLUMNS = 9
MAX_MOT_BYTES = 256 << 20
MAX_NUMBER = 1e9
FREE_FRAMES, FRAMES_PER_ROW = 200_000, 1000
"""A few rows must not make a tracker, or the scores, go through billions of empty frames."""
_FORMAT = "%d,%d,%.2f,%.2f,%.2f,%.2f,%.6f,-1,-1,-1"


@dataclass(frozen=True, slots=True, eq=False)
class MotRows:
    """The rows of a MOTChallenge file, ordered by frame.

    Attributes:
        frame: (N,) int64, from 1.
        track_id: (N,) int64, -1 in detection files.
        tlwh: (N, 4) float64 pixels.
        score: (N,) float64; in ground truth 0 marks a row to ignore.
        class_id: (N,) int64, -1 if the file has none (the MOT15 form with 10 columns holds world coordinates
            there, which are not classes).
    """

    frame: NDArray[np.int64]
    track_id: NDArray[np.int64]
    tlwh: NDArray[np.float64]
    score: NDArray[np.float64]
    class_id: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def last_frame(self) -> int:
        """Highest frame number, 0 if there are no rows."""
        return int(self.frame[-1]) if len(self) else 0

    @property
    def xyxy(self) -> NDArray[np.float64]:
        """(N, 4) left, top, right, bottom."""
        return np.concatenate((self.tlwh[:, :2], self.tlwh[:, :2] + self.tlwh[:, 2:]), axis=1)

    def at(self, frame: int) -> slice:
        """Return the rows of one frame."""
        first, last = np.searchsorted(self.frame, (frame, frame + 1))
        return slice(int(first), int(last))


def _parse(path: Path) -> NDArray[np.float64]:
    try:
        text = text_of(path, MAX_MOT_BYTES)
    except ConfigError as error:
        raise SourceError(f"{error}: expected a MOTChallenge text file") from error
    lines = [line.rstrip().rstrip(",") for line in text.splitlines() if line.strip()]
    if not lines:
        return np.zeros((0, 7))
    delimiter = "," if "," in lines[0] else None
    try:
        values = np.loadtxt(lines, delimiter=delimiter, ndmin=2)
    except ValueError as error:
        raise SourceError(
            f"{path} is not a MOTChallenge file ({error}): expected numbers, frame,id,x,y,w,h,score,…"
        ) from error
    read = values[:, : 8 if values.shape[1] == _MOT16_COLUMNS else 7]  # world coordinates may be NaN
    if values.shape[1] < 6 or not (np.abs(read) <= MAX_NUMBER).all() or (values[:, 0] < 1).any():
        raise SourceError(
            f"{path} is not a MOTChallenge file: expected at least 6 finite numbers per line, frame from 1, "
            f"found {values.shape[1]} columns, first line {lines[0][:80]!r}"
        )
    last, most = int(values[:, 0].max()), FREE_FRAMES + FRAMES_PER_ROW * len(values)
    if last > most:
        raise SourceError(
            f"{path}: the last frame is {last}: {len(values)} rows may span at most {most}: number the frames from 1"
        )
    return values


def read_mot(path: str | Path) -> MotRows:
    """Return the rows of a MOTChallenge file: detections, ground truth or tracker output.

    Columns `frame, id, left, top, width, height[, score[, class, visibility | x, y, z]]`, separated by commas or
    blanks. A file with 9 columns has the MOT16 form and includes classes.

    Raises:
        SourceError: the file cannot be read or has another format.
    """
    values = _parse(Path(path))
    values = values[np.argsort(values[:, 0], kind="stable")]
    count = len(values)
    has_class = values.shape[1] == _MOT16_COLUMNS
    return MotRows(
        frame=values[:, 0].astype(np.int64),
        track_id=values[:, 1].astype(np.int64),
        tlwh=values[:, 2:6],
        score=values[:, 6] if values.shape[1] > 6 else np.ones(count),
        class_id=values[:, 7].astype(np.int64) if has_class else np.full(count, _NO_CLASS),
    )


def write_mot(path: str | Path, frames: list[int], tracks: list[Tracks]) -> int:
    """Write tracks in MOTChallenge's form and return the number of rows.

    Args:
        path: file to write.
        frames: number of each frame, from 1.
        tracks: tracks of each frame.

    Raises:
        SinkError: the file cannot be written.
    """
    blocks = []
    for frame, rows in zip(frames, tracks, strict=True):
        size = rows.xyxy[:, 2:] - rows.xyxy[:, :2]
        number = np.full(len(rows), frame)
        blocks.append(np.column_stack((number, rows.track_id, rows.xyxy[:, :2], size, rows.score)))
    table = np.concatenate(blocks) if blocks else np.zeros((0, 7))
    try:
        np.savetxt(path, table, fmt=_FORMAT)
    except OSError as error:
        raise SinkError(f"{path} cannot be written ({error}): choose another file") from error
    return len(table)


@dataclass(frozen=True, slots=True)
class MotSummary:
    """Summary of a tracker's run over a file.

    Attributes:
        frames: frames given to the tracker.
        detected: those of them that were given with their detections.
        rows: rows written.
        ids: distinct track ids.
        update_ms_p50: median time of an update.
        update_ms_p99: its 99th percentile.
    """

    frames: int
    detected: int
    rows: int
    ids: int
    update_ms_p50: float
    update_ms_p99: float


def detections_at(rows: MotRows, frame: int) -> Detections:
    """Return the detections of one frame; their class is 0 if the file has none."""
    at = rows.at(frame)
    class_id = np.maximum(rows.class_id[at], 0)
    return Detections(rows.xyxy[at], rows.score[at], class_id)


def track_rows(
    rows: MotRows, fps: float, tracker: Tracker, *, detect_every: int = 1
) -> tuple[list[Tracks], list[float]]:
    """Return the tracks of every frame from 1 to the last, and the seconds that each update took.

    Args:
        rows: detections.
        fps: frames per second of the video they come from.
        tracker: a new tracker.
        detect_every: give the tracker only the detections of every n-th frame; the others are predicted.

    Raises:
        ConfigError: `fps` or `detect_every` is not positive.
    """
    if not fps > 0:
        raise ConfigError(f"fps is {fps}: give the frames per second of the video, above 0")
    if detect_every < 1:
        raise ConfigError(f"detect_every is {detect_every}: choose 1 or more")
    tracks, seconds = [], []
    for frame in range(1, rows.last_frame + 1):
        found = detections_at(rows, frame) if (frame - 1) % detect_every == 0 else None
        before = time.perf_counter()
        tracks.append(tracker.update(found, round(frame * NS_PER_S / fps)))
        seconds.append(time.perf_counter() - before)
    return tracks, seconds


def track_mot(
    det_path: str | Path, fps: float, tracker: Tracker, out_path: str | Path, *, detect_every: int = 1
) -> MotSummary:
    """Run a tracker over a file of detections, write its tracks, and return a summary.

    Args:
        det_path: MOTChallenge detections.
        fps: frames per second of the video they come from.
        tracker: a new tracker.
        out_path: MOTChallenge file to write.
        detect_every: use only the detections of every n-th frame; the others are predicted.

    Raises:
        ConfigError: an argument is invalid.
        SourceError: the detections cannot be read.
        SinkError: the output cannot be written.
    """
    rows = read_mot(det_path)
    tracks, seconds = track_rows(rows, fps, tracker, detect_every=detect_every)
    written = write_mot(out_path, list(range(1, len(tracks) + 1)), tracks)
    ids = np.unique(np.concatenate([t.track_id for t in tracks])) if tracks else np.zeros(0)
    p50, p99 = (float(np.percentile(seconds, q)) * NS_PER_S / NS_PER_MS if seconds else 0.0 for q in (50, 99))
    return MotSummary(len(tracks), -(-len(tracks) // detect_every), written, len(ids), round(p50, 4), round(p99, 4))
