"""Asks an ONVIF camera for the addresses of its streams, with a user and password.

Everything a camera answers is untrusted: answers are limited in size and time, XML with a document type is refused, and
a stream address counts only if it is RTSP on the host that was asked.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import secrets
import ssl
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit, urlunsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from engine.errors import SourceError
from engine.net.timed import TimedConnection
from engine.redaction import hide

MAX_ANSWER_BYTES = 256 * 1024
MAX_PROFILES = 32
TIMEOUT_S = 5.0
EXCHANGE_S = 30.0
MAX_AHEAD = timedelta(days=365 * 100)
_ENVELOPE = (
    '<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope">'
    "<s:Header>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>"
)
_SECURITY = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-"
_DEVICE = "http://www.onvif.org/ver10/device/wsdl"
_MEDIA = "http://www.onvif.org/ver10/media/wsdl"
_SCHEMA = "http://www.onvif.org/ver10/schema"


@dataclass(frozen=True, slots=True)
class CameraStream:
    """One stream of a camera.

    Attributes:
        uri: its address, without user and password.
        profile: the camera's name for it.
        encoding: of the video, such as `H264`.
        width: columns; 0 if the camera does not report it.
        height: rows; 0 if the camera does not report it.
    """

    uri: str
    profile: str
    encoding: str = ""
    width: int = 0
    height: int = 0


def camera_streams(
    service: str, user: str, password: str, timeout_s: float = TIMEOUT_S, exchange_s: float = EXCHANGE_S
) -> list[CameraStream]:
    """Return the streams of a camera, largest first.

    Args:
        service: address of its ONVIF device service, `http://HOST/onvif/device_service`.
        user: account of the camera, often a separate one for ONVIF.
        password: of the account.
        timeout_s: limit for each request, from connecting to the last byte of the answer.
        exchange_s: limit for all requests together.

    Raises:
        SourceError: it does not answer, refuses the password, or answers something else.
    """
    hide(password)
    try:
        parts = urlsplit(service)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or not (service.isascii() and service.isprintable()):
        raise SourceError(f"{service} is not an ONVIF service: expected http://HOST/onvif/device_service")
    camera = _Camera(host, user, password, timeout_s, time.monotonic() + exchange_s)
    camera.learn_clock(service)
    media = camera.media_service(service)
    streams = [stream for profile in camera.profiles(media) for stream in camera.stream_of(media, profile)]
    return sorted(streams, key=lambda stream: -stream.width * stream.height)


class _Camera:
    """The requests to one camera; its clock may differ from ours, and it refuses passwords with a wrong time."""

    def __init__(self, host: str, user: str, password: str, timeout_s: float, until: float) -> None:
        self._host, self._user, self._password = host, user, password
        self._timeout_s, self._until = timeout_s, until
        self._ahead = timedelta()

    def learn_clock(self, service: str) -> None:
        """Ask for the time, which needs no password."""
        answer = self._ask(service, f'<GetSystemDateAndTime xmlns="{_DEVICE}"/>', with_password=False)
        utc = answer.find(f".//{{{_SCHEMA}}}UTCDateTime")
        if utc is None:
            return
        parts = [("Date", part) for part in ("Year", "Month", "Day")]
        parts += [("Time", part) for part in ("Hour", "Minute", "Second")]
        texts = [utc.findtext(f"{{{_SCHEMA}}}{group}/{{{_SCHEMA}}}{part}") or "" for group, part in parts]
        try:
            year, month, day, hour, minute, second = map(int, texts)
            there = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)
            ahead = there - datetime.now(timezone.utc)
            self._ahead = ahead if abs(ahead) < MAX_AHEAD else timedelta()
        except (ValueError, OverflowError):
            self._ahead = timedelta()

    def media_service(self, service: str) -> str:
        """Return the address of the media service; its host is the one that was asked."""
        answer = self._ask(service, f'<GetCapabilities xmlns="{_DEVICE}"><Category>Media</Category></GetCapabilities>')
        address = answer.findtext(f".//{{{_SCHEMA}}}Media/{{{_SCHEMA}}}XAddr") or service
        asked, told = urlsplit(service), urlsplit(address.strip())
        return urlunsplit((asked.scheme, asked.netloc, told.path or asked.path, "", ""))

    def profiles(self, media: str) -> list[ElementTree.Element]:
        """Return the profiles, each a combination of camera and encoder."""
        answer = self._ask(media, f'<GetProfiles xmlns="{_MEDIA}"/>')
        return answer.findall(f".//{{{_MEDIA}}}Profiles")[:MAX_PROFILES]

    def stream_of(self, media: str, profile: ElementTree.Element) -> list[CameraStream]:
        """Return the stream of a profile, nothing if its address is not one on this camera."""
        token = profile.get("token") or ""
        protocol = f'<Transport xmlns="{_SCHEMA}"><Protocol>RTSP</Protocol></Transport>'
        setup = f'<Stream xmlns="{_SCHEMA}">RTP-Unicast</Stream>{protocol}'
        answer = self._ask(
            media,
            f'<GetStreamUri xmlns="{_MEDIA}"><StreamSetup>{setup}</StreamSetup>'
            f"<ProfileToken>{escape(token)}</ProfileToken></GetStreamUri>",
        )
        uri = (answer.findtext(f".//{{{_SCHEMA}}}Uri") or "").strip()
        place = self._checked(uri)
        if place is None:
            return []
        name = profile.findtext(f"{{{_SCHEMA}}}Name") or token
        encoder = profile.find(f"{{{_SCHEMA}}}VideoEncoderConfiguration")
        size = ("Width", "Height")
        width, height = (_number(encoder, f"{{{_SCHEMA}}}Resolution/{{{_SCHEMA}}}{part}") for part in size)
        encoding = "" if encoder is None else encoder.findtext(f"{{{_SCHEMA}}}Encoding") or ""
        return [CameraStream(place, name[:64], encoding[:16], width, height)]

    def _checked(self, uri: str) -> str | None:
        """Return a stream address on this camera without user and password; None for any other."""
        try:
            parts = urlsplit(uri)
            port = parts.port
        except ValueError:
            return None
        if parts.scheme not in ("rtsp", "rtsps") or not uri.isprintable() or len(uri) > 1024:
            return None
        host = f"[{self._host}]" if ":" in self._host else self._host
        return urlunsplit((parts.scheme, f"{host}:{port}" if port else host, parts.path, parts.query, ""))

    def _ask(self, address: str, body: str, *, with_password: bool = True) -> ElementTree.Element:
        text = _ENVELOPE.format(header=self._token() if with_password else "", body=body)
        until = min(time.monotonic() + self._timeout_s, self._until)
        try:
            status, answer = _posted(address, text.encode(), until)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise SourceError(
                f"{self._host} does not answer ONVIF ({error}): is ONVIF enabled in the camera?"
            ) from error
        if status in (400, 401, 403) or (status != 200 and b"NotAuthorized" in answer):
            raise SourceError(f"{self._host} refuses the user and password for ONVIF: see its settings")
        if status != 200:
            raise SourceError(f"{self._host} answers ONVIF with status {status}")
        return _parsed(answer, self._host)

    def _token(self) -> str:
        """Return the header that proves the password without sending it."""
        nonce = secrets.token_bytes(16)
        created = (datetime.now(timezone.utc) + self._ahead).strftime("%Y-%m-%dT%H:%M:%SZ")
        digest = hashlib.sha1(
            nonce + created.encode() + self._password.encode()
        ).digest()  # the standard requires SHA-1
        kind = f"{_SECURITY}username-token-profile-1.0#PasswordDigest"
        return (
            f'<Security xmlns="{_SECURITY}wssecurity-secext-1.0.xsd"><UsernameToken>'
            f"<Username>{escape(self._user)}</Username>"
            f'<Password Type="{kind}">{base64.b64encode(digest).decode()}</Password>'
            f"<Nonce>{base64.b64encode(nonce).decode()}</Nonce>"
            f'<Created xmlns="{_SECURITY}wssecurity-utility-1.0.xsd">{created}</Created>'
            "</UsernameToken></Security>"
        )


def _posted(address: str, body: bytes, until: float) -> tuple[int, bytes]:
    """Return the status and the body of an answer, cut off beyond the limit.

    A redirect is not followed, because a camera must not send the password elsewhere.
    """
    parts = urlsplit(address)
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    connection = TimedConnection(parts.hostname or "", parts.port or (443 if tls else 80), until, tls)
    with closing(connection):
        path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        connection.request("POST", path, body, {"Content-Type": "application/soap+xml; charset=utf-8"})
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_ANSWER_BYTES + 1)


def _parsed(answer: bytes, host: str) -> ElementTree.Element:
    if len(answer) > MAX_ANSWER_BYTES or b"<!" in answer:
        raise SourceError(f"{host} sends an invalid ONVIF answer: too long, or with a document type")
    try:
        return ElementTree.fromstring(answer)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise SourceError(f"{host} answers ONVIF with something that is not XML ({error})") from error


def _number(element: ElementTree.Element | None, path: str) -> int:
    text = "" if element is None else element.findtext(path) or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
