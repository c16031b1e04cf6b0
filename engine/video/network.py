"""Network streams: the FFmpeg options that make an address open fast, stay current and respect time limits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from engine.errors import ConfigError, SourceError
from engine.net.address import has_two_readings
from engine.redaction import hide_address, redact
from engine.video.address import VideoAddress
from engine.video.explain import video_errors
from engine.video.options import SourceOptions
from engine.video.timing.access_units import NO_PARSER
from engine.video.uri import NETWORK_SCHEMES, is_playlist, scheme_of

SEGMENTS_S = 20.0  # HLS: three segments of 6 s; each arrives at once, and nothing follows until the next one
SNAPSHOTS_PER_S = 1.0
RTSP_PORTS: Mapping[str, int] = {"rtsp": 554, "rtsps": 322}
RTMP_PORTS: Mapping[str, int] = {"rtmp": 1935, "rtmps": 443}
_HURRY = frozenset({"fflags", "flags", "probesize", "analyzeduration"})
_FILE_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".flv", ".wmv"})


def is_live_address(uri: str) -> bool:
    """Return whether an address is a camera and not a file on a server.

    >>> is_live_address("rtsp://gate/1"), is_live_address("https://host/clip.mp4?x=1"), is_live_address("http://cam/mjpg")
    (True, False, True)
    """
    if scheme_of(uri) not in ("http", "https"):
        return True
    return PurePosixPath(urlsplit(uri).path).suffix.lower() not in _FILE_SUFFIXES


def video_address_from_uri(uri: str, options: SourceOptions) -> VideoAddress:
    """Return what to open for a network address.

    Raises:
        SourceError: the address has no host, or a port that is not a number.
    """
    scheme = scheme_of(uri)
    uri = scheme + uri[len(scheme) :]  # FFmpeg accepts protocols only in lower case
    live = is_live_address(uri) if options.live is None else options.live
    _refuse_dash(uri)
    return VideoAddress(
        url=uri,
        ffmpeg={**ffmpeg_options(uri, options, live=live), **options.ffmpeg},
        live=live,
        host_port=_host_port(uri),
        connect_timeout_s=options.connect_timeout_s,
        open_timeout_s=options.open_timeout_s,
        read_timeout_s=max(options.read_timeout_s, SEGMENTS_S * is_playlist(uri)),
        damage=options.damage if live else "frame",
        keyframes_only=options.keyframes_only,
        poll_s=1.0 / (options.fps or SNAPSHOTS_PER_S) if live and _may_be_snapshot(uri, options) else None,
        is_snapshot=options.snapshot is True,
        max_pixels=options.max_pixels,
        tls=options.tls_mode,
        ca_file=options.ca_file,
        decoders=(options.decoder,),
    )


def _refuse_dash(uri: str) -> None:
    """Raise SourceError for a DASH address if FFmpeg cannot read DASH: its own error would be "not a video"."""
    if uri.partition("?")[0].lower().endswith(".mpd") and not _can_read("dash"):
        raise SourceError(
            f"{redact(uri)} is DASH, which the FFmpeg in PyAV does not read: give the HLS address (.m3u8) of the same "
            "stream, or let ffmpeg convert it (ffmpeg -i URL -c copy -f mpegts udp://127.0.0.1:5000)"
        )


def _can_read(container: str) -> bool:
    from av.format import ContainerFormat

    try:
        ContainerFormat(container, "r")
    except ValueError:
        return False
    return True


def missing_protocols() -> list[str]:
    """Return the address protocols that this FFmpeg lacks.

    With no protocol allowed, FFmpeg's error for one that it has differs from that for one that it lacks, and comes
    before it opens a socket.
    """
    import av

    missing = [] if _can_read("dash") else ["DASH (.mpd)"]
    for name in ("https", "rtmp", "rtmps", "rtp", "rtsp", "srt", "tcp", "tls", "udp"):
        with suppress(*video_errors()):
            try:
                av.open(f"{name}://127.0.0.1:9/", options={"protocol_whitelist": "none"}, timeout=0.2).close()
            except av.error.ProtocolNotFoundError:
                missing.append(name)
    return missing


def _may_be_snapshot(uri: str, options: SourceOptions) -> bool:
    """Return whether to request an address again after it has ended with one frame."""
    return scheme_of(uri) in ("http", "https") and not is_playlist(uri) and options.snapshot is not False


def ffmpeg_options(uri: str, options: SourceOptions, *, live: bool) -> dict[str, str]:
    """Return FFmpeg's options for an address; a protocol ignores those that it does not support.

    >>> ffmpeg_options("rtsp://gate/1", SourceOptions(), live=True)["rtsp_transport"]
    'tcp'
    """
    scheme = scheme_of(uri)
    chosen = {"flags": "low_delay"} if live else {}
    timeout_us = str(round(options.read_timeout_s * 1e6))
    if scheme in RTSP_PORTS:
        chosen |= {
            "fflags": f"nobuffer{NO_PARSER}",
            "rtsp_transport": options.transport,
            "probesize": "32",  # the SDP is sufficient: opens 1 s sooner and does not consume the first keyframe
            "analyzeduration": "0",
            "allowed_media_types": "video",
            "timeout": timeout_us,
            "max_delay": "200000",  # microseconds to wait for a late UDP packet
        }
    elif scheme in ("http", "https"):
        chosen |= {"rw_timeout": timeout_us}
        if live:
            # HLS: begin at the newest segment; FFmpeg would measure the rate over 20 frames, which may be many segments
            chosen |= {"live_start_index": "-1"} | ({"fpsprobesize": "3"} if is_playlist(uri) else {})
    elif scheme in ("tcp", "tls") and live:
        # FFmpeg would first measure the rate over about twenty frames: too long for a slow camera
        chosen |= {"fflags": "nobuffer", "fpsprobesize": "0", "analyzeduration": "100000"}
    elif scheme in ("udp", "rtp", "srt"):
        chosen |= {"fflags": "nobuffer", "timeout": timeout_us, "overrun_nonfatal": "1"}
    return chosen


def record_address(uri: str, options: SourceOptions, *, sound: bool = True) -> VideoAddress:
    """Return what to open for a recording: without fast-start options, so that FFmpeg finds what a file header needs.

    Args:
        uri: network address of the stream.
        options: how to connect.
        sound: ask an RTSP camera for its sound as well.

    Raises:
        ConfigError: it is not a network address.
        SourceError: the address has no host, or a port that is not a number.
    """
    if scheme_of(uri) not in NETWORK_SCHEMES:
        raise ConfigError(
            f"{redact(uri)} cannot be recorded as it is: give the network address of the camera's main stream as "
            "record.uri; output.save writes an annotated video of any source"
        )
    target = video_address_from_uri(uri, options)
    patient = {name: value for name, value in ffmpeg_options(uri, options, live=True).items() if name not in _HURRY}
    if sound and "allowed_media_types" in patient:
        patient["allowed_media_types"] = "video+audio"
    return replace(target, ffmpeg={**patient, **options.ffmpeg}, live=True)


def _host_port(uri: str) -> tuple[str, int] | None:
    """Return the host and port to test before opening: only for RTSP, as HTTP may use a proxy and UDP never answers."""
    scheme = scheme_of(uri)
    hide_address(uri)  # before anything can fail
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
        if has_two_readings(uri):
            raise ValueError("an @ behind the host")
    except ValueError as error:
        raise SourceError(
            f"{redact(uri)} is not a valid address: expected {scheme}://user:password@host:port/path, "
            "with / ? # @ : in the password written as %2F %3F %23 %40 %3A"
        ) from error
    if not host and scheme not in ("udp", "rtp"):
        raise SourceError(f"{redact(uri)} has no host: expected {scheme}://host:port/path")
    return (host, port or RTSP_PORTS[scheme]) if host and scheme in RTSP_PORTS else None


def screen_address(uri: str, options: SourceOptions) -> VideoAddress:
    """Return what to open for `screen://DISPLAY` with FFmpeg's X11 grabber (`screen://` uses the DISPLAY variable).

    Raises:
        SourceError: no display is given and DISPLAY is not set.
    """
    display = uri[len("screen://") :] or os.environ.get("DISPLAY", "")
    if not display:
        raise SourceError(f"{uri}: no display; set DISPLAY, or write screen://:0")
    ffmpeg = {"framerate": f"{options.fps or 15:g}", "fflags": "nobuffer", "flags": "low_delay"}
    if options.size_wh is not None:
        ffmpeg["video_size"] = f"{options.size_wh[0]}x{options.size_wh[1]}"
    return VideoAddress(
        url=display,
        format="x11grab",
        ffmpeg={**ffmpeg, **options.ffmpeg},
        live=True,
        open_timeout_s=options.open_timeout_s,
        read_timeout_s=options.read_timeout_s,
    )
