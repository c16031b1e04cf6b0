"""The Open Inference Protocol over HTTP, with tensors as bytes after the JSON, copied in neither direction."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import TensorSpec
from engine.backends.remote.address import Host, RemoteModel
from engine.backends.remote.datatypes import DATATYPE_BY_DTYPE
from engine.backends.remote.endpoint import MAX_OUTPUT_BYTES, BusyServerError, UnreachableError
from engine.backends.remote.shared import (
    EXTENSION,
    LOST,
    REGIONS,
    SharedInputs,
    is_switched_off,
    is_this_host,
    restricted_headers,
)
from engine.errors import ModelError
from engine.net.timed import TimedConnection, left
from engine.redaction import hide, printable

logger = logging.getLogger(__name__)
TOKEN_VARIABLE = "FRAMEWIRE_KSERVE_TOKEN"
HEADER_LENGTH = "Inference-Header-Content-Length"
METADATA_S = 5.0
CONNECT_S = 2.0
MAX_JSON_BYTES = 1024 * 1024
MAX_REASON_CHARS = 300
PIECE = 256 * 1024
BUSY = (429, 503)
LOADING = ("unknown model", "no available versions", "not ready", "unavailable")
MAX_RETRY_S = 5.0
FORGET_S = 1.0


class HttpEndpoint:
    """A persistent connection, reopened when the server has closed it.

    Args:
        model: the model to run.
        host: the server to connect to.
    """

    def __init__(self, model: RemoteModel, host: Host) -> None:
        self._host, self._is_secure = host, model.protocol == "https"
        version = f"/versions/{model.version}" if model.version else ""
        self._path = f"/v2/models/{quote(model.name)}{version}"
        self._connection: TimedConnection | None = None
        self._headers = {"Host": str(host), "User-Agent": "framewire"}
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if token:
            hide(token)
            self._headers["Authorization"] = f"Bearer {token}"
        self._restricted = restricted_headers()
        hide(*self._restricted.values())
        may_share = is_this_host(host) and not is_switched_off()
        self._shared = SharedInputs() if may_share else None
        self._is_sharing: bool | None = None if may_share else False

    def metadata(self) -> Mapping[str, Any]:
        """Return the model's metadata; see `Endpoint`."""
        found = self._json("")
        if "parameters" in found:
            return found
        try:  # Triton has parameters in its configuration instead; other servers have neither
            parameters = self._json("/config").get("parameters")
        except ModelError:
            parameters = None
        rows = parameters.items() if isinstance(parameters, dict) else ()
        return {**found, "parameters": {key: row.get("string_value") for key, row in rows if isinstance(row, dict)}}

    def infer(
        self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[TensorSpec], timeout_s: float
    ) -> list[NDArray[Any]]:
        """Return the outputs of one inference, (b, ...) each. Raises as `Endpoint.infer`."""
        until = time.monotonic() + timeout_s
        rows = self._shared_rows(feeds, until)
        head, pieces = _request(feeds, outputs) if rows is None else (_json_of(rows, outputs), [])
        length = len(head) + sum(len(piece) for piece in pieces)
        headers = {
            "Content-Type": "application/octet-stream",
            HEADER_LENGTH: str(len(head)),
            "Content-Length": str(length),
        }
        path, left_s = f"{self._path}/infer", left(until)
        try:
            with self._answer("POST", path, headers, [head, *pieces], left_s) as answer:
                return self._outputs(answer, outputs)
        except ModelError as error:
            if self._shared is not None and rows is not None and LOST in str(error):
                self._shared.lose()  # the server was restarted
                raise UnreachableError(str(error)) from error
            raise

    def _shared_rows(self, feeds: Mapping[str, NDArray[Any]], until: float) -> list[dict[str, Any]] | None:
        """Return how a request names inputs in shared memory, None where they are sent as bytes."""
        if self._shared is None or self._is_sharing is False:
            return None
        try:
            if self._is_sharing is None:
                found = self._json_of_path("/v2").get("extensions")
                self._is_sharing = isinstance(found, list) and EXTENSION in found
            if not self._is_sharing:
                return None
            return self._shared.rows(feeds, lambda name, size: self._register(name, size, until), self._forget)
        except (ModelError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            logger.info("%s: images are sent over HTTP, not shared: %s", self._host, error)
            self._is_sharing = False
            return None

    def _register(self, name: str, size: int, until: float) -> None:
        body = json.dumps({"key": f"/{name}", "offset": 0, "byte_size": size}).encode()
        self._post(f"{REGIONS}/{name}/register", body, left(until))

    def _forget(self, name: str) -> None:
        with suppress(ModelError, UnreachableError, BusyServerError, TimeoutError):
            self._post(f"{REGIONS}/{name}/unregister", b"{}", FORGET_S)

    def _post(self, path: str, body: bytes, timeout_s: float) -> None:
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **self._restricted}
        with self._answer("POST", path, headers, [body], timeout_s) as answer:
            self._read(answer, MAX_JSON_BYTES)

    def end(self) -> None:
        """Give back what the server holds for this connection, and end it."""
        if self._shared is not None:
            self._shared.end(self._forget)
        self.close()

    def close(self) -> None:
        """End the connection."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for an answer
        connection.close()

    def _json(self, path: str) -> dict[str, Any]:
        return self._json_of_path(self._path + path)

    def _json_of_path(self, path: str) -> dict[str, Any]:
        try:
            with self._answer("GET", path, {}, [], METADATA_S) as answer:
                found = json.loads(self._read(answer, MAX_JSON_BYTES))
        except TimeoutError as error:
            raise UnreachableError(f"{self._host} does not answer") from error
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{self._host}{path}: the answer is not JSON: is it an inference server?") from error
        if not isinstance(found, dict):
            raise ModelError(f"{self._host}{path}: expected a JSON object")
        return found

    @contextmanager
    def _answer(
        self, method: str, path: str, headers: Mapping[str, str], pieces: Sequence[Any], timeout_s: float
    ) -> Iterator[HTTPResponse]:
        """Yield the answer to a request, to be read within the timeout; a failure closes the connection."""
        until = time.monotonic() + timeout_s
        try:
            with closing(self._exchange(method, path, headers, pieces, until)) as answer:
                if answer.status != 200:
                    self._refused(answer, path)
                yield answer
        except TimeoutError:
            self.close()
            raise
        except (OSError, HTTPException) as error:
            self.close()
            raise UnreachableError(
                f"{self._host}: {getattr(error, 'strerror', None) or error or 'broke off'}"
            ) from error
        except BaseException:
            self.close()
            raise

    def _exchange(
        self, method: str, path: str, headers: Mapping[str, str], pieces: Sequence[Any], until: float
    ) -> HTTPResponse:
        """Send a request, once more on a new connection if the server had closed the kept one."""
        kept = self._connection
        try:
            return self._send(method, path, headers, pieces, until)
        except TimeoutError:
            raise
        except (OSError, HTTPException):
            is_ours = kept is not None and self._connection is kept  # otherwise another thread has ended it
            self.close()
            if not is_ours:
                raise
            return self._send(method, path, headers, pieces, until)

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], pieces: Sequence[Any], until: float
    ) -> HTTPResponse:
        connection = self._connection
        if connection is None or connection.sock is None:  # the last answer may have ended it
            connection = self._connect(until)
        connection.until = until
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {**self._headers, **headers}.items():
            connection.putheader(name, value)
        connection.endheaders(pieces[0] if pieces else None)
        for piece in pieces[1:]:
            connection.send(piece)
        return connection.getresponse()

    def _connect(self, until: float) -> TimedConnection:
        soon = time.monotonic() + min(left(until), CONNECT_S)
        tls = ssl.create_default_context() if self._is_secure else None
        connection = TimedConnection(self._host.name, self._host.port, soon, tls)
        try:
            connection.connect()
        except TimeoutError as error:  # the answer is not late yet: another server may still succeed
            raise ConnectionError("does not accept connections") from error
        self._connection = connection
        return connection

    def _read(self, answer: HTTPResponse, most: int) -> bytes:
        found = bytearray()
        while piece := answer.read1(PIECE):
            found += piece
            if len(found) > most:
                raise ModelError(f"{self._host}: the answer has more than {most} bytes")
        return bytes(found)

    def _refused(self, answer: HTTPResponse, path: str) -> None:
        """Raise the error that an answer other than 200 stands for."""
        text = self._read(answer, MAX_JSON_BYTES).decode("utf-8", "replace")
        with suppress(ValueError, AttributeError, RecursionError):
            text = str(json.loads(text).get("error", text))
        reason = f"{self._host}{path}: {answer.status} {printable(text, MAX_REASON_CHARS)}"
        if answer.status in BUSY:
            wait = answer.getheader("Retry-After") or ""
            raise BusyServerError(reason, min(float(wait), MAX_RETRY_S) if wait.isascii() and wait.isdigit() else 0.1)
        is_loading = answer.status == 400 and any(words in text for words in LOADING)
        if answer.status >= 500 or is_loading or (answer.status == 404 and path.endswith("/infer")):
            raise UnreachableError(reason)  # a restarting server does not know the model yet
        raise ModelError(reason)

    def _outputs(self, answer: HTTPResponse, outputs: Sequence[TensorSpec]) -> list[NDArray[Any]]:
        size = answer.getheader(HEADER_LENGTH) or ""
        if not (size.isascii() and size.isdigit()) or int(size) > MAX_JSON_BYTES:
            raise ModelError(f"{self._host}: the answer has no tensors as bytes: the server lacks the binary extension")
        try:
            rows = {row["name"]: row for row in json.loads(self._exactly(answer, int(size)))["outputs"]}
            order = list(rows)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ModelError(
                f"{self._host}: the answer is not one of the Open Inference Protocol: {error!r}"
            ) from error
        by_name = {spec.name: spec for spec in outputs}
        found = {name: self._tensor(answer, by_name.get(name), rows[name]) for name in order}
        if set(found) != set(by_name):
            raise ModelError(f"{self._host}: the answer has {sorted(found)}: expected {sorted(by_name)}")
        return [found[spec.name] for spec in outputs]

    def _tensor(self, answer: HTTPResponse, spec: TensorSpec | None, row: Any) -> NDArray[Any]:
        if spec is None or not fits(spec, row.get("shape"), row.get("datatype")):
            raise ModelError(f"{self._host}: the answer has {printable(str(row), MAX_REASON_CHARS)}: expected {spec}")
        array = np.empty(row["shape"], spec.dtype)
        parameters = row.get("parameters")
        if not isinstance(parameters, dict) or parameters.get("binary_data_size") != array.nbytes:
            raise ModelError(f"{self._host}: {spec.name} has a number of bytes that does not match its shape")
        self._fill(answer, _bytes_of(array))
        return array

    def _exactly(self, answer: HTTPResponse, count: int) -> bytes:
        data = bytearray(count)
        self._fill(answer, memoryview(data))
        return bytes(data)

    def _fill(self, answer: HTTPResponse, view: memoryview) -> None:
        while len(view):
            count = answer.readinto(view[:PIECE])
            if not count:
                raise HTTPException("the answer is cut off")
            view = view[count:]


def fits(spec: TensorSpec, shape: Any, datatype: Any) -> bool:
    """Return whether a tensor of an answer matches the model's metadata and is not too large."""
    if datatype != DATATYPE_BY_DTYPE.get(spec.dtype) or not isinstance(shape, list) or len(shape) != len(spec.shape):
        return False
    if not all(type(size) is int and size >= 0 for size in shape):
        return False
    is_same = all(want is None or want == got for want, got in zip(spec.shape, shape, strict=True))
    return is_same and math.prod(shape) * np.dtype(spec.dtype).itemsize <= MAX_OUTPUT_BYTES


def _request(feeds: Mapping[str, NDArray[Any]], outputs: Sequence[TensorSpec]) -> tuple[bytes, list[memoryview]]:
    """Return the JSON of a request, and the bytes of its tensors without copying them."""
    inputs: list[dict[str, Any]] = []
    pieces = []
    for name, array in feeds.items():
        data = _bytes_of(np.ascontiguousarray(array))
        parameters = {"binary_data_size": len(data)}
        datatype = DATATYPE_BY_DTYPE[array.dtype.name]
        inputs.append({"name": name, "shape": list(array.shape), "datatype": datatype, "parameters": parameters})
        pieces.append(data)
    return _json_of(inputs, outputs), pieces


def _json_of(inputs: list[dict[str, Any]], outputs: Sequence[TensorSpec]) -> bytes:
    wanted = [{"name": spec.name, "parameters": {"binary_data": True}} for spec in outputs]
    return json.dumps({"inputs": inputs, "outputs": wanted}).encode()


def _bytes_of(array: NDArray[Any]) -> memoryview:
    """Return the bytes of a contiguous array, without a copy."""
    plain: Any = array.reshape(-1).view(np.uint8)
    return memoryview(plain)
