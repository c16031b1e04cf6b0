"""Which options have an effect on which built-in sources; others are rejected instead of ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from engine.errors import ConfigError
from engine.redaction import redact
from engine.video.options import SourceOptions
from engine.video.uri import NETWORK_SCHEMES

_DEVICES = ("camera", "csi", "screen")
_LIVE = (*_DEVICES, *NETWORK_SCHEMES)
_RECORDED = ("video", "images", "synthetic", "package")
_OF_LIVE = (
    *("reader", "slots", "reconnect", "max_attempts", "backoff_s", "backoff_max_s", "refused_backoff_s"),
    *("connect_timeout_s", "open_timeout_s", "read_timeout_s", "stall_s"),
)
APPLIES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_OF_LIVE, _LIVE),
    "live": NETWORK_SCHEMES,
    "realtime": (*_RECORDED, *NETWORK_SCHEMES),
    "loop": (*_RECORDED, *NETWORK_SCHEMES),
    "transport": ("rtsp", "rtsps"),
    "damage": ("video", *NETWORK_SCHEMES),
    "keyframes_only": ("video", *_LIVE),
    "decoder": ("video", *_LIVE),
    "size_wh": _DEVICES,
    "fps": ("images", *_DEVICES, "http", "https"),
    "pixel_format": ("camera",),
    "snapshot": ("http", "https"),
    "max_pixels": ("video", "images", *_LIVE),
    "tls": ("rtsps", "https", "http", "rtmps", "tls"),
    "grow_s": ("images",),
    "ffmpeg": ("video", "camera", "screen", *NETWORK_SCHEMES),
}
"""The kinds of source on which each option has an effect: a network scheme, or one of `WORDS`."""
WORDS: Mapping[str, str] = {
    "camera": "USB camera",
    "csi": "CSI camera",
    "screen": "screen",
    "video": "video file",
    "images": "folder of images",
    "synthetic": "synthetic scene",
    "package": "source of another package",
}
_HINTS: Mapping[str, str] = {
    "fps": "; max_fps limits the frames that are detected",
    "tls": "; use rtsps:// or https://",
}
_DEFAULT = SourceOptions()


def inapplicable(kind: str, options: SourceOptions) -> list[str]:
    """Return the names of the options that differ from their default and have no effect on a kind of source.

    >>> inapplicable("video", SourceOptions(transport="udp", keyframes_only=True))
    ['transport']
    """
    names = [option.name for option in fields(SourceOptions) if kind not in APPLIES[option.name]]
    return [name for name in names if getattr(options, name) != getattr(_DEFAULT, name)]


def check_applicable(kind: str, uri: str, options: SourceOptions) -> None:
    """Raise ConfigError for the first option that has no effect on a source.

    Args:
        kind: network scheme, or one of `WORDS`.
        uri: its address, for the message.
        options: all options of the source; those equal to their default count as not given.
    """
    for name in inapplicable(kind, options):
        where = _listed(APPLIES[name])
        hint = _HINTS.get(name, "") if kind in NETWORK_SCHEMES else ""
        raise ConfigError(
            f"{name} does not apply to {redact(uri)} ({_word(kind)}): remove it; it applies to {where}{hint}"
        )


def check_playable(uri: str, options: SourceOptions) -> None:
    """Raise ConfigError for a network camera that should be played like a file."""
    for name in ("realtime", "loop"):
        if getattr(options, name):
            raise ConfigError(
                f"{name} does not apply to {redact(uri)}, a camera: remove it; it applies to recordings "
                "(live: false, if this is a file on a server)"
            )


def _word(kind: str) -> str:
    return WORDS.get(kind, f"{kind}:// address")


def _listed(kinds: tuple[str, ...]) -> str:
    """Return kinds for a message, with all network schemes as one.

    >>> _listed(("camera",)), _listed(("video", *NETWORK_SCHEMES))
    ('USB camera', 'video file, network address')
    """
    words = ["network address" if kind in NETWORK_SCHEMES else _word(kind) for kind in kinds]
    if not set(NETWORK_SCHEMES) <= set(kinds):
        words = [_word(kind) for kind in kinds]
    return ", ".join(dict.fromkeys(words))
