"""Properties of a source and changes of its state; part of the data that travels through a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from engine.interop import NOTHING

NO_ANALYSES: Mapping[str, Any] = NOTHING
SourceState = Literal["connecting", "live", "stalled", "offline", "ended"]


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Properties of a source; sizes and rates are None until it is open, or if it does not report them.

    Attributes:
        source_id: its name.
        uri: its address, with the password removed.
        is_live: whether it is a camera, which does not wait for its reader.
        width: columns of a delivered frame (after rotation).
        height: rows of a delivered frame (after rotation).
        fps: nominal frames per second.
        frame_count: nominal number of frames of a file.
        codec: FFmpeg's name for the codec.
        decoder: the decoder in use.
        pixel_aspect: width by height of a stored pixel, before rotation.
    """

    source_id: str
    uri: str
    is_live: bool
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    frame_count: int | None = None
    codec: str | None = None
    decoder: str | None = None
    pixel_aspect: float | None = None


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """A change in the state of a source; `ended` comes once, after the last frame of the source.

    Attributes:
        info: the source.
        state: its new state.
        reason: an explanation for humans.
        stream_epoch: epoch of its next frames.
        analyses: each analyser's result for the change, by its name.
    """

    info: SourceInfo
    state: SourceState
    reason: str = ""
    stream_epoch: int = 0
    analyses: Mapping[str, Any] = field(default_factory=lambda: NO_ANALYSES, compare=False)

    @property
    def source_id(self) -> str:
        """Name of the source."""
        return self.info.source_id

    def with_analysis(self, name: str, found: Any) -> SourceStatus:
        """Return this status with the result of the analyser `name` added."""
        return replace(self, analyses={**self.analyses, name: found})
