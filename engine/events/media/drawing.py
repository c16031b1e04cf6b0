"""Draws what caused an event onto its image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.data import Packet
from engine.events.store.rows import EventRow
from engine.imaging.scene import REFERENCE_HEIGHT, draw_scene, write

Color = tuple[int, int, int]
COLORS: dict[str, Color] = {"info": (200, 160, 60), "notice": (40, 170, 250), "alert": (60, 60, 235)}
OTHERS: Color = (170, 170, 170)
MAX_TEXTS = 8


def drawn(packet: Packet, events: Sequence[EventRow], image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw a frame's places and boxes, emphasizing those of the events.

    Args:
        packet: the frame and what is on it.
        events: to emphasize.
        image: (H, W, 3) uint8 BGR, a copy of the frame to draw on.

    Returns:
        `image`.
    """
    if packet.analytics is not None:
        draw_scene(image, packet.analytics)
    scale = max(min(image.shape[:2]) / REFERENCE_HEIGHT, 0.4)
    owners = {track_id: event for event in events for track_id in event.track_ids}
    tracks = packet.tracks
    boxes = tracks.xyxy.round().astype(int).tolist()
    for row, (track_id, (x1, y1, x2, y2)) in enumerate(zip(tracks.track_id.tolist(), boxes, strict=True)):
        event = owners.get(track_id)
        color = OTHERS if event is None else COLORS.get(event.severity, OTHERS)
        cv2.rectangle(image, (x1, y1), (x2, y2), color, max(1, round((1 if event is None else 3) * scale)))
        if event is not None:
            name = packet.run.class_name(int(tracks.class_id[row]))
            write(image, f"{event.rule}: {name} {tracks.score[row]:.2f}", (x1, y1), scale, color)
    for number, event in enumerate([event for event in events if not event.track_ids][:MAX_TEXTS]):
        at = (round(10 * scale), round((40 + 40 * number) * scale))
        write(image, f"{event.rule} {event.place}".strip(), at, scale, COLORS.get(event.severity, OTHERS))
    return image
