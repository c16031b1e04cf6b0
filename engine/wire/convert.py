"""Converts packets to messages, and messages back to columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec import UNSET, UnsetType, structs
from numpy.typing import NDArray

from engine.clock import NS_PER_MS
from engine.data import NO_DETECTION, Packet, Run, SourceStatus, TrackEvent, Tracks
from engine.errors import WireError
from engine.redaction import public_address, redact_published
from engine.wire.columns import PIXEL_DECIMALS, SCORE_DECIMALS, Columns, rounded, track_columns
from engine.wire.messages import EosMessage, FrameMessage, StatusMessage
from engine.wire.objects import ClassScore, Rle, TrackedObject
from engine.wire.scene import EventMessage
from engine.wire.trace_context import traceparent

MS_DECIMALS = 3
ASPECT_DECIMALS = 6
FIRST_SCENE_COLUMN = TrackedObject.__struct_fields__.index("zones")
MAX_MASK_PIXELS = 1 << 26


def frame_message(packet: Packet, *, is_traced: bool = False, columns: Columns | None = None) -> FrameMessage:
    """Return the wire message of a packet; the times and `seq` are those set by publishing.

    Args:
        packet: to convert.
        is_traced: add the trace context of the frame.
        columns: its `track_columns`, if they have been made already.
    """
    frame, run = packet.frame, packet.run
    return FrameMessage(
        engine_id=run.engine_id,
        run_epoch=run.run_epoch,
        owner_epoch=owner_of(run),
        source_id=frame.source_id,
        stream_epoch=frame.stream_epoch,
        seq=packet.seq,
        frame_id=frame.frame_id,
        captured_utc_ns=frame.captured_utc_ns,
        captured_source=frame.captured_source,
        captured_error_ns=frame.captured_error_ns,
        pts_ns=frame.pts_ns,
        published_utc_ns=packet.published_utc_ns,
        latency_ms=round(packet.latency_ms, MS_DECIMALS),
        stage_ms={stage: round(ms, MS_DECIMALS) for stage, ms in packet.stage_ms.items()},
        width=frame.width,
        height=frame.height,
        dropped=dict(packet.dropped),
        model=run.model,
        objects=_objects(packet, track_columns((packet,))[0] if columns is None else columns),
        pixel_aspect=UNSET if frame.pixel_aspect == 1.0 else round(frame.pixel_aspect, ASPECT_DECIMALS),
        traceparent=traceparent(run, frame.source_id, packet.seq) if is_traced else UNSET,
    )


def event_message(event: TrackEvent, packet: Packet, *, seq: int) -> EventMessage:
    """Return the wire message of a change in a track's life: `track_new`, `_lost`, `_resumed`, `_ended`.

    All events of one track carry the same `event_id`. `data` has `lived_ms` (first to last detection), `unseen_ms`
    (since the last one), `mean_score` and `hits` (number of detections).
    """
    frame, run = packet.frame, packet.run
    return EventMessage(
        engine_id=run.engine_id,
        run_epoch=run.run_epoch,
        owner_epoch=owner_of(run),
        source_id=frame.source_id,
        stream_epoch=frame.stream_epoch,
        seq=seq,
        published_utc_ns=packet.published_utc_ns,
        event=f"track_{event.kind}",
        event_id=f"{frame.source_id}-{run.run_epoch}-{event.track_id}",
        frame_id=frame.frame_id,
        captured_utc_ns=frame.captured_utc_ns,
        track_id=event.track_id,
        class_id=event.class_id,
        class_name=run.class_name(event.class_id),
        score=round(event.mean_score, SCORE_DECIMALS),
        xyxy=[round(value, PIXEL_DECIMALS) for value in event.xyxy],
        data={
            "lived_ms": (event.last_seen_ns - event.first_seen_ns) / NS_PER_MS,
            "unseen_ms": (event.captured_ns - event.last_seen_ns) / NS_PER_MS,
            "mean_score": round(event.mean_score, SCORE_DECIMALS),
            "hits": event.hits,
        },
    )


def status_message(status: SourceStatus, run: Run, *, seq: int, published_utc_ns: int) -> StatusMessage:
    """Return the wire message of a change in a source's state."""
    info = status.info
    return StatusMessage(
        engine_id=run.engine_id,
        run_epoch=run.run_epoch,
        owner_epoch=owner_of(run),
        source_id=info.source_id,
        stream_epoch=status.stream_epoch,
        seq=seq,
        published_utc_ns=published_utc_ns,
        state=status.state,
        reason=redact_published(status.reason),
        uri=public_address(info.uri),
        is_live=info.is_live,
        width=info.width,
        height=info.height,
        fps=info.fps,
        frame_count=info.frame_count,
        codec=info.codec,
        decoder=info.decoder,
    )


def eos_message(
    source_id: str, run: Run, *, seq: int = 0, published_utc_ns: int, last_seq: int | None, reason: str = ""
) -> EosMessage:
    """Return the last message of a source; `last_seq` is that of its last frame message."""
    return EosMessage(
        engine_id=run.engine_id,
        run_epoch=run.run_epoch,
        owner_epoch=owner_of(run),
        source_id=source_id,
        seq=seq,
        published_utc_ns=published_utc_ns,
        last_seq=last_seq,
        reason=redact_published(reason),
    )


