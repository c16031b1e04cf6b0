"""Drawing boxes, labels and traces on frames with supervision's annotators, imported when first used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.data import NO_DETECTION, Packet
from engine.errors import ConfigError
from engine.imaging.caption import draw_caption
from engine.imaging.heat import draw_heat
from engine.imaging.scene import NOWHERE, READABLE, draw_outlines, write_counts
from engine.optional import require

if TYPE_CHECKING:
    import datetime

    from engine.analytics.view import View

TRACE_FRAMES = 40
REFERENCE_HEIGHT = 720
MASK_OPACITY = 0.4
LETTER_WH = 18, 24  # of text of scale 1, in pixels
LIGHT = 150
"""Text on colours brighter than this is black."""
MIN_VISIBILITY = 0.5
COCO_KEYPOINTS = 17  # the only skeleton whose edges are defined here


@dataclass(frozen=True)
class _Style:
    """Line widths and text sizes that look right at one frame size."""

    thickness: int
    text_scale: float
    text_thickness: int
    text_padding: int

    @staticmethod
    def for_size(width: int, height: int) -> _Style:
        """Return the style for frames of this size: at 720 rows two pixels wide, text half size."""
        scale = max(min(width, height) / REFERENCE_HEIGHT, 0.25)
        return _Style(
            thickness=max(1, round(2 * scale)),
            text_scale=max(READABLE, 0.5 * scale),
            text_thickness=max(1, round(1.2 * scale)),
            text_padding=max(2, round(4 * scale)),
        )


def _readable_on(palette: Any, sv: Any) -> Any:
    """Return a palette of black and white text for backgrounds of these colours."""
    light = [0.299 * color.r + 0.587 * color.g + 0.114 * color.b > LIGHT for color in palette.colors]
    return sv.ColorPalette([sv.Color.BLACK if is_light else sv.Color.WHITE for is_light in light])


class Overlay:
    """Draws the tracks of packets: boxes, labels (id, class, score), traces, masks, keypoints, oriented boxes.

    Traces are kept per source from packet to packet: give each sink its own overlay, and call it from one thread.

    Args:
        labels: write id, class and score above the boxes.
        trace: draw the path of each track over the last `TRACE_FRAMES` frames.
        color_by: one colour per `track` or per `class`.
        places: draw zones and lines with their counts.
        dwell: write how long objects have been inside a zone.
        caption: write the name of the source and the time.
        heat: draw where objects have spent their time.
        zone: time zone of the caption; None: UTC.

    Raises:
        ConfigError: `color_by` is neither of the two.
    """

    def __init__(
        self,
        *,
        labels: bool = True,
        trace: bool = True,
        color_by: Literal["track", "class"] = "track",
        places: bool = True,
        dwell: bool = True,
        caption: bool = False,
        heat: bool = False,
        zone: datetime.tzinfo | None = None,
    ) -> None:
        if color_by not in ("track", "class"):
            raise ConfigError(f"color_by is {color_by!r}: choose track or class")
        self._labels = labels
        self._trace = trace
        self._places = places
        self._dwell = dwell
        self._caption = caption
        self._heat = heat
        self._zone = zone
        self._color_by = color_by
        self._painters: dict[tuple[str, int, int], _Painter] = {}

    def draw(self, packet: Packet) -> NDArray[np.uint8]:
        """Return a copy of the packet's image, (H, W, 3) uint8 BGR, with its tracks drawn.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        frame = packet.frame
        key = (frame.source_id, frame.width, frame.height)
        painter = self._painters.get(key)
        if painter is None:
            self._forget(frame.source_id)
            style = _Style.for_size(frame.width, frame.height)
            painter = self._painters[key] = _Painter(
                style, self._labels, self._trace, self._color_by, dwell=self._dwell
            )
        view = packet.analytics
        image: NDArray[np.uint8] = packet.frame.image.copy()
        if self._heat and view is not None and view.heat is not None:
            draw_heat(image, view.heat)
        if self._places and view is not None:
            draw_outlines(image, view)  # below the labels of objects
        image = painter.draw(packet, image)
        if self._places and view is not None:
            write_counts(image, view, painter.label_areas(packet))
        if self._caption:
            draw_caption(image, frame, self._zone)
        return image

    def _forget(self, source_id: str) -> None:
        """Drop the traces of a source whose frame size changed."""
        for key in [key for key in self._painters if key[0] == source_id]:
            del self._painters[key]


