"""Posts bodies to a URL: verified TLS, one deadline per attempt, and redirects that cannot reach private networks."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, cast

from engine.errors import ConfigError, EngineError
from engine.net.address import ENCODED, has_two_readings
from engine.redaction import hide_address, hide_setting, printable, public_address

TIMEOUT_S = 5.0
TRY_AGAIN = frozenset((408, 425, 429))
REDIRECTS = frozenset((301, 302, 307, 308))
MAX_REDIRECTS = 3
MAX_HEAD_BYTES = 64 * 1024
MAX_SHOWN_CHARS = 200
PIECE_BYTES = 4096
CREDENTIALS = frozenset(("authorization", "cookie", "proxy-authorization", "x-api-key"))


class PostError(EngineError):
    """The receiver was not reached, or cannot take it now; a retry may help."""


class PostRefusedError(EngineError):
    """The receiver will never take this."""


@dataclass(frozen=True, slots=True)
class _Place:
    """The destination of one request."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """The origin that credentials are bound to."""
        return self.scheme, self.host, self.port


class Poster:
    """Posts to one URL. A status of 2xx is success.

    Redirects are followed with the same method and body, at most three times. They never lead from https to http, never
    carry credentials to another host or port, and never reach another address inside private networks.

    Args:
        url: http or https; user and password in it become basic credentials.
        headers: additional headers, for example `Authorization`.
        timeout_s: limit for one attempt, from connecting to the last byte of the response head.
        private_redirects: allow redirects to other hosts on private networks and to this machine.
        tls: how to verify servers; None uses the system's certificates.

    Raises:
        ConfigError: the URL is not http or https.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        private_redirects: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        hide_address(url)
        for name, value in (headers or {}).items():
            hide_setting("headers", f"{name}: {value}")
        self._first, login = _place_from_url(url)
        self._headers = {"Content-Type": "application/json", **login, **(headers or {})}
        self._timeout_s = timeout_s
        self._private_redirects = private_redirects
        self._tls = tls or ssl.create_default_context()
        self.is_waiting = False

    def post(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Post a body with additional headers, and wait for the response.

        Raises:
            PostError: a retry may help: 408, 425, 429, 5xx, or no connection.
            PostRefusedError: the receiver, or a redirect, refuses it.
        """
        headers = {**self._headers, **headers}
        place, deadline = self._first, time.monotonic() + self._timeout_s
        for _ in range(MAX_REDIRECTS + 1):
            status, location = self._exchange(place, body, headers, deadline)
            if 200 <= status < 300:
                return
            if status >= 500 or status in TRY_AGAIN:
                raise PostError(f"webhook answered {status}")
            if status not in REDIRECTS or not location:
                raise PostRefusedError(f"webhook refused a message with {status}")
            place, headers = self._redirected(place, location, headers)
        raise PostRefusedError(f"webhook redirects more than {MAX_REDIRECTS} times")

    def _exchange(self, place: _Place, body: bytes, headers: Mapping[str, str], deadline: float) -> tuple[int, str]:
        """Return the status and the redirect location of the response."""
        self.is_waiting = True
        try:
            with self._connected(place, deadline) as connection:
                connection.sendall(_request(place, body, headers))
                return _head_of_answer(connection, deadline)
        except ssl.SSLCertVerificationError as error:
            raise PostError(
                f"webhook {place.host} has a certificate that is not trusted ({error.verify_message}): add the "
                "certificate of its authority to the system's, or set SSL_CERT_FILE"
            ) from error
        except PrivateAddressError as error:
            raise PostRefusedError(f"webhook is not followed: {error}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise PostError(f"webhook cannot be reached: {error}") from error
        finally:
            self.is_waiting = False

    def _connected(self, place: _Place, deadline: float) -> socket.socket:
        plain = socket.create_connection((place.host, place.port), timeout=_left(deadline))
        try:
            if place.origin != self._first.origin and not self._private_redirects:
                _check_public(plain.getpeername()[0])  # the address reached, not an earlier name lookup
            plain.settimeout(_left(deadline))
            if place.scheme == "http":
                return plain
            return self._tls.wrap_socket(plain, server_hostname=place.host)
        except BaseException:
            plain.close()
            raise

    def _redirected(self, place: _Place, location: str, headers: Mapping[str, str]) -> tuple[_Place, Mapping[str, str]]:
        """Return the redirect destination and the headers to send there."""
        try:
            url = urllib.parse.urljoin(f"{place.scheme}://{_netloc(place)}{place.path}", location)
            following, _ = _place_from_url(url)
        except ValueError as error:  # a ConfigError too
            shown = printable(public_address(location), MAX_SHOWN_CHARS)
            raise PostRefusedError(f"webhook redirects to {shown}, which is not a URL") from error
        if place.scheme == "https" and following.scheme != "https":
            raise PostRefusedError("webhook redirects from https to http: give the address that it redirects to")
        if following.origin != place.origin:
            headers = {name: value for name, value in headers.items() if name.lower() not in CREDENTIALS}
        return following, headers


def _place_from_url(url: str) -> tuple[_Place, dict[str, str]]:
    """Return the destination of a URL and the headers for its user and password. Raises `ConfigError`."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError("the webhook is not a URL: expected http://host:port/path") from error
    if has_two_readings(url):
        raise ConfigError(f"the webhook's host is ambiguous: expected http://user:password@host/path, {ENCODED}")
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii() or not url.isprintable():
        raise ConfigError("the webhook is not an http or https URL: expected http://host/path")
    path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    place = _Place(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), path)
    return place, _login(parts)


def _login(parts: urllib.parse.SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    from base64 import b64encode

    user, password = urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or "")
    return {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}


def _netloc(place: _Place) -> str:
    host = f"[{place.host}]" if ":" in place.host else place.host
    return f"{host}:{place.port}"


def _request(place: _Place, body: bytes, headers: Mapping[str, str]) -> bytes:
    lines = [f"POST {place.path.replace(' ', '%20')} HTTP/1.1", f"Host: {_netloc(place)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"Content-Length: {len(body)}")
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header contains a line break")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class _Received:
    """Received bytes, with the interface that `http.client` expects of a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> BytesIO:
        """Return the bytes as a file."""
        return BytesIO(self._data)


def _head_of_answer(connection: socket.socket, deadline: float) -> tuple[int, str]:
    """Read until the head is complete; the deadline also holds for a server that sends it byte by byte."""
    head = b""
    while b"\r\n\r\n" not in head and b"\n\n" not in head:
        if len(head) > MAX_HEAD_BYTES:
            raise http.client.HTTPException("the response head is too long")
        connection.settimeout(_left(deadline))
        piece = connection.recv(PIECE_BYTES)
        if not piece:
            break
        head += piece
    answer = http.client.HTTPResponse(cast(Any, _Received(head)), method="POST")
    answer.begin()
    return answer.status, answer.getheader("Location") or ""


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no complete response in time")
    return left


def _check_public(address: str) -> None:
    if not ipaddress.ip_address(address.partition("%")[0]).is_global:
        raise PrivateAddressError(f"it redirects to {address}, an address inside a private network")


class PrivateAddressError(OSError):
    """A redirect leads to an address that only this machine or its network can reach."""
