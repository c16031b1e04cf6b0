"""`open_source`: returns the source for a URI, after the checks that are possible without opening it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import SourceError
from engine.paths import path_from_text
from engine.protocols import Source
from engine.redaction import hide_address, keep_readable, redact
from engine.registry import Registry
from engine.sources.applicable import check_applicable, check_playable
from engine.video.options import SourceOptions, options_from
from engine.video.uri import NETWORK_SCHEMES, name_from_uri, scheme_of

MAX_CAMERA_CHARS = 250
"""Of a number or a device path: file names end at 255."""


def open_source(uri: str | int | os.PathLike[str], *, source_id: str | None = None, **options: Any) -> Source:
    """Return the source that a URI names; iterating it opens it, on the iterating thread.

    Args:
        uri: camera number or `/dev/...` path, `rtsp://`, `http(s)://` and other network addresses, a video file, an
            image, a folder or glob of images, `synthetic://?width=640&height=480&count=100`, `screen://:0`,
            `csi://0` on a Jetson.
        source_id: its name; by default the file's stem, the host or `cameraN`.
        options: fields of `SourceOptions`.

    Raises:
        SourceError: the source is missing, empty or unreadable, if that is evident at once.
        ConfigError: an option is unknown or has no effect on this kind of source, or a value cannot work.

    >>> source = open_source("synthetic://?width=64&height=48&count=3")
    >>> source.info.source_id, [frame.frame_id for frame in source]
    ('synthetic', [0, 1, 2])
    """
    text = os.fspath(uri) if not isinstance(uri, int) else str(uri)
    hide_address(text)
    chosen = options_from(options)
    name = source_id or name_from_uri(text)
    keep_readable(name)
    kind = kind_of(text)
    check_applicable(kind, text, chosen)
    first = _OPENERS[kind](text, name, chosen)
    if not (chosen.realtime or chosen.loop):
        return first
    if first.info.is_live:
        if kind in NETWORK_SCHEMES:
            check_playable(text, chosen)
        return first
    return _played(lambda: _OPENERS[kind](text, name, chosen), chosen)


def kind_of(uri: str) -> str:
    """Return the kind of source that a URI names: a network scheme, or one of `applicable.WORDS`.

    Raises:
        SourceError: the scheme is unknown, or a file is missing, empty or unreadable.

    >>> kind_of("0"), kind_of("RTSP://gate/1"), kind_of("synthetic://?count=1")
    ('camera', 'rtsp', 'synthetic')
    """
    from engine.sources.camera import is_camera

    scheme = scheme_of(uri)
    if is_camera(uri):
        return "camera"
    if scheme in _SCHEMES:
        return scheme
    if scheme not in ("", "file") and not os.path.lexists(uri):
        if scheme in REGISTRY.names():
            return "package"
        known = ", ".join(f"{known}://" for known in sorted({*_SCHEMES, *REGISTRY.names(), "file"}))
        raise SourceError(f"{redact(uri)}: {scheme}:// is unknown; expected a path, a camera number, or {known}")
    return _kind_of_path(uri)


def _camera(uri: str, name: str, options: SourceOptions) -> Source:
    from engine.sources.camera import camera_address
    from engine.sources.live.open_live import live_source

    if len(uri) > MAX_CAMERA_CHARS:
        raise SourceError(f"{uri[:20]}…: no device has such a long name: expected a camera number or /dev/…")
    return live_source(camera_address(uri, options), name, options)


def _stream(uri: str, name: str, options: SourceOptions) -> Source:
    from engine.sources.live.open_live import live_source
    from engine.video.network import video_address_from_uri

    return live_source(video_address_from_uri(uri, options), name, options)


def _synthetic(uri: str, name: str, options: SourceOptions) -> Source:
    from engine.sources.synthetic import SyntheticSource, scene_from_uri

    return SyntheticSource(scene_from_uri(uri), name, uri=uri)


def _screen(uri: str, name: str, options: SourceOptions) -> Source:
    from engine.sources.live.open_live import live_source
    from engine.video.network import screen_address

    return live_source(screen_address(uri, options), name, options)


def _csi(uri: str, name: str, options: SourceOptions) -> Source:
    from engine.sources.camera import csi_address
    from engine.sources.live.open_live import live_source

    return live_source(csi_address(uri, options), name, options)


def _package(uri: str, name: str, options: SourceOptions) -> Source:
    return made_source(scheme_of(uri), uri, name, {})


def _kind_of_path(place: str) -> str:
    path = path_from_text(place)
    try:
        is_pattern = not path.exists() and any(mark in place for mark in "*?[")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{place[:100]!r} cannot be the path of a source: {reason}") from error
    if is_pattern or path.is_dir():
        return "images"
    kind = "images" if _is_image(path) else "video"
    if kind == "video" or path.is_file():
        _check_file(path)
    return kind


def _images(place: str, name: str, options: SourceOptions) -> Source:
    """Return a folder or glob of images, or one image."""
    from engine.sources.images import ImagesSource

    path = path_from_text(place)
    images = ImagesSource(path, name, fps=options.fps, grow_s=options.grow_s, max_pixels=options.max_pixels)
    if not path.is_file() and options.grow_s is None and not images.paths():
        raise SourceError(f"{place} has no images: expected files such as *.jpg or *.png, or a video file")
    return images


def _is_image(path: Path) -> bool:
    """Return whether a file is a still image; GIF, and HEIF files that hold a film, are videos."""
    from engine.video.read_image import IMAGE_SUFFIXES
    from engine.video.sizes.image_header import is_image_sequence

    if path.suffix.lower() not in IMAGE_SUFFIXES - {".gif"}:
        return False
    if not path.is_file() or not os.access(path, os.R_OK):
        return True
    with path.open("rb") as file:
        return not is_image_sequence(file.read(16))


def _video(place: str, name: str, options: SourceOptions) -> Source:
    from engine.sources.file import FileSource
    from engine.video.address import VideoAddress

    decoder = "cpu" if options.decoder == "auto" else options.decoder  # the CPU decodes exactly, on several threads
    keep = "keep" if options.damage == "keep" else "frame"
    target = VideoAddress(
        str(path_from_text(place)),
        ffmpeg=options.ffmpeg,
        damage=keep,
        keyframes_only=options.keyframes_only,
        decoders=(decoder,),
        max_pixels=options.max_pixels,
    )
    return FileSource(target, name)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise SourceError(f"no such file: {path}{_neighbours(path)}")
    if not path.is_file():
        raise SourceError(f"{path} is not a file: expected a video, an image or a folder of images")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path} cannot be read: check its owner and mode")
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes): copy it again")


def _neighbours(path: Path) -> str:
    """Return a hint about files with similar names."""
    from difflib import get_close_matches

    if not path.parent.is_dir():
        return f" (there is no folder {path.parent} either)"
    close = get_close_matches(path.name, [other.name for other in path.parent.iterdir()], n=1)
    return f"; did you mean {path.with_name(close[0])}?" if close else ""


def _played(make: Callable[[], Source], options: SourceOptions) -> Source:
    from engine.sources.paced import PacedSource

    return PacedSource(make, realtime=options.realtime, loop=options.loop)


REGISTRY = Registry("source", {})
"""Sources of other packages: entry points named after a URI scheme, whose factory takes `uri` and `source_id`."""


def made_source(kind: str, uri: str, source_id: str, parameters: Mapping[str, Any]) -> Source:
    """Return a source of another package, or of `module:attribute`.

    Args:
        kind: name of its entry point, or `module:attribute`.
        uri: its address, for the factory.
        source_id: its name.
        parameters: further arguments of the factory.

    Raises:
        ConfigError: a kind or parameter is unknown, or the object is not a source.
    """
    source: Source = REGISTRY.make(kind, {"uri": uri, "source_id": source_id, **parameters}, protocol=Source)
    return source


Opener = Callable[[str, str, SourceOptions], Source]
_OPENERS: Mapping[str, Opener] = {
    **dict.fromkeys(NETWORK_SCHEMES, _stream),
    "synthetic": _synthetic,
    "screen": _screen,
    "csi": _csi,
    "camera": _camera,
    "images": _images,
    "video": _video,
    "package": _package,
}
_SCHEMES = (*NETWORK_SCHEMES, "synthetic", "screen", "csi")
