"""Bridge to a web hook: each message is posted as JSON, again and again until it is taken or refused."""

from __future__ import annotations

import http.client
import ipaddress
import logging
import socket
import ssl
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, cast

from engine.errors import ConfigError
from engine.redaction import hide_address, hide_setting, printable, public_address
from engine.wire import Message, kind_of, topic_of
from pipelines.stream.adapters.forms import Form, native
from pipelines.stream.bridges.base import RejectedError, TargetError

logger = logging.getLogger(__name__)
TIMEOUT_S = 5.0
TRY_AGAIN = frozenset((408, 425, 429))
REDIRECTS = frozenset((301, 302, 307, 308))
MAX_REDIRECTS = 3
MAX_HEAD_BYTES = 64 * 1024
MAX_SHOWN_CHARS = 200
PIECE_BYTES = 4096
CREDENTIALS = frozenset(("authorization", "cookie", "proxy-authorization", "x-api-key"))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one request goes."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """What credentials belong to."""
        return self.scheme, self.host, self.port


class WebhookOutput:
    """Posts messages to a URL.

    A status of 2xx is success; 408, 425, 429, 5xx and failed connections are tried again with rising pauses; any
    other status rejects the message. The headers `X-Framewire-Kind` and `X-Framewire-Id` (engine, run, topic and
    number) let the receiver sort and recognise repetitions.

    A redirect is followed with the method and the body, at most three times. It never leaves https for http, carries
    no credentials to another host or port, and reaches no other address inside private networks.

    Args:
        url: http or https; user and password in it become basic credentials.
        headers: to add, for example `Authorization`.
        timeout_s: for one attempt, from connecting to the last byte of the answer's head.
        form: makes the bodies.
        private_redirects: allow redirects to other hosts on private networks and this machine.
        tls: how servers are verified; None takes the system's certificates.

    Raises:
        ConfigError: the URL is not http or https.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        form: Form = native,
        private_redirects: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        hide_address(url)
        for name, value in (headers or {}).items():
            hide_setting("headers", f"{name}: {value}")
        self._first, login = _place_from_url(url)
        self._headers = {"Content-Type": "application/json", **login, **(headers or {})}
        self._timeout_s = timeout_s
        self._form = form
        self._private_redirects = private_redirects
        self._tls = tls or ssl.create_default_context()
        self._is_waiting = False
        self._has_told = False

    def open(self) -> None:
        """Each message has its own connection."""

    def send(self, message: Message) -> None:
        """Post one message and wait for the answer.

        Raises:
            TargetError: trying again may help.
            RejectedError: the receiver refuses it.
        """
        identity = f"{message.engine_id}/{message.run_epoch}/{topic_of(message)}{message.seq}"
        headers = {**self._headers, "X-Framewire-Kind": kind_of(message), "X-Framewire-Id": _ascii(identity)}
        for body in self._form(message):
            self._post(body, headers)

    def interrupt(self) -> None:
        """End a wait for the other side by `KeyboardInterrupt`; call from a signal handler on the sending thread."""
        if self._is_waiting:
            raise KeyboardInterrupt

    def turn(self) -> None:
        """Nothing is due."""

    def close(self) -> None:
        """Nothing to close."""

    def _post(self, body: bytes, headers: Mapping[str, str]) -> None:
        place, deadline = self._first, time.monotonic() + self._timeout_s
        for _ in range(MAX_REDIRECTS + 1):
            status, location = self._exchange(place, body, headers, deadline)
            if 200 <= status < 300:
                return
            if status >= 500 or status in TRY_AGAIN:
                raise TargetError(f"web hook answered {status}")
            if status not in REDIRECTS or not location:
                raise self._refused(f"web hook refused a message with {status}")
            place, headers = self._redirected(place, location, headers)
        raise self._refused(f"web hook redirects more than {MAX_REDIRECTS} times")

    def _exchange(self, place: _Place, body: bytes, headers: Mapping[str, str], deadline: float) -> tuple[int, str]:
        """Return the status and where the answer redirects to."""
        self._is_waiting = True
        try:
            with self._connected(place, deadline) as connection:
                connection.sendall(_request(place, body, headers))
                return _head_of_answer(connection, deadline)
        except ssl.SSLCertVerificationError as error:
            raise TargetError(
                f"web hook {place.host} has a certificate that is not trusted ({error.verify_message}): add the "
                "certificate of its authority to the system's, or set SSL_CERT_FILE"
            ) from error
        except PrivateAddressError as error:
            raise self._refused(f"web hook is not followed: {error}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TargetError(f"web hook cannot be reached: {error}") from error
        finally:
            self._is_waiting = False

    def _connected(self, place: _Place, deadline: float) -> socket.socket:
        plain = socket.create_connection((place.host, place.port), timeout=_left(deadline))
        try:
            if place.origin != self._first.origin and not self._private_redirects:
                _check_public(plain.getpeername()[0])  # what was reached, not what a name said before
            plain.settimeout(_left(deadline))
            if place.scheme == "http":
                return plain
            return self._tls.wrap_socket(plain, server_hostname=place.host)
        except BaseException:
            plain.close()
            raise

    def _redirected(self, place: _Place, location: str, headers: Mapping[str, str]) -> tuple[_Place, Mapping[str, str]]:
        """Return where to go on, and with which headers."""
        try:
            url = urllib.parse.urljoin(f"{place.scheme}://{_netloc(place)}{place.path}", location)
            following, _ = _place_from_url(url)
        except ValueError as error:  # a ConfigError too
            shown = printable(public_address(location), MAX_SHOWN_CHARS)
            raise self._refused(f"web hook redirects to {shown}, which is not a URL") from error
        if place.scheme == "https" and following.scheme != "https":
            raise self._refused("web hook redirects from https to http: give the address that it redirects to")
        if following.origin != place.origin:
            headers = {name: value for name, value in headers.items() if name.lower() not in CREDENTIALS}
        return following, headers

    def _refused(self, reason: str) -> RejectedError:
        """Log the first refusal, as only their number is in the summary."""
        if not self._has_told:
            self._has_told = True
            logger.warning("%s; messages that are refused are counted as rejected", reason)
        return RejectedError(reason)


def _place_from_url(url: str) -> tuple[_Place, dict[str, str]]:
    """Return where a URL leads, and the headers for the user and password in it. Raises `ConfigError`."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError("the web hook is not a URL: expected http://host:port/path") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii() or not url.isprintable():
        raise ConfigError("the web hook is not an http or https URL: expected http://host/path")
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
        raise ValueError("a header holds a line end")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class _Received:
    """Bytes that came, in the form in which `http.client` wants a connection."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> BytesIO:
        """Return the bytes as a file."""
        return BytesIO(self._data)


def _head_of_answer(connection: socket.socket, deadline: float) -> tuple[int, str]:
    """Read until the head is complete; a server that sends it drop by drop has no more time than any other."""
    head = b""
    while b"\r\n\r\n" not in head and b"\n\n" not in head:
        if len(head) > MAX_HEAD_BYTES:
            raise http.client.HTTPException("the head of the answer is too long")
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
        raise TimeoutError("no complete answer in time")
    return left


def _check_public(address: str) -> None:
    if not ipaddress.ip_address(address.partition("%")[0]).is_global:
        raise PrivateAddressError(f"it redirects to {address}, an address inside a private network")


class PrivateAddressError(OSError):
    """A redirect leads to where only this machine or its network can go."""


def _ascii(text: str) -> str:
    return urllib.parse.quote(text, safe="/-_.")
