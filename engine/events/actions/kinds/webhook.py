"""Posts a signed message to a URL, with the image if there is one."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import ssl
import urllib.parse
from collections.abc import Mapping

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.events.actions.base import DeliveryError, DeliveryRefusedError, Notice
from engine.redaction import hide
from engine.transport.post import TIMEOUT_S, Poster, PostError, PostRefusedError

SIGNATURE = "X-Framewire-Signature"


class WebhookAction:
    """Posts JSON, or a form with `event` (JSON) and `picture` (JPEG) where there is an image.

    `Idempotency-Key` is the same for every attempt. `X-Framewire-Signature` is `t=<unix seconds>,v1=<hex>`: HMAC-SHA256
    of `<unix seconds>.` and the body. A receiver should verify it, reject old times, and drop keys that it has seen.

    Args:
        url: http or https; user and password in it become basic credentials.
        hmac_key: signs the body; empty: no signature.
        headers: additional headers.
        timeout_s: limit for one attempt.
        private_redirects: follow redirects to other hosts on private networks.
        tls: how to verify the server; None: the system's certificates.
        clock: wall clock of the signature.

    Raises:
        ConfigError: the URL is not http or https.
    """

    def __init__(
        self,
        url: str,
        *,
        hmac_key: str = "",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        private_redirects: bool = False,
        tls: ssl.SSLContext | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._poster = Poster(url, headers=headers, timeout_s=timeout_s, private_redirects=private_redirects, tls=tls)
        if hmac_key:
            hide(hmac_key)
        self._key = hmac_key.encode()
        self._clock = clock

    def send(self, notice: Notice) -> None:
        """Post the message. Raises `DeliveryError` or `DeliveryRefusedError`."""
        text = json.dumps(dict(notice.body), separators=(",", ":")).encode()
        kind, body = ("application/json", text) if not notice.picture else _form(text, notice.picture)
        headers = {"Content-Type": kind, "Idempotency-Key": urllib.parse.quote(notice.key, safe="/-_.")}
        if self._key:
            headers[SIGNATURE] = signature(self._key, body, self._clock.utc_ns() // NS_PER_S)
        try:
            self._poster.post(body, headers)
        except PostError as error:
            raise DeliveryError(str(error)) from error
        except PostRefusedError as error:
            raise DeliveryRefusedError(str(error)) from error

    def close(self) -> None:
        """Do nothing: each message has its own connection."""


def signature(key: bytes, body: bytes, unix_s: int) -> str:
    """Return the value of `X-Framewire-Signature`.

    >>> signature(b"key", b"{}", 1700000000)
    't=1700000000,v1=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae'
    """
    digest = hmac.new(key, f"{unix_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={unix_s},v1={digest}"


def _form(text: bytes, picture: bytes) -> tuple[str, bytes]:
    """Return the content type and body of a form with the message and its image."""
    boundary = secrets.token_hex(16)
    event = b'Content-Disposition: form-data; name="event"\r\nContent-Type: application/json\r\n\r\n' + text
    file = b'Content-Disposition: form-data; name="picture"; filename="event.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    line = f"--{boundary}".encode()
    body = b"\r\n".join((line, event, line, file + picture, line + b"--", b""))
    return f"multipart/form-data; boundary={boundary}", body