class _Painter:
    """The annotators of one source."""

    def __init__(self, style: _Style, labels: bool, trace: bool, color_by: str, *, dwell: bool) -> None:
        self._dwell = dwell
        self._style = style
        sv = require("supervision")
        lookup = sv.ColorLookup.TRACK if color_by == "track" else sv.ColorLookup.CLASS
        self._boxes = sv.BoxAnnotator(thickness=style.thickness, color_lookup=lookup)
        self._traces: Any = None
        self._texts: Any = None
        if trace:
            self._traces = sv.TraceAnnotator(
                position=sv.Position.BOTTOM_CENTER,
                trace_length=TRACE_FRAMES,
                thickness=style.thickness,
                color_lookup=lookup,
            )
        if labels:
            self._texts = sv.LabelAnnotator(
                text_color=_readable_on(sv.ColorPalette.DEFAULT, sv),
                text_scale=style.text_scale,
                text_thickness=style.text_thickness,
                text_padding=style.text_padding,
                color_lookup=lookup,
                smart_position=True,
            )
        self._masks = sv.MaskAnnotator(opacity=MASK_OPACITY, color_lookup=lookup)
        self._oriented = sv.OrientedBoxAnnotator(thickness=style.thickness, color_lookup=lookup)
        self._bones = sv.EdgeAnnotator(color=sv.Color.WHITE, thickness=style.thickness)
        self._joints = sv.VertexAnnotator(color=sv.Color.GREEN, radius=style.thickness + 1)
        self._keypoints = sv.KeyPoints

    def draw(self, packet: Packet, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        found = packet.tracks.to_supervision()
        untracked = bool((packet.tracks.track_id < 0).any())
        if untracked:  # no identity to colour by or to trace
            found.tracker_id = found.class_id
        if self._traces is not None and not untracked:
            image = self._traces.annotate(image, found)
        if len(found) == 0:
            return image
        image = self._draw_shapes(image, packet, found)
        if self._texts is not None:
            image = self._texts.annotate(image, found, labels=_texts_of(packet, dwell=self._dwell))
        return image

    def label_areas(self, packet: Packet) -> NDArray[np.float64]:
        """Return (N, 4) where the labels of objects are, roughly: left, top, right, bottom in pixels."""
        if self._texts is None:
            return NOWHERE
        texts, corner = _texts_of(packet, dwell=self._dwell), packet.tracks.xyxy[:, :2].astype(np.float64)
        high = 2 * self._style.text_padding + LETTER_WH[1] * self._style.text_scale
        wide = LETTER_WH[0] * self._style.text_scale * np.array([len(text) for text in texts], np.float64)
        return np.column_stack((corner[:, 0], corner[:, 1] - high, corner[:, 0] + wide, corner[:, 1]))

    def _draw_shapes(self, image: NDArray[np.uint8], packet: Packet, found: Any) -> NDArray[np.uint8]:
        """Draw boxes, and the masks, oriented boxes and keypoints of the tracks that were seen on this frame."""
        extra, index = packet.detections.extra, packet.tracks.detection_index
        seen = index != NO_DETECTION
        if "xyxyxyxy" not in extra or not seen.all():
            image = self._boxes.annotate(image, found if "xyxyxyxy" not in extra else found[~seen])
        if not extra or not seen.any():
            return image
        shown, rows = found[seen], index[seen]
        if "mask" in extra:
            shown.mask = extra["mask"][rows]
            image = self._masks.annotate(image, shown)
        if "xyxyxyxy" in extra:
            shown.data["xyxyxyxy"] = extra["xyxyxyxy"][rows]
            image = self._oriented.annotate(image, shown)
        if "keypoints" in extra:
            image = self._draw_keypoints(image, extra["keypoints"][rows])
        return image

    def _draw_keypoints(self, image: NDArray[np.uint8], keypoints: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Draw (N, K, 3) keypoints; probably hidden ones are moved to the origin, which supervision skips."""
        visible = keypoints[..., 2:] >= MIN_VISIBILITY
        points = self._keypoints(xy=np.where(visible, keypoints[..., :2], 0).astype(np.float32))
        if keypoints.shape[1] == COCO_KEYPOINTS:
            image = self._bones.annotate(image, points)
        drawn: NDArray[np.uint8] = self._joints.annotate(image, points)
        return drawn


def _texts_of(packet: Packet, *, dwell: bool = True) -> list[str]:
    """Return a label per track, such as `#12 person 0.87`; `~` marks a box that is only predicted."""
    tracks, run = packet.tracks, packet.run
    columns = zip(
        tracks.track_id.tolist(),
        tracks.class_id.tolist(),
        tracks.score.tolist(),
        (tracks.detection_index == NO_DETECTION).tolist(),
        strict=True,
    )
    texts = [
        f"{f'#{track_id} ' if track_id >= 0 else ''}{run.class_name(class_id)} {'~' if predicted else ''}{score:.2f}"
        for track_id, class_id, score, predicted in columns
    ]
    return texts if packet.analytics is None or not dwell else _with_dwell(texts, packet.analytics)


def _with_dwell(texts: list[str], view: View) -> list[str]:
    """Return the labels with the seconds that each object has been inside a zone, the longest if it is in several."""
    dwell = view.objects.dwell_s.max(axis=1, initial=0.0)
    rows = view.object_of_row.tolist()
    return [
        f"{text} {dwell[at]:.0f} s" if at >= 0 and dwell[at] >= 1 else text
        for text, at in zip(texts, rows, strict=True)
    ]
