"""Paths as users write them: with `~`, as `file://` URIs, in any encoding; and who may read what is written.

One rule for sources and all options.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from urllib.parse import unquote_to_bytes

FILE_SCHEME = "file:"
REMOTE_MODEL = "kserve+"
FILE_MODE, FOLDER_MODE = 0o640, 0o750
"""What shows people: the owner may write, the group may read; the umask restricts this further."""
_HERE = ("", "localhost")


def expand_home(text: str) -> str:
    """Return a path with `~` or `~name` at its start replaced by that home folder.

    It is unchanged if a file has this exact name, or if there is no such user.

    >>> expand_home("clip.mp4"), expand_home("~nobody-of-this-name/clip.mp4")
    ('clip.mp4', '~nobody-of-this-name/clip.mp4')
    """
    return text if not text.startswith("~") or os.path.lexists(text) else os.path.expanduser(text)


def path_from_text(text: str) -> Path:
    """Return the path for a text: plain, with `~`, or a `file:` URI.

    URIs are decoded as `Path.as_uri` encodes them (RFC 8089); a file whose name contains a literal `%20` takes
    precedence. `file://clip.mp4` is read as a relative path, because it is often written so.

    >>> path_from_text("file:///a/b%20c.mp4"), path_from_text("file://localhost/a.mp4"), path_from_text("a:b=c.mp4")
    (PosixPath('/a/b c.mp4'), PosixPath('/a.mp4'), PosixPath('a:b=c.mp4'))
    """
    if not text.lower().startswith(FILE_SCHEME) or os.path.lexists(text):
        return Path(expand_home(text))
    place = text[len(FILE_SCHEME) :]
    if place.startswith("//"):
        host, slash, path = place[2:].partition("/")
        place = slash + path if host.lower() in _HERE else place[2:]
    return Path(place) if os.path.lexists(place) else Path(os.fsdecode(unquote_to_bytes(os.fsencode(place))))


def user_cache() -> Path:
    """Return the user's cache folder of this program, as the XDG base directory specification defines it.

    It may not exist yet. Raises `RuntimeError` if the user has no home folder.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    return Path(named if os.path.isabs(named) else Path.home() / ".cache") / "framewire"


def is_remote_model(text: str | Path) -> bool:
    """Return whether a text, or the path made from it, is the address of a model on an inference server.

    >>> is_remote_model("kserve+http://host/yolo"), is_remote_model(Path("kserve+http://host/yolo"))
    (True, True)
    >>> is_remote_model("kserve+yolo.onnx"), is_remote_model("yolo.onnx")
    (False, False)
    """
    plain = os.fspath(text)
    return plain.startswith(REMOTE_MODEL) and ":/" in plain


def utf8_text(text: str) -> str:
    """Return a text that any output accepts: bytes of a file name that are not UTF-8 become replacement characters.

    >>> utf8_text("caf\\udce9.mp4") == "caf\N{REPLACEMENT CHARACTER}.mp4"
    True
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def how_to_write(error: BaseException) -> str:
    """Return what to do about a file or folder that could not be written.

    >>> how_to_write(OSError(errno.ENOSPC, "No space left on device"))
    'free some space, or write elsewhere'
    """
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space, or write elsewhere"
    if number in (errno.ENOENT, errno.ENOTDIR):
        return "choose a folder that exists"
    return {
        errno.EBUSY: "give each run a file of its own",
        errno.EISDIR: "name a file, not a folder",
        errno.EROFS: "choose a folder on a disk that is not read-only",
        errno.ENAMETOOLONG: "choose a shorter name",
    }.get(number or 0, "choose a folder with write access")


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, closed to other users. Raises `OSError`."""
    if folder.exists():
        return
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=FOLDER_MODE, exist_ok=True)
