"""The address of a video with everything needed to open it, as plain values. Imports no numpy."""

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
    """What to open and how: plain values, so that it can be sent to another process.

    Attributes:
        url: address in FFmpeg's form.
        format: name of FFmpeg's demuxer, None to probe.
        ffmpeg: options by FFmpeg's names.
        live: prefer low delay to throughput, wait for a keyframe, deliver the newest frame first.
        host_port: connect to this host and port before FFmpeg opens the address; None to skip this.
        connect_timeout_s: limit for that connection.
        open_timeout_s: limit for opening, None for none.
        read_timeout_s: limit for each read, None for none.
        damage: see `SourceOptions`.
        keyframes_only: decode only keyframes.
        max_pixels: largest width times height of a frame.
        tls: `verify` or `insecure`.
        ca_file: CA certificates to trust instead of the system's.
        poll_s: interval between requests if the address returns a single frame; None: never request it again.
        is_snapshot: request it again whatever an answer contains, not only after a single frame.
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
        """Time limit for each frame of a live stream in nanoseconds, infinite if there is none."""
        return (self.read_timeout_s or float("inf")) * NS_PER_S


def video_address_from_request(request: dict[str, Any]) -> VideoAddress:
    """Return the address that was sent as JSON."""
    knock = request["host_port"]
    return VideoAddress(
        **{**request, "host_port": tuple(knock) if knock else None, "decoders": tuple(request["decoders"])}
    )


def knock(target: VideoAddress) -> None:
    """Check that a camera's host accepts connections, with a far shorter limit than for opening. Raises OSError."""
    if target.host_port is not None:
        socket.create_connection(target.host_port, timeout=target.connect_timeout_s).close()