def tracks_from_message(message: FrameMessage) -> Tracks:
    """Return the objects of a message as columns; `detection_index` is the row, or -1 if the box is predicted."""
    objects = message.objects
    rows = np.arange(len(objects), dtype=np.int32)
    predicted = np.fromiter((o.predicted for o in objects), np.bool_, len(objects))
    return Tracks(
        np.array([o.xyxy for o in objects], np.float32).reshape(-1, 4),
        [o.score for o in objects],
        [o.class_id for o in objects],
        [o.track_id for o in objects],
        [o.age for o in objects],
        np.where(predicted, NO_DETECTION, rows),
    )


def owner_of(run: Run) -> int | UnsetType:
    """Return the `owner_epoch` of messages of a run; unset outside a fleet."""
    return UNSET if run.owner_epoch is None else run.owner_epoch


def rle_from_mask(mask: NDArray[Any]) -> Rle:
    """Return the run lengths of an (H, W) mask, column by column as in COCO.

    >>> rle_from_mask(np.array([[0, 1], [0, 1]])).counts
    [2, 2]
    """
    mask = np.asarray(mask, dtype=np.bool_)
    height, width = mask.shape
    edges = _run_edges(mask) if mask.any() else np.zeros(0, np.int64)
    counts = np.diff(np.concatenate(([0], edges, [height * width]))).tolist()
    if edges.size and counts[-1] == 0:
        counts.pop()
    return Rle(size=[height, width], counts=counts)


def mask_from_rle(rle: Rle) -> NDArray[np.bool_]:
    """Return the (H, W) mask of run lengths.

    Raises:
        WireError: the size is over 64 megapixels, or the runs do not fill it exactly.
    """
    height, width = rle.size
    if not 0 <= height * width <= MAX_MASK_PIXELS or sum(rle.counts) != height * width:
        raise WireError(f"mask of size {rle.size} has runs over {sum(rle.counts)} pixels: they must fill it exactly")
    values = np.arange(len(rle.counts)) % 2 == 1
    return np.repeat(values, rle.counts).reshape((height, width), order="F")


def _objects(packet: Packet, columns: Columns) -> list[TrackedObject]:
    objects, held = _all_objects(packet, columns), packet.detections.extra.get("held")
    if held is None or not held.any():
        return objects
    index = packet.tracks.detection_index.tolist()
    return [
        structs.replace(one, held=True) if row != NO_DETECTION and held[row] else one
        for one, row in zip(objects, index, strict=True)
    ]


def _all_objects(packet: Packet, columns: Columns) -> list[TrackedObject]:
    if packet.detections.extra or packet.track_classes is not None:
        columns = [*columns, *_extra_columns(packet)]
    if packet.analytics is None:
        return list(map(TrackedObject, *columns))
    empty = [[None] * len(packet.tracks)] * (FIRST_SCENE_COLUMN - len(columns))
    return list(map(TrackedObject, *columns, *empty, *packet.analytics.columns()))


def _run_edges(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return where runs of ones begin and end, column by column; reads only the rectangle that contains the ones."""
    height = mask.shape[0]
    rows = np.flatnonzero(mask.any(axis=1))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    if top > 0:  # a row of zeros separates the runs of neighbouring columns
        top -= 1
    elif bottom < height:
        bottom += 1
    flat = np.pad(mask[top:bottom, left:right].ravel(order="F"), 1)
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    edges[1::2] -= 1  # an end is counted from the last pixel of its run, which is in the same column
    column, row = np.divmod(edges, bottom - top)
    found: NDArray[np.int64] = ((left + column) * height + top + row).astype(np.int64)
    found[1::2] += 1
    return found


def _extra_columns(packet: Packet) -> list[list[Any]]:
    """Return the columns `mask`, `keypoints`, `xyxyxyxy`, `classes` by track, from those by detection.

    The classes of the second stage belong to the track, and stay when its box is predicted.
    """
    extra = packet.detections.extra
    index = packet.tracks.detection_index.tolist()
    names = packet.run.second_class_names or packet.run.class_names

    def by_track(name: str, convert: Any) -> list[Any]:
        rows = extra.get(name)
        return [None if rows is None or i == NO_DETECTION else convert(rows[i]) for i in index]

    def points(row: NDArray[Any]) -> list[Any]:
        return rounded(np.asarray(row), SCORE_DECIMALS)

    def corners(row: NDArray[Any]) -> list[Any]:
        return rounded(np.asarray(row).reshape(4, 2), PIXEL_DECIMALS)

    def classes(row: NDArray[Any]) -> list[ClassScore] | None:
        if np.isnan(row).any():  # the second stage did not run
            return None
        pairs = ((int(c), round(float(s), SCORE_DECIMALS)) for c, s in np.asarray(row).reshape(-1, 2))
        return [ClassScore(c, names[c] if 0 <= c < len(names) else str(c), s) for c, s in pairs]

    second = packet.track_classes
    return [
        by_track("mask", rle_from_mask),
        by_track("keypoints", points),
        by_track("xyxyxyxy", corners),
        by_track("classes", classes) if second is None else list(map(classes, second)),
    ]
