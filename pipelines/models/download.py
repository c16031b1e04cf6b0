"""Downloads a file from an address into a folder: verified by hash, resumable, and never left half-written.

The server is not trusted: it may be slow, stop halfway, send too much or something different, or redirect. The file
gets its name only after its SHA-256 has been verified; until then it is `NAME.part`, which the next attempt continues.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import math
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from engine.catalogue import Download
from engine.clock import SystemClock
from engine.errors import ConfigError, EngineError
from engine.net.timed import left, timed
from engine.paths import how_to_write

SILENCE_S = 30.0
"""Seconds without a byte after which the server is considered gone."""
PACE_S = 60.0
PACE_BYTES = 16 * 1024
"""A server must send this much within `PACE_S`, so that sending single bytes now and then cannot stall a download."""
_BLOCK = 64 * 1024
_MAX_REDIRECTS = 5
Progress = Callable[[int, int], None]


class DownloadError(EngineError):
    """The file could not be downloaded; what has arrived is kept for the next attempt."""


class _WrongContentError(DownloadError):
    """The download is complete, but its content is wrong."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server may take.

    Attributes:
        silence_s: seconds without a byte.
        pace_s: seconds in which `pace_bytes` must arrive.
        pace_bytes: number of bytes that must arrive within `pace_s`.
    """

    silence_s: float = SILENCE_S
    pace_s: float = PACE_S
    pace_bytes: int = PACE_BYTES


def fetch(
    wanted: Download,
    place: Path,
    *,
    address: str | None = None,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> bool:
    """Put a file at `place`, and return whether anything had to be downloaded.

    Args:
        wanted: address, hash and size.
        place: where the file goes; its folder is created.
        address: another address of the same content (a mirror, `http` allowed); the hash is checked in any case.
        progress: called with the bytes present and the total bytes.
        patience: how long the server may take.

    Raises:
        DownloadError: the server cannot be reached, stops, is too slow, or sends something different.
        ConfigError: the folder cannot be written, or another process is downloading the same file.
    """
    if is_right(place, wanted):
        return False
    part = place.with_name(place.name + ".part")
    with _sole_writer(part) as file:
        try:
            _fill(
                file, wanted, address or wanted.address, progress or (lambda done, total: None), patience or Patience()
            )
        except OSError as error:
            raise DownloadError(
                f"{part}: cannot be written: {error.strerror or error}: {how_to_write(error)}"
            ) from error
        os.replace(part, place)
    return True


def take(wanted: Download, file: Path, place: Path) -> bool:
    """Copy a file that the user already has to `place`, if its content is correct. Raises `DownloadError`."""
    if is_right(place, wanted):
        return False
    if not file.is_file():
        raise ConfigError(f"{file}: no such file")
    with file.open("rb") as given, _sole_writer(place.with_name(place.name + ".part")) as part:
        part.truncate(0)
        content = given.read(wanted.bytes + 1)
        if len(content) != wanted.bytes or hashlib.sha256(content).hexdigest() != wanted.sha256:
            os.unlink(part.name)
            raise DownloadError(f"{file}: not the file at {wanted.address}: its SHA-256 or size differs")
        part.write(content)
        _settle(part)
        os.replace(part.name, place)
    return True


def is_right(place: Path, wanted: Download) -> bool:
    """Return whether a file exists and has the hash."""
    if not place.is_file() or place.stat().st_size != wanted.bytes:
        return False
    with place.open("rb") as file:
        return _digest(file) == wanted.sha256


@contextmanager
def _sole_writer(part: Path) -> Iterator[IO[bytes]]:
    """Open the unfinished file for this process alone."""
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        file = part.open("ab+")
    except OSError as error:
        remedy = "set FRAMEWIRE_MODELS to your own folder"
        raise ConfigError(f"{part.parent}: cannot be written ({error.strerror}): {remedy}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"{part}: another process is downloading this file: wait for it") from None
        yield file


def _fill(file: IO[bytes], wanted: Download, address: str, progress: Progress, patience: Patience) -> None:
    """Complete the unfinished file; start over once if its earlier content turns out to be wrong."""
    had = min(file.seek(0, os.SEEK_END), wanted.bytes)
    try:
        _append(file, wanted, address, progress, patience)
        _check(file, wanted, address)
    except _WrongContentError:
        file.truncate(0)
        if not had:
            raise
        _append(file, wanted, address, progress, patience)
        try:
            _check(file, wanted, address)
        except _WrongContentError:
            file.truncate(0)
            raise
    _settle(file)


def _append(file: IO[bytes], wanted: Download, address: str, progress: Progress, patience: Patience) -> None:
    """Download the missing end of the file."""
    start = file.seek(0, os.SEEK_END)
    if start > wanted.bytes:
        start = file.truncate(0)
    if start == wanted.bytes:
        return
    host = urlsplit(address).hostname or address
    try:
        with _opened(address, start, patience.silence_s) as answer:
            start = _continues_at(answer, start)
            file.truncate(start)
            file.seek(start)
            _copy(answer, file, start, wanted, progress, patience)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            raise _WrongContentError(f"{host}: has no byte {start}") from error
        raise DownloadError(f"{host} answered {error.code} {error.reason}: {_later(address)}") from error
    except urllib.error.URLError as error:
        raise DownloadError(f"{host} cannot be reached ({error.reason}): {_later(address)}") from error
    except (TimeoutError, http.client.HTTPException, ConnectionError, ssl.SSLError) as error:
        got = file.seek(0, os.SEEK_END)
        why = str(error) or type(error).__name__
        raise DownloadError(f"{host} stopped after {got} of {wanted.bytes} bytes ({why}): {_again()}") from error


def _opened(address: str, start: int, silence_s: float) -> Any:
    """Return the answer of the server. Proxies come from the environment, as for other programs."""
    if urlsplit(address).scheme not in ("http", "https"):
        raise ConfigError(f"{address}: expected an address that begins with https:// or http://")
    headers = {"User-Agent": "framewire", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    head = _Head(silence_s)
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Http(head),
        _Https(head),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    answer = opener.open(urllib.request.Request(address, headers=headers), timeout=silence_s)
    head.until = math.inf
    return answer


class _Head:
    """The heads of an answer and of the redirects before it must arrive within `silence_s`, not only each byte."""

    def __init__(self, silence_s: float) -> None:
        self._silence_s, self.until = silence_s, time.monotonic() + silence_s

    def connection(self, kind: Any, host: str, **named: Any) -> Any:
        """Return a connection of `http.client`."""
        connection = kind(host, **named)
        connection.response_class = self._response
        return connection

    def _response(self, sock: Any, *args: Any, **named: Any) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, *args, **named)
        return timed(response, sock, lambda: min(left(self.until), self._silence_s))


class _Http(urllib.request.HTTPHandler):
    def __init__(self, head: _Head) -> None:
        super().__init__()
        self._head = head

    def http_open(self, req: Any) -> Any:
        return self.do_open(partial(self._head.connection, http.client.HTTPConnection), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, head: _Head) -> None:
        super().__init__()
        self._head = head

    def https_open(self, req: Any) -> Any:
        return self.do_open(partial(self._head.connection, http.client.HTTPSConnection), req)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, but none from an encrypted address to an unencrypted one."""

    max_redirections = _MAX_REDIRECTS

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Return the next request."""
        schemes = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in schemes:
            raise DownloadError(f"{req.host} redirects to {newurl[:80]!r}: only {' and '.join(schemes)} is followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _continues_at(answer: Any, start: int) -> int:
    """Return where in the file the body of the answer begins; 0 if the server sends all of it."""
    if answer.status != http.client.PARTIAL_CONTENT:
        return 0
    said = str(answer.headers.get("Content-Range", ""))
    if not said.startswith(f"bytes {start}-"):
        raise _WrongContentError(f"asked for the bytes from {start}, the server sends {said[:60]!r}")
    return start


def _copy(answer: Any, file: IO[bytes], done: int, wanted: Download, progress: Progress, patience: Patience) -> None:
    begin, before = SystemClock().monotonic_ns(), done
    while block := answer.read1(_BLOCK):
        done += len(block)
        if done > wanted.bytes:
            raise _WrongContentError(f"the server sends more than {wanted.bytes} bytes")
        file.write(block)
        progress(done, wanted.bytes)
        passed_s = (SystemClock().monotonic_ns() - begin) / 1e9
        if passed_s < patience.pace_s:
            continue
        if done - before < patience.pace_bytes:
            raise TimeoutError(f"only {done - before} bytes in {passed_s:.0f} s")
        begin, before = SystemClock().monotonic_ns(), done
    if done < wanted.bytes:
        raise ConnectionError("the connection was closed")


def _check(file: IO[bytes], wanted: Download, address: str) -> None:
    file.flush()
    found = _digest(file)
    if found != wanted.sha256:
        host = urlsplit(address).hostname
        raise _WrongContentError(
            f"what {host} sent has SHA-256 {found[:16]}…, expected {wanted.sha256[:16]}…: nothing was kept. "
            "The file was changed, or a portal on the way answered in its place"
        )


def _digest(file: IO[bytes]) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _settle(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _again() -> str:
    return "run the same command to continue"


def _later(address: str) -> str:
    return f"try again, or download {address} elsewhere and give it with --from FILE"
