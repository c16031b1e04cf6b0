"""Bridge to a web hook: each message is posted as JSON, again and again until it is taken or refused."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.parse
import urllib.request

from engine.errors import ConfigError
from engine.wire import Message, kind_of, topic_of
from pipelines.stream.adapters.forms import Form, native
from pipelines.stream.bridges.base import RejectedError, TargetError

TIMEOUT_S = 5.0
TRY_AGAIN = frozenset((408, 425, 429))


class WebhookOutput:
    """Posts messages to a URL.

    A status of 2xx is success; 408, 425, 429, 5xx and failed connections are tried again with rising pauses; any
    other status rejects the message. The headers `X-Framewire-Kind` and `X-Framewire-Id` (engine, run, topic and
    number) let the receiver sort and recognise repetitions.

    Args:
        url: http or https.
        headers: to add, for example `Authorization`.
        timeout_s: for one attempt.
        form: makes the bodies.

    Raises:
        ConfigError: the URL is not http or https.
    """

    def __init__(
        self, url: str, *, headers: dict[str, str] | None = None, timeout_s: float = TIMEOUT_S, form: Form = native
    ) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https") or not urllib.parse.urlsplit(url).hostname:
            raise ConfigError("the web hook is not an http or https URL: expected http://host/path")
        self._url = url
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._timeout_s = timeout_s
        self._form = form

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

    def _post(self, body: bytes, headers: dict[str, str]) -> None:
        request = urllib.request.Request(self._url, body, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s):
                return
        except urllib.error.HTTPError as error:
            with error:
                if error.code >= 500 or error.code in TRY_AGAIN:
                    raise TargetError(f"web hook answered {error.code}") from error
                raise RejectedError(f"web hook refused a message with {error.code}") from error
        except (OSError, http.client.HTTPException) as error:
            raise TargetError(f"web hook cannot be reached: {error}") from error

    def turn(self) -> None:
        """Nothing is due."""

    def close(self) -> None:
        """Nothing to close."""


def _ascii(text: str) -> str:
    return urllib.parse.quote(text, safe="/-_.")
