"""Reasons for not serving a request, as exceptions that carry the status of the answer."""

from __future__ import annotations

from engine.errors import EngineError


class RefusedError(EngineError):
    """A request that is not served.

    Attributes:
        status: of HTTP.
        retry_after_s: when to try again; None: do not repeat this request.
    """

    status = 400

    def __init__(self, reason: str, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.status = self.status if status is None else status
        self.retry_after_s = retry_after_s


class BusyError(RefusedError):
    """The server is fully loaded: the client should try again later."""

    status = 429


class NotReadyError(RefusedError):
    """The model is still being loaded."""

    status = 503
