"""A trusted reverse proxy's information about a request: the name, scheme and path that the browser sees."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.web.access.listen import Network, address_of, is_within

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]{1,64}){1,8}/?")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The headers that a proxy adds to a request.

    Attributes:
        host: `X-Forwarded-Host`, the name in the browser's address bar; None: the proxy does not send it.
        is_https: whether the browser speaks TLS to the proxy, from `X-Forwarded-Proto`.
        prefix: `X-Forwarded-Prefix`, the path below which the proxy shows the server, without a slash at the end.
    """

    host: str | None = None
    is_https: bool = False
    prefix: str = ""


def forwarded_of(peer: str, headers: Mapping[str, str], proxies: Sequence[Network]) -> Forwarded:
    """Return the proxy's information; nothing if the peer is not a trusted proxy, because anyone can send such headers.

    >>> from pipelines.web.access.listen import networks_of
    >>> sent = {"x-forwarded-proto": "https", "x-forwarded-prefix": "/cams/"}
    >>> forwarded_of("10.0.0.2", sent, networks_of(["10.0.0.2"], "proxy")), forwarded_of("10.0.0.3", sent, ())
    (Forwarded(host=None, is_https=True, prefix='/cams'), Forwarded(host=None, is_https=False, prefix=''))
    """
    if not is_within(address_of(peer), proxies):
        return Forwarded()
    host = headers.get("x-forwarded-host")
    proto = headers.get("x-forwarded-proto", "").rpartition(",")[2].strip().lower()
    prefix = headers.get("x-forwarded-prefix", "")
    return Forwarded(
        None if host is None else host.rpartition(",")[2].strip(),
        proto in ("https", "wss"),
        prefix.rstrip("/") if _PREFIX.fullmatch(prefix) and "/.." not in prefix else "",
    )
