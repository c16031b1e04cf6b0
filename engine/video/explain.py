"""Explains FFmpeg errors to the people who must act on them. Imports nothing heavy."""

from __future__ import annotations

import errno

from engine.redaction import redact
from engine.video.uri import HLS_FRAGMENT, NETWORK_SCHEMES, scheme_of

REFUSED = "the camera refused the user name or password"
_REASONS: tuple[tuple[str, str, str], ...] = (
    ("HTTPUnauthorizedError", REFUSED, "check them; write special characters in a URL as %40 for @, %3A for :"),
    ("HTTPForbiddenError", "the camera forbids this (403)", "check this user's permissions"),
    ("HTTPNotFoundError", "there is no such stream (404)", "check the path of the URL in the camera's manual"),
    ("HTTPServerError", "the camera reports a fault of its own (5xx)", "close other viewers, or restart the camera"),
    (
        "HTTPOtherClientError",
        "the camera refuses this request (4xx)",
        "close other viewers; for RTSP, try the other transport (tcp, udp)",
    ),
    ("ConnectionRefusedError", "connection refused", "check that it is switched on, and check the port"),
    ("ConnectionResetError", "the connection was reset by the other side", "check the camera's viewer limit"),
    ("TimeoutError", "no answer in time", "check the address and the network, or raise open_timeout_s"),
    ("ExitError", "no answer in time", "check the address and the network, or raise open_timeout_s / read_timeout_s"),
    ("FileNotFoundError", "there is no such file or device", "check the path"),
    ("PermissionError", "permission denied", "check its owner and mode; for a camera: add yourself to the group video"),
    ("InvalidDataError", "the data is not a video that FFmpeg can read", "check that it is a complete video"),
    ("ProtocolNotFoundError", "this FFmpeg does not support this protocol", "see framewire doctor"),
    ("DemuxerNotFoundError", "this FFmpeg cannot read this kind of stream", "see framewire doctor"),
    ("DecoderNotFoundError", "this FFmpeg has no decoder for it", "see framewire doctor"),
    ("BlockingIOError", "the device is busy", "close the other program that uses it"),
    ("gaierror", "the host name is unknown", "check the name, and the DNS of this machine"),
)


_HOPELESS = frozenset({"ProtocolNotFoundError", "DemuxerNotFoundError", "DecoderNotFoundError"})
_MISSING = (
    "the FFmpeg in PyAV has no {what}: let an ffmpeg that has it convert the stream (ffmpeg -i {what}... -c copy"
    " -f mpegts udp://127.0.0.1:5000) and read udp://127.0.0.1:5000, or install PyAV from source with {scheme}"
)
_NO_STREAM = (
    "the answer is not a stream that FFmpeg can read: check the path of the address, "
    "and whether another player shows it; restart the camera if none does"
)
_MAYBE_HLS = f"{_NO_STREAM}. If it is HLS, write {HLS_FRAGMENT} at the end of the address"
_UNREACHABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})


def explain(error: BaseException) -> str:
    """Return why FFmpeg or the operating system failed and what to try, without passwords."""
    if isinstance(error, OSError) and error.errno in _UNREACHABLE:
        return "the host cannot be reached: check the cable, the address and the network"
    names = {kind.__name__ for kind in type(error).__mro__}
    scheme = scheme_of(str(getattr(error, "filename", None) or ""))
    if "ProtocolNotFoundError" in names and scheme:
        return _MISSING.format(what=f"{scheme}://", scheme=scheme.upper())
    if names & {"InvalidDataError", "ArgumentError"} and scheme in ("http", "https"):
        return _MAYBE_HLS  # of HLS under another name, FFmpeg says that it is no video, or an invalid argument
    if "InvalidDataError" in names and scheme in NETWORK_SCHEMES:
        return _NO_STREAM
    for name, reason, remedy in _REASONS:
        if name in names:
            return f"{reason}: {remedy}"
    return redact(str(getattr(error, "strerror", None) or error or type(error).__name__))


def is_hopeless(error: BaseException) -> bool:
    """Return whether no further attempt can succeed because FFmpeg lacks what the address needs."""
    return any(kind.__name__ in _HOPELESS for kind in type(error).__mro__)


def is_refusal(reason: str) -> bool:
    """Return whether trying again soon could lock the account."""
    return reason.startswith((REFUSED, "the camera forbids"))


def video_errors() -> tuple[type[Exception], ...]:
    """Return what PyAV raises for a bad video or connection; FFmpeg's errors share no base with the built-in ones."""
    import av

    return (av.error.FFmpegError, OSError, ValueError, RuntimeError)
