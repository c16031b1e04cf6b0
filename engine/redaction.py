"""Makes text safe to leave the process: removes known secrets, and control sequences for terminals.

Code that parses a secret (an address, a key file, a header) registers its value here. Wherever text leaves the process
(messages, logs, tracebacks, the summary, `ctl`, the stream, files), `redact` removes those values, whatever surrounds
them. Addresses that were never registered are also cleaned, by their structure. Everything takes time linear in the
length of the text.

A password may equal the name of a camera or a folder: `http://server/stream?src=gate` for the camera `gate`, the user
`admin` of `/home/admin`. Such names are registered too and stay readable, so that answers and paths remain correct.

The set of secrets belongs to the process, as its output does. Any thread may call any function.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "***"
MIN_CHARS = 4  # shorter values are hidden only inside addresses, because ordinary words would contain them
MAX_CHARS = 4096
MAX_VALUES = 16_384
MAX_PARTS = 64  # of one address
MIN_TOKEN_CHARS = 16
LOCAL_SCHEMES = frozenset(("", "file", "synthetic", "screen", "csi", "gst"))
PUSH_SCHEMES = frozenset(("rtmp", "rtmps", "rtmpt", "rtmpe"))  # the last part of the path is the stream key
SECRET_WORDS = ("pas", "pwd", "pswd", "token", "secret", "key", "auth", "sig", "cred", "session", "cookie", "jwt")
_KEYS = (
    "channel subtype stream mode profile resolution fps codec width height quality camera latency transport format res "
    "size proto protocol unicast rate bitrate timeout count objects seed realtime video audio id ch trackid"
)
_WORDS = "live stream main sub cam camera channel ch preview test publish video app mystream true false none null"
NAMES_OF_FILES = frozenset(("keys", "allowed_keys", "connect_key", "server_key", "keyframes_only"))
HARMLESS_KEYS = frozenset(_KEYS.split())
HARMLESS_WORDS = frozenset(_WORDS.split())
_SCHEME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-")
_MAX_SCHEME = 32
_SPACE = re.compile(r"\s")
_MARK = re.compile(r"([?&;#])")
_PATH_MARK = re.compile(r"([_&;])")
_USER_WORDS = ("user", "usr", "login")
_TRAILING = ":,;.)]}'\""  # punctuation of the sentence around an address


class _Values:
    """The registered values, longest first, so that no part of a longer one remains, and the names to keep."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, None] = {}
        self._names: dict[str, None] = {}
        self.longest_first: tuple[str, ...] = ()
        self.names: re.Pattern[str] | None = None  # matches names that contain a value, as whole words

    def copy(self) -> _Values:
        """Return the same values, to which others can be added."""
        other = _Values()
        with self._lock:
            known, names = list(self._known), list(self._names)
        other.add(known, names)
        return other

    def add(self, values: list[str], names: Iterable[str] = ()) -> None:
        with self._lock:
            fresh = _add_up_to_limit(self._known, values)
            if not (_add_up_to_limit(self._names, names) or fresh):
                return
            self.longest_first = tuple(sorted(self._known, key=len, reverse=True))
            exposing = [name for name in self._names if any(value in name for value in self.longest_first)]
            exposing.sort(key=len, reverse=True)
            words = "|".join(map(re.escape, exposing))
            self.names = re.compile(rf"(?<!\w)({words})(?!\w)") if words else None


def _add_up_to_limit(known: dict[str, None], values: Iterable[str]) -> bool:
    """Add the new values, and return whether there were any.

    When full, the first ones stay, so a flood cannot displace them.
    """
    fresh = [value for value in values if value not in known][: MAX_VALUES - len(known)]
    known.update(dict.fromkeys(fresh))
    return bool(fresh)


_values = _Values()


def hide(*secrets: str) -> None:
    """Register secrets: from now on `redact` removes each, including its forms in a URL, in JSON and in a literal."""
    found: list[str] = []
    for secret in secrets:
        found += [form for form in _forms(secret) if MIN_CHARS <= len(form) <= MAX_CHARS]
    _values.add(found)


