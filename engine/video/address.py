"""What to open, and how: plain values that can be sent to another process. Imports no numpy."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.clock import NS_PER_S
from engine.redaction import hide_address, hide_setting
from engine.video.sizes.limits import MAX_PIXELS


@dataclass(frozen=True, slots=True)
class VideoAddress:
    """What to open, and how; plain values, so that it can be sent to another process.

    Attributes:
        url: address as FFmpeg takes it.
        format: name of FFmpeg's demuxer, None to probe.
        ffmpeg: options by FFmpeg's names.
        live: low delay instead of throughput, wait for a keyframe, newest frame first.
        host_port: where to knock before FFmpeg opens, None to leave it.
        connect_timeout_s: limit for that.
        open_timeout_s: limit for opening, None for none.
        read_timeout_s: limit for each read, None for none.
        damage: see `SourceOptions`.
        keyframes_only: decode keyframes alone.
        max_pixels: width times height of a frame at most.
        tls: `verify` or `insecure`.
        ca_file: authorities to trust in place of the system's.
        poll_s: from one request to the next, where the address gives a single picture; None: it is never asked again.
        is_snapshot: ask again whatever an answer holds, not only after a single picture.
        decoders: names of decoders to try in this order, or `auto`.
    """

    url: str
    format: str | None = None
    ffmpeg: Mapping[str, str] = field(default_factory=dict)
    live: bool = False
    host_port: tuple[str, int] | None = None
    connect_timeout_s: float = 1.5
    open_timeout_s: float | None = None
    read_timeout_s: float | None = None
    damage: str = "frame"
    keyframes_only: bool = False
    poll_s: float | None = None
    is_snapshot: bool = False
    decoders: tuple[str, ...] = ("cpu",)
    max_pixels: int = MAX_PIXELS
    tls: str = "verify"
    ca_file: str | None = None

    def __post_init__(self) -> None:
        hide_address(self.url)
        for name, value in self.ffmpeg.items():
            hide_setting(name, value)

    @property
    def read_limit_ns(self) -> float:
        """Limit for each frame of a live stream in nanoseconds, infinite without one."""
        return (self.read_timeout_s or float("inf")) * NS_PER_S


def video_address_from_request(request: dict[str, Any]) -> VideoAddress:
    """Return the target that was sent as JSON."""
    knock = request["host_port"]
    return VideoAddress(
        **{**request, "host_port": tuple(knock) if knock else None, "decoders": tuple(request["decoders"])}
    )


def knock(target: VideoAddress) -> None:
    """Reach the host of a camera, with a limit much shorter than that for opening. Raises OSError."""
    if target.host_port is not None:
        socket.create_connection(target.host_port, timeout=target.connect_timeout_s).close()
