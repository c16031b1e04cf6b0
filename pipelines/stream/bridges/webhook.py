"""Bridge to a webhook: posts each message as JSON, and retries until it is accepted or refused."""

from __future__ import annotations

import logging
import ssl
import urllib.parse
from collections.abc import Mapping

from engine.transport.post import TIMEOUT_S, Poster, PostError, PostRefusedError
from engine.wire import Message, kind_of, topic_of
from pipelines.stream.adapters.forms import Form, native
from pipelines.stream.bridges.base import RejectedError, TargetError

logger = logging.getLogger(__name__)


class WebhookOutput:
    """Posts messages to a URL.

    A status of 2xx is success; 408, 425, 429, 5xx and failed connections are retried with increasing pauses; any other
    status rejects the message. The headers `X-Framewire-Kind` and `X-Framewire-Id` (engine, run, topic and number) let
    the receiver sort messages and recognise repetitions.

    Redirects are followed with the same method and body, at most three times. They never lead from https to http, never
    carry credentials to another host or port, and never reach another address inside private networks.

    Args:
        url: http or https; user and password in it become basic credentials.
        headers: additional headers, for example `Authorization`.
        timeout_s: limit for one attempt, from connecting to the last byte of the response head.
        form: formats the bodies.
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
        form: Form = native,
        private_redirects: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._poster = Poster(url, headers=headers, timeout_s=timeout_s, private_redirects=private_redirects, tls=tls)
        self._form = form
        self._has_told = False

    def open(self) -> None:
        """Do nothing: each message has its own connection."""

    def send(self, message: Message) -> None:
        """Post one message and wait for the response.

        Raises:
            TargetError: a retry may help.
            RejectedError: the receiver refuses it.
        """
        identity = f"{message.engine_id}/{message.run_epoch}/{topic_of(message)}{message.seq}"
        headers = {"X-Framewire-Kind": kind_of(message), "X-Framewire-Id": _ascii(identity)}
        for body in self._form(message):
            try:
                self._poster.post(body, headers)
            except PostError as error:
                raise TargetError(str(error)) from error
            except PostRefusedError as error:
                raise self._refused(str(error)) from error

    def interrupt(self) -> None:
        """Interrupt a wait with `KeyboardInterrupt`; call it in a signal handler on the sending thread."""
        if self._poster.is_waiting:
            raise KeyboardInterrupt

    def turn(self) -> None:
        """Do nothing: there is no periodic work."""

    def close(self) -> None:
        """Do nothing: no connection stays open."""

    def _refused(self, reason: str) -> RejectedError:
        """Log the first refusal, because the summary contains only their number."""
        if not self._has_told:
            self._has_told = True
            logger.warning("%s; refused messages are counted as rejected", reason)
        return RejectedError(reason)


def _ascii(text: str) -> str:
    return urllib.parse.quote(text, safe="/-_.")