def keep_readable(*names: str) -> None:
    """Register names of cameras, places and folders: `redact` leaves them alone where they occur as whole words.

    >>> hide("gate7"); keep_readable("gate7")
    >>> redact("gate7: gate7x refused")
    'gate7: ***x refused'
    """
    _values.add([], [name for name in names if MIN_CHARS <= len(name) <= MAX_CHARS])


def hide_address(address: str) -> None:
    """Register the secrets of an address: its user info, query values and keys inside its path.

    >>> hide_address("me:hunter2@10.0.0.7:80"); hide_address("host=db password=hunter3")
    >>> redact("no hunter2, no hunter3")
    'no ***, no ***'
    """
    scheme, sign, rest = address.partition("://")
    if not sign:
        _hide_without_scheme(address)
    if not sign or scheme.lower() in LOCAL_SCHEMES:
        return
    end = _end_at(rest, "/?#")
    at = rest.rfind("@", 0, end)
    readings = {_split_userinfo(rest), (rest[: max(at, 0)], rest[at + 1 :])}  # `@` may be in the password
    for userinfo, tail in readings:
        path, query = _split_query(tail)
        hide(*_secrets_of_userinfo(userinfo), *_secrets_of_path(scheme.lower(), path))
        hide(*(value for key, value in _pairs(query) if not _is_harmless(key, value)))


def _hide_without_scheme(text: str) -> None:
    """Register the secrets of `user:password@host`, and of `name=value` pairs as database drivers take them."""
    for word in text.split():
        name, sign, value = word.rpartition("=")
        if sign and is_secret_name(name.rpartition("=")[2]):
            hide(value.strip("'\""))
        userinfo, at, _ = (value or word).rpartition("@")
        if at and ":" in userinfo:
            hide(userinfo.partition(":")[2])


def hide_setting(name: str, value: object) -> None:
    """Register the value of a setting if its name suggests a secret, and the secrets of an address in it.

    >>> hide_setting("passphrase", "correct horse"); redact("srt: correct horse refused")
    'srt: *** refused'
    """
    if not isinstance(value, str):
        return
    hide_address(value)
    if name.lower() in ("headers", "cookies"):
        lines = [line.partition(":") for line in value.splitlines()]
        hide(*(part for _, _, text in lines for part in (text.strip(), *text.split())))
    elif is_secret_name(name) and "://" not in value:
        hide(value)


def is_secret_name(name: str) -> bool:
    """Return whether a parameter's name says that its value is secret.

    >>> is_secret_name("loginpas"), is_secret_name("X-Api-Key"), is_secret_name("channel")
    (True, True, False)
    """
    lowered = name.lower().rpartition(".")[2].replace("-", "_")
    return lowered not in NAMES_OF_FILES and any(word in lowered for word in SECRET_WORDS)


def redact(text: str) -> str:
    """Return `text` without registered secrets and without the passwords of any address in it.

    If an `@` may belong to the password or to the path, too much is hidden rather than too little.

    >>> redact("cannot open rtsp://admin:p@ss/1@10.0.0.7:554/live?token=abc: refused")
    'cannot open rtsp://admin:***@10.0.0.7:554/live?token=***: refused'
    >>> redact("rtsp://10.0.0.7:554/live")
    'rtsp://10.0.0.7:554/live'
    """
    return _without_values(_without_passwords(text, users=True))


def redact_published(text: str) -> str:
    """Return `text` as `redact` does, but also without user names, for other machines."""
    return _without_passwords(_without_values(_without_passwords(text, users=False)), users=False)


