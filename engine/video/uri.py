"""Schemes of URIs, and default names of sources. For secrets see `engine.redaction`."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from urllib.parse import urlsplit

from engine.net.address import has_two_readings
from engine.paths import path_from_text
from engine.redaction import redact as redact

HLS_FRAGMENT = "#.m3u8"
NETWORK_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "udp", "rtp", "srt", "tcp", "tls")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}://")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_VIDEO_DEVICE = re.compile(r"(?:/dev/video)?(\d+)")


def scheme_of(uri: str) -> str:
    """Return the scheme in lower case, or an empty string for a path or a number.

    >>> scheme_of("RTSP://gate/1"), scheme_of("clip.mp4"), scheme_of("0")
    ('rtsp', '', '')
    """
    match = _SCHEME.match(uri)
    return match.group(0)[:-3].lower() if match else ""


def is_playlist(uri: str) -> bool:
    """Return whether an address is an HLS or DASH playlist, whose frames come in segments.

    The fragment `#.m3u8`, which no server sees, declares any other address to be HLS.

    >>> is_playlist("https://host/live.M3U8?token=1"), is_playlist("rtsp://gate/1"), is_playlist("http://host/mjpeg")
    (True, False, False)
    >>> is_playlist("https://host/live?id=7#.m3u8")
    True
    """
    address, _, fragment = uri.lower().partition("#")
    is_named = address.partition("?")[0].endswith((".m3u8", ".mpd")) or fragment == HLS_FRAGMENT[1:]
    return scheme_of(uri) in ("http", "https") and is_named


def name_from_uri(uri: str) -> str:
    """Return the default name of a source: the file's stem, the host, or `cameraN`.

    >>> name_from_uri("rtsp://admin:secret@10.0.0.7:554/live"), name_from_uri("/dev/video2"), name_from_uri("a/b c.mp4")
    ('10.0.0.7', 'camera2', 'b_c')
    >>> name_from_uri("shots/*.png"), name_from_uri("synthetic://?count=5"), name_from_uri("rtsp://[fe80::1]:554/live")
    ('shots', 'synthetic', 'fe80_1')
    """
    device = _VIDEO_DEVICE.fullmatch(uri)
    if device:
        return f"camera{device.group(1)}"
    scheme = scheme_of(uri)
    if scheme and scheme != "file":
        return _safe(_host(uri) or scheme)
    path = path_from_text(uri)
    while any(mark in path.name for mark in "*?["):
        path = path.parent
    return _safe((path.name if _is_folder(path) else path.stem) or "images")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long, or contains a NUL: no such file can exist
        return False


def _host(uri: str) -> str:
    try:
        return "" if has_two_readings(uri) else urlsplit(uri).hostname or ""
    except ValueError:
        return ""


def _safe(name: str) -> str:
    """Return a name that is valid in a topic and in a file name."""
    return _UNSAFE.sub("_", name).strip("_.") or "source"


def unique_name(name: str, taken: Collection[str]) -> str:
    """Return `name`, with a number appended if it is taken.

    >>> unique_name("gate", {"gate", "gate-2"})
    'gate-3'
    """
    number = 2
    candidate = name
    while candidate in taken:
        candidate = f"{name}-{number}"
        number += 1
    return candidate
