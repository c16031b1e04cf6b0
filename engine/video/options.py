"""Options for opening and reading a source: one frozen object of plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from engine.errors import ConfigError
from engine.video.sizes.limits import MAX_PIXELS

FrameReader = Literal["process", "thread"]
Transport = Literal["tcp", "udp"]
Damage = Literal["until_keyframe", "frame", "keep"]
Decoder = Literal["auto", "cpu", "nvdec", "vaapi", "jetson"]
CHOICES: Mapping[str, tuple[str, ...]] = {
    "reader": get_args(FrameReader),
    "transport": get_args(Transport),
    "damage": get_args(Damage),
    "decoder": get_args(Decoder),
}


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Options of a source; `open_source` refuses those that have no effect on its kind (`engine.sources.applicable`).

    Attributes:
        live: whether a network source is a camera (newest frame, reconnect) or a file; None: decide by its address.
        realtime: play a file at its own rate, as if it were a camera.
        loop: restart a file at its end.
        reader: where a live source is read: `process` can be killed while FFmpeg hangs, `thread` uses less memory.
        reconnect: connect again after a live source has failed.
        max_attempts: failed connections in a row after which a live source gives up; None: never.
        backoff_s: wait before the second attempt; it doubles each time, with jitter.
        backoff_max_s: longest wait between attempts.
        refused_backoff_s: wait after the camera has refused the password, so that it does not lock the account.
        connect_timeout_s: limit for reaching the host of an RTSP camera.
        open_timeout_s: limit for opening.
        read_timeout_s: limit for the next frame; after it the connection counts as dead.
        stall_s: the source is reported `stalled` after this time (and four frame intervals) without a frame.
        transport: protocol that carries RTP.
        damage: after a damaged frame of a live source, drop all `until_keyframe` (they are predicted from it), drop
            that `frame` only, or `keep` everything.
        keyframes_only: decode only keyframes, to save work.
        decoder: `auto` uses the first decoder that really delivers frames (the CPU for files); a decoder that does not
            work here is replaced by the next, and the log says why.
        size_wh: frame size to request from a USB camera.
        fps: frame rate to request from a USB camera, or the nominal rate of a folder of images.
        pixel_format: FFmpeg's name of the format to request from a USB camera (`mjpeg`, `yuyv422`, ...).
        snapshot: True: poll an HTTP address `fps` times a second (once by default); None: only if it returns one frame
            per request; False: never.
        slots: frames that the shared memory of a `process` reader holds.
        max_pixels: largest width times height of a frame; larger frames are refused before memory is allocated.
        tls: for rtsps and https cameras: `verify` the certificate, `insecure`, or `{"ca": FILE}` to trust that file.
        grow_s: watch a folder of images until none has arrived for this long; None: read it once.
        ffmpeg: further options, by FFmpeg's names; they override ours.
    """

    live: bool | None = None
    realtime: bool = False
    loop: bool = False
    reader: FrameReader = "process"
    reconnect: bool = True
    max_attempts: int | None = None
    backoff_s: float = 0.1
    backoff_max_s: float = 1.0
    refused_backoff_s: float = 30.0
    connect_timeout_s: float = 1.5
    open_timeout_s: float = 10.0
    read_timeout_s: float = 5.0
    stall_s: float = 2.0
    transport: Transport = "tcp"
    damage: Damage = "until_keyframe"
    keyframes_only: bool = False
    decoder: Decoder = "auto"
    size_wh: tuple[int, int] | None = None
    fps: float | None = None
    pixel_format: str | None = None
    snapshot: bool | None = None
    slots: int = 8
    max_pixels: int = MAX_PIXELS
    tls: str | Mapping[str, str] = "verify"
    grow_s: float | None = None
    ffmpeg: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} is {getattr(self, name)!r}: expected one of {', '.join(choices)}")
        for name in ("connect_timeout_s", "open_timeout_s", "read_timeout_s", "stall_s", "backoff_s", "backoff_max_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}: expected a number of seconds above 0")
        if self.tls not in ("verify", "insecure") and self.ca_file is None:
            raise ConfigError(f'tls is {self.tls!r}: expected verify, insecure or {{"ca": FILE}}')
        if self.max_pixels < 1:
            raise ConfigError(f"max_pixels is {self.max_pixels}: expected a number of pixels above 0")
        if self.slots < 4:
            raise ConfigError(f"slots is {self.slots}: expected 4 or more")

    @property
    def ca_file(self) -> str | None:
        """The file with CA certificates to trust instead of the system's."""
        return _ca_of(self.tls)

    @property
    def tls_mode(self) -> str:
        """`verify` or `insecure`."""
        return self.tls if isinstance(self.tls, str) else "verify"


def _ca_of(tls: str | Mapping[str, str]) -> str | None:
    return tls["ca"] if isinstance(tls, Mapping) and set(tls) == {"ca"} and isinstance(tls["ca"], str) else None


def options_from(values: Mapping[str, Any]) -> SourceOptions:
    """Return the options given in `values`, with defaults for the others.

    Raises:
        ConfigError: a name is unknown, or a value cannot work.
    """
    known = [option.name for option in fields(SourceOptions)]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ConfigError(f"unknown source option {unknown[0]!r}: expected one of {', '.join(known)}")
    return SourceOptions(**values)