def redact_tree(value: Any) -> Any:
    """Return plain data with `redact` applied to every string in it, including keys."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(key) if isinstance(key, str) else key: redact_tree(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_tree(item) for item in value]
    return value


def public_address(address: str) -> str:
    """Return the public part of an address: no user, no query, no key inside its path.

    >>> public_address("rtsp://admin:secret@10.0.0.7:554/live?token=1")
    'rtsp://10.0.0.7:554/live'
    >>> public_address("rtmp://host/app/stream-key"), public_address("clip.mp4")
    ('rtmp://host/app/***', 'clip.mp4')
    """
    hide_address(address)
    scheme, sign, rest = address.partition("://")
    if not sign or scheme.lower() in LOCAL_SCHEMES:
        return redact(address)
    rest = _split_userinfo(rest)[1]
    return redact(f"{scheme}://{_public_path(scheme.lower(), _split_query(rest)[0])}")


def printable(text: str, max_chars: int | None = None) -> str:
    """Return a text that cannot control a terminal: control and direction characters are escaped, long texts are cut.

    Names come from models, cameras and other machines. Tabs and line ends stay.

    >>> printable("gate\\x1b[2J"), printable("abcdef", 4)
    ('gate\\\\x1b[2J', 'abc…')
    """
    cut = text if max_chars is None or len(text) <= max_chars else text[: max(max_chars - 1, 0)] + "…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() or c in "\t\n" else _escaped(c) for c in cut)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret as given, decoded, encoded, and in the form of JSON and Python literals."""
    for plain in (secret, unquote(secret)):
        yield plain
        yield quote(plain, safe="")
        yield json.dumps(plain)[1:-1]
        yield json.dumps(plain, ensure_ascii=False)[1:-1]
        yield repr(plain)[1:-1]


def _secrets_of_userinfo(userinfo: str) -> list[str]:
    user, sign, password = userinfo.partition(":")
    if not sign:
        return [user] if _is_token(user) else []
    basic = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode("utf-8", "surrogatepass")).decode()
    pieces = _pieces(password, "/?#@: \r\n")  # parsers stop there, and their errors show what they read as a port
    return [password, basic, *(piece for piece in pieces if not _is_harmless("", piece))]


def _secrets_of_path(scheme: str, path: str) -> list[str]:
    segments = [segment for segment in path.split("/", MAX_PARTS)[1:] if segment]
    found = [value for segment in segments for key, value in _path_pairs(segment) if is_secret_name(key)]
    if scheme in PUSH_SCHEMES and segments and segments[-1].strip("0123456789-_").lower() not in HARMLESS_WORDS:
        found.append(segments[-1])
    is_key = {"http": _is_token, "https": _is_token, "rtsp": _is_random, "rtsps": _is_random}.get(scheme)
    return found + [segment for segment in segments if is_key and is_key(segment)]


def _public_path(scheme: str, path: str) -> str:
    host, *segments = path.split("/")
    shown = [_without_path_secrets(segment) for segment in segments]
    if scheme in PUSH_SCHEMES and shown and shown[-1]:
        shown[-1] = HIDDEN
    return "/".join([host, *shown])


def _without_path_secrets(segment: str) -> str:
    if "=" not in segment:
        return segment
    shown: list[str] = []
    is_secret = False
    for part in _PATH_MARK.split(segment):
        name, sign, value = part.partition("=")
        if sign:
            is_secret = is_secret_name(name) or name.lower().startswith(_USER_WORDS)
            shown.append(f"{name}={HIDDEN if is_secret and value else value}")
        elif not is_secret or part in "_&;":
            shown.append(part)
    return "".join(shown)


def _path_pairs(segment: str) -> Iterator[tuple[str, str]]:
    """Yield the parameters of `user=admin_password=a_b_channel=1.sdp`; a value may contain underscores."""
    if "=" not in segment:
        return
    key, value = "", ""
    for part in segment.replace("&", "_").replace(";", "_").split("_", MAX_PARTS):
        name, sign, rest = part.partition("=")
        if not sign:
            value += f"_{part}" if key else ""
            continue
        if key:
            yield key, value
        key, value = name, rest
    yield key, value


