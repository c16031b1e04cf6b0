"""The interface of a connection to an inference server, independent of its protocol, and its errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from engine.backends.base import TensorSpec

MAX_TENSORS = 64
MAX_DIMENSIONS = 8
MAX_OUTPUT_BYTES = 512 * 1024 * 1024


class UnreachableError(Exception):
    """No server answers there, or it closed the connection: another one may answer."""


class BusyServerError(Exception):
    """The server is alive, but accepts no more requests for now.

    Attributes:
        retry_after_s: when to try again.
    """

    def __init__(self, reason: str, retry_after_s: float) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Endpoint(Protocol):
    """One connection to one server, used by one thread at a time."""

    def metadata(self) -> Mapping[str, Any]:
        """Return the model's metadata: `inputs`, `outputs`, and `parameters` where the server has them.

        Raises:
            UnreachableError: no answer.
            ModelError: the server does not have the model, or its answer is invalid.
        """

    def infer(
        self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[TensorSpec], timeout_s: float
    ) -> list[NDArray[Any]]:
        """Return the outputs of one inference, (b, ...) each, in the order of `outputs`.

        Args:
            feeds: (b, ...) arrays by the names of the model's inputs.
            outputs: the wanted ones.
            timeout_s: for request and answer together.

        Raises:
            TimeoutError: the answer did not arrive in time and will be discarded.
            UnreachableError: no connection, or the server closed it or failed.
            BusyServerError: it accepts no more requests for now.
            ModelError: the server refuses the request, or its answer does not fit the model.
        """

    def close(self) -> None:
        """End the connection; the next call makes a new one."""

    def end(self) -> None:
        """End the connection for good, and give back what the server holds for it."""
