"""The request headers that state the destination and origin of a request, and the headers of every answer."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from engine.errors import ConfigError
from pipelines.web.access.listen import LOOPBACK_NAMES, Listen, address_of

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
MAX_HOST_CHARS = 260
CSP = (
    "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; connect-src 'self'; object-src 'none'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]{2,45}\]|[a-z0-9.-]{1,253})(:\d{1,5})?")
ALWAYS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def embeddable_csp(origins: Sequence[str]) -> str:
    """Return the policy of a page that pages of these origins may embed in a frame.

    Raises:
        ConfigError: one is not an origin.

    >>> embeddable_csp(["https://ha.example:8123"]).partition("frame-ancestors ")[2].partition(";")[0]
    "'self' https://ha.example:8123"
    """
    for origin in origins:
        if not _ORIGIN.fullmatch(origin.lower()):
            raise ConfigError(
                f"web.embed {origin[:100]!r}: expected an origin such as https://homeassistant.local:8123"
            )
    sources = " ".join(["'self'", *origins])
    return CSP.replace("frame-ancestors 'none'", f"frame-ancestors {sources}")


def headers_of(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by lower-case name; the first of a repeated one, except that a repeated `host` becomes empty.

    A request with two hosts could pass a check with one and be served by the other.
    """
    found: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key == "host" and key in found:
            text = found[key] = ""
        found.setdefault(key, text)
    return found


def is_host_allowed(host: str, listen: Listen, names: Collection[str]) -> bool:
    """Return whether a request's `Host` is one of this server's, so that no other name can lead a browser to it.

    Names of loopback are always allowed; if other machines can connect, so are IP addresses, which no name server can
    redirect.

    Args:
        host: the header.
        listen: where the server listens.
        names: further names, without port, in lower case.

    >>> here = Listen("127.0.0.1", 8000)
    >>> [is_host_allowed(host, here, ["gate.lan"]) for host in ("localhost:8000", "gate.lan", "evil.example", "")]
    [True, True, False, False]
    """
    name = _host_name(host)
    if name is None:
        return False
    if name in LOOPBACK_NAMES or name in names or name == listen.host:
        return True
    return not listen.is_loopback and address_of(name) is not None


def _host_name(host: str) -> str | None:
    """Return the name in a `Host` header; None if it is malformed."""
    if not host or len(host) > MAX_HOST_CHARS or not set(host).isdisjoint("/@?#\\ ,"):
        return None
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def is_origin_allowed(method: str, headers: Mapping[str, str], origins: Collection[str]) -> bool:
    """Return whether a request may come from the page that sent it.

    Programs send neither header and pass. A browser states the origin of a request, which must be this server itself or
    one of `origins`. Requests that only read, and are answered without `Access-Control-Allow-Origin`, pass, because no
    other page can see the answer.

    Args:
        method: of the request; `WEBSOCKET` for an upgrade, which no browser protects.
        headers: of the request.
        origins: further origins, as `https://page.example`.
    """
    if method in SAFE_METHODS:
        return True
    origin = headers.get("origin")
    if origin is not None:
        return origin in origins or _is_same(origin, headers.get("host", ""))
    return headers.get("sec-fetch-site", "same-origin") == "same-origin"


def _is_same(origin: str, host: str) -> bool:
    scheme, _, place = origin.lower().partition("://")
    default = {"http": ":80", "https": ":443"}.get(scheme)
    if default is None or not place:
        return False
    return place.removesuffix(default) == host.lower().removesuffix(default)