def _pairs(query: str) -> Iterator[tuple[str, str]]:
    for piece in _pieces(query, "?&;#"):
        key, sign, value = piece.partition("=")
        yield (key, value) if sign else ("", key)


def _is_harmless(key: str, value: str) -> bool:
    if is_secret_name(key):
        return False
    return key.lower() in HARMLESS_KEYS or value.lower() in HARMLESS_WORDS or (value.isdigit() and len(value) < 6)


def _is_token(segment: str) -> bool:
    has_both = any(c.isdigit() for c in segment) and any(c.isalpha() for c in segment)
    return len(segment) >= MIN_TOKEN_CHARS and has_both and "." not in segment


def _is_random(segment: str) -> bool:  # a key like UniFi's, `fJ6kQ2nR8sXw3bTz`, rather than a word
    return _is_token(segment) and segment.isalnum() and segment.lower() != segment != segment.upper()


def _end_at(rest: str, marks: str) -> int:
    return min((place for place in map(rest.find, marks) if place >= 0), default=len(rest))


def _split_userinfo(rest: str) -> tuple[str, str]:
    """Return the user info and the rest; a password may contain unencoded slashes, question marks, `#` and `@`."""
    end = _end_at(rest, "/?#")
    at = rest.rfind("@") if ":" in rest[:end] else rest.rfind("@", 0, end)
    return (rest[:at], rest[at + 1 :]) if at >= 0 else ("", rest)


def _split_query(rest: str) -> tuple[str, str]:
    return rest[: (end := _end_at(rest, "?#"))], rest[end:]


def _pieces(text: str, marks: str) -> list[str]:
    for mark in marks[1:]:
        text = text.replace(mark, marks[0])
    return [piece for piece in text.split(marks[0], MAX_PARTS) if piece]


def _without_values(text: str) -> str:
    names = _values.names
    if names is None:
        return _hidden_in(text)
    pieces = names.split(text)  # every second piece is a name
    return "".join(piece if n % 2 else _hidden_in(piece) for n, piece in enumerate(pieces))


def _hidden_in(text: str) -> str:
    for value in _values.longest_first:
        if value in text:
            text = text.replace(value, HIDDEN)
    return text


def _without_passwords(text: str, *, users: bool) -> str:
    return text if "://" not in text else "".join(_parts_without_passwords(text, users=users))


def _parts_without_passwords(text: str, *, users: bool) -> Iterator[str]:
    """Yield the parts of a text, hiding passwords and secret parameters in each address (up to the next space)."""
    done = 0
    while (sign := text.find("://", done)) >= 0:
        begin = sign + len("://")
        space = _SPACE.search(text, begin)
        end = space.start() if space else len(text)
        rest = text[begin:end].rstrip(_TRAILING)
        yield text[done:begin]
        yield _clean_rest(_scheme_before(text, sign), rest, users=users)
        done = begin + len(rest)
        if done < end:
            yield text[done:end]
            done = end
    yield text[done:]


def _scheme_before(text: str, sign: int) -> str:
    begin = sign
    while begin > max(sign - _MAX_SCHEME, 0) and text[begin - 1] in _SCHEME_CHARS:
        begin -= 1
    return text[begin:sign].lower()


def _clean_rest(scheme: str, rest: str, *, users: bool) -> str:
    userinfo, rest = _split_userinfo(rest)
    path, query = _split_query(rest)
    user, sign, _ = userinfo.partition(":")
    shown = f"{user if users else HIDDEN}{sign}{HIDDEN if sign else ''}@" if userinfo else ""
    if scheme not in LOCAL_SCHEMES:
        host, *segments = path.split("/")
        path = "/".join([host, *map(_without_path_secrets, segments)])
    return shown + path + _clean_query(query)


def _clean_query(query: str) -> str:
    return "".join(map(_clean_parameter, _MARK.split(query)))


def _clean_parameter(part: str) -> str:
    key, sign, value = part.partition("=")
    return f"{key}={HIDDEN}" if sign and value and is_secret_name(key) else part
