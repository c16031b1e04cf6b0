"""Fetches HLS playlists, segments and keys in place of FFmpeg, which verifies only the server of the first playlist.

Every server must present a trusted certificate, nothing leads from https to http, and the user, password and headers of
the camera's address go only to its own host and port. Imports no numpy.
"""

from __future__ import annotations

import ctypes
import http.client
import http.cookiejar
import io
import logging
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from engine.clock import pause
from engine.video.address import VideoAddress
from engine.video.playlist.renewal import BEGINS_AGAIN, Renewal
from engine.video.playlist.segment import PIECE_BYTES, Body, Segment
from engine.video.trust import default_bundle, untrusted_server
from engine.video.uri import scheme_of

logger = logging.getLogger(__name__)
MAX_PLAYLIST_BYTES = 8 * 1024 * 1024
MAX_SKIPPED = 5
DEFAULT_TIMEOUT_S = 20.0
USER_AGENT = "Lavf/61.7.100"  # some servers refuse unknown clients
BLOCK = 16
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
RETRY_S = (0.5, 1.0, 2.0, 2.0)
"""Delays before retrying a server that was read before and fails briefly: a new connection would begin at the newest
segment and lose the ones before."""
_URI = re.compile(r'URI="([^"]{1,4096})"')
_STATUS = {
    400: "HTTPBadRequestError",
    401: "HTTPUnauthorizedError",
    403: "HTTPForbiddenError",
    404: "HTTPNotFoundError",
}
_Origin = tuple[str, str, int]


class PlaylistFetcher:
    """Opens the addresses that FFmpeg requests while it reads one playlist; pass it to `av.open` as `io_open`.

    A segment that the server no longer has is skipped, as FFmpeg does; after `MAX_SKIPPED` in a row the stream fails. A
    server that fails briefly is retried (`RETRY_S`).

    Args:
        target: the playlist's address, its options and its trust settings.

    Attributes:
        failure: the error that ended it; after that, all reads are empty.
    """

    def __init__(self, target: VideoAddress) -> None:
        parts = urllib.parse.urlsplit(target.url)
        self._home = _origin(parts)
        self._timeout_s = target.read_timeout_s or DEFAULT_TIMEOUT_S
        self._headers = _headers(target.ffmpeg)
        self._opener = _opener(target, parts)
        self._skipped = 0
        self._has_played = False
        self._renewal = Renewal()
        self.failure: Exception | None = None

    def __call__(self, url: str, flags: int, options: Mapping[str, str]) -> Body:
        """Return the content at a URL.

        Raises:
            UntrustedServerError: its certificate is not trusted.
            av.error.HTTPError, OSError: the server refused, or cannot be reached.
        """
        if self.failure is not None:
            return io.BytesIO()  # PyAV has raised it, or will; FFmpeg continues for a moment
        try:
            return self._content(url, options)
        except Exception as error:
            self.failure = error
            raise

    def _content(self, url: str, options: Mapping[str, str]) -> Body:
        address = url.removeprefix("crypto+").removeprefix("crypto:")
        if scheme_of(address) not in ("http", "https"):
            raise PermissionError(13, "a playlist from the network may only name http and https addresses")
        try:
            body = self._opened_at_last(address, options)
        except urllib.error.HTTPError as error:
            return self._skip(address, error)
        self._skipped = 0
        if isinstance(body, io.BytesIO):
            return body
        self._has_played = True
        if address != url:
            body = _Decrypted(body, bytes.fromhex(options["key"]), bytes.fromhex(options["iv"]))
        # of one file; its counters continue, and FFmpeg counts its bytes
        is_range = int(options.get("end_offset", 0)) > 0
        return body if is_range else Segment(body)

    def _opened_at_last(self, url: str, options: Mapping[str, str]) -> Body:
        """Return the content at a URL, asking again for a while if the stream has been played already."""
        for wait_s in RETRY_S if self._has_played else ():
            try:
                return self._opened(url, options)
            except urllib.error.HTTPError as error:
                if error.code not in PASSING:
                    raise
                error.close()
            except ConnectionError:
                logger.debug("the server of a playlist refused a connection")
            pause(wait_s)
        return self._opened(url, options)

    def _opened(self, url: str, options: Mapping[str, str]) -> Body:
        parts = urllib.parse.urlsplit(url)
        plain = urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
        request = urllib.request.Request(plain, headers={"User-Agent": self._headers.get("User-Agent", USER_AGENT)})
        start, end = int(options.get("offset", 0)), int(options.get("end_offset", 0))
        if start or end:
            request.add_header("Range", f"bytes={start}-{end - 1 if end else ''}")
        if _origin(parts) == self._home:
            for name, value in self._headers.items():
                request.add_unredirected_header(name, value)
        try:
            response = self._opener.open(request, timeout=self._timeout_s)
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError as error:
            raise self._explained(error, parts) from error
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(5, f"{parts.hostname} does not speak HTTP: {type(error).__name__}") from error
        return self._body(response, plain, start if start and response.status != 206 else 0)

    def _body(self, response: Any, asked: str, skip: int) -> Body:
        """Return the content of a response: a playlist as a whole, anything else as it arrives.

        FFmpeg does not learn about redirects, so the addresses in a redirected playlist are made absolute here.
        """
        begun = response.read(len(b"#EXTM3U"))
        if begun == b"#EXTM3U":
            with response:
                text = begun + _whole(response, time.monotonic() + self._timeout_s)
            if self._renewal.has_begun_again(asked, text):
                raise OSError(5, BEGINS_AGAIN)
            return io.BytesIO(text if response.geturl() == asked else _absolute(text, response.geturl()))
        body = _Streamed(response, begun, self)
        while skip > 0 and (piece := body.read(min(skip, PIECE_BYTES))):
            skip -= len(piece)
        return body

    @staticmethod
    def _explained(error: urllib.error.URLError, parts: urllib.parse.SplitResult) -> OSError:
        reason = error.reason
        if isinstance(reason, ssl.SSLCertVerificationError):
            return untrusted_server(reason, *_origin(parts)[1:])
        return reason if isinstance(reason, OSError) else OSError(5, str(reason))

    def _skip(self, url: str, error: urllib.error.HTTPError) -> Body:
        """Return nothing in place of a segment that is gone; raise FFmpeg's error for everything else."""
        error.close()
        is_playlist = urllib.parse.urlsplit(url).path.lower().endswith((".m3u8", ".m3u"))
        if error.code in (404, 410) and not is_playlist and self._skipped < MAX_SKIPPED:
            self._skipped += 1
            return io.BytesIO()
        import av

        kind = getattr(av.error, _STATUS.get(error.code, ""), None)
        if kind is not None:
            raise kind(error.code, error.reason) from error
        raise OSError(5, f"the server answered {error.code}") from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.type == "https" and scheme_of(newurl) != "https":
            raise urllib.error.URLError(PermissionError(13, "it redirects from https to http, which is not followed"))
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Streamed:
    """A response whose first bytes were already read."""

    def __init__(self, response: Any, begun: bytes, fetcher: PlaylistFetcher) -> None:
        self._response, self._begun, self._fetcher = response, begun, fetcher

    def read(self, size: int, /) -> bytes:
        if self._begun:
            piece, self._begun = self._begun[:size], self._begun[size:]
            return piece
        if self._fetcher.failure is not None:
            return b""
        try:
            return bytes(self._response.read1(size))
        except (OSError, http.client.HTTPException, ValueError) as error:
            failure = error if isinstance(error, OSError) else OSError(5, f"{type(error).__name__} in an answer")
            self._fetcher.failure = failure
            raise failure from error

    def close(self) -> None:
        self._response.close()


class _Basic(urllib.request.HTTPBasicAuthHandler):
    """Handles requests for Basic authentication, and leaves all others to the next handler."""

    def http_error_401(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        with suppress(ValueError):
            return super().http_error_401(req, fp, code, msg, headers)


class _Decrypted:
    """Decrypts AES-128-CBC using the AES of the FFmpeg that is loaded anyway."""

    def __init__(self, body: Body, key: bytes, iv: bytes) -> None:
        import av._core

        if len(key) != BLOCK or len(iv) != BLOCK:
            raise ValueError("the key of an encrypted segment is not 16 bytes long")
        self._body, self._rest, self._is_over = body, b"", False
        self._library = ctypes.CDLL(av._core.__file__)  # a symbol is also looked up in the library's dependencies
        self._library.av_aes_alloc.restype = ctypes.c_void_p
        self._aes = ctypes.c_void_p(self._library.av_aes_alloc())
        self._library.av_aes_init(self._aes, key, 8 * BLOCK, 1)
        self._iv = ctypes.create_string_buffer(iv, BLOCK)

    def read(self, size: int, /) -> bytes:
        wanted = max(size // BLOCK, 1) * BLOCK
        while not self._is_over and len(self._rest) <= wanted:  # the last block has padding, so one more must follow
            piece = self._body.read(PIECE_BYTES)
            self._is_over = not piece
            self._rest += piece
        coded = self._rest[: min(wanted, len(self._rest) // BLOCK * BLOCK)]
        self._rest = self._rest[len(coded) :]
        if not coded:
            return b""
        clear = ctypes.create_string_buffer(len(coded))
        self._library.av_aes_crypt(self._aes, clear, coded, len(coded) // BLOCK, self._iv, 1)
        padding = clear.raw[-1] if self._is_over and len(self._rest) < BLOCK else 0
        return clear.raw[: len(coded) - (padding if padding <= BLOCK else 0)]

    def close(self) -> None:
        self._body.close()
        aes, self._aes = self._aes, ctypes.c_void_p()
        if aes:
            self._library.av_free(aes)


def _opener(target: VideoAddress, parts: urllib.parse.SplitResult) -> urllib.request.OpenerDirector:
    context = ssl.create_default_context(cafile=target.ca_file or default_bundle())
    if target.tls == "insecure":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.OpenerDirector()  # without the file and FTP handlers that `build_opener` adds
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=context),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
        _Redirects(),
    ]
    if parts.username is not None:
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        user, password = urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or "")
        passwords.add_password(None, f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/", user, password)
        handlers += [urllib.request.HTTPDigestAuthHandler(passwords), _Basic(passwords)]
    for handler in handlers:
        opener.add_handler(handler)
    return opener


def _origin(parts: urllib.parse.SplitResult) -> _Origin:
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or (443 if scheme == "https" else 80)


def _headers(ffmpeg: Mapping[str, str]) -> dict[str, str]:
    """Return the request headers set by FFmpeg's options."""
    lines = [line.partition(":") for line in ffmpeg.get("headers", "").splitlines()]
    headers = {name.strip(): value.strip() for name, colon, value in lines if colon and name.strip()}
    for option, name in (("user_agent", "User-Agent"), ("referer", "Referer")):
        if option in ffmpeg:
            headers[name] = ffmpeg[option]
    return headers


def _whole(response: Any, deadline: float) -> bytes:
    pieces, size = [], 0
    while piece := response.read1(PIECE_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_PLAYLIST_BYTES:
            raise OSError(27, f"the playlist is larger than {MAX_PLAYLIST_BYTES // 2**20} MiB")
        if time.monotonic() > deadline:
            raise TimeoutError("the playlist did not arrive in time")
    return b"".join(pieces)


def _absolute(playlist: bytes, base: str) -> bytes:
    """Return a playlist whose addresses are absolute.

    >>> _absolute(b'#EXTM3U\\n#EXT-X-KEY:METHOD=AES-128,URI="k"\\na.ts\\n', "http://cdn/live/x.m3u8").decode().split()[1:]
    ['#EXT-X-KEY:METHOD=AES-128,URI="http://cdn/live/k"', 'http://cdn/live/a.ts']
    """
    lines = []
    for line in playlist.decode("utf-8", "surrogateescape").splitlines():
        if line.startswith("#"):
            lines.append(_URI.sub(lambda found: f'URI="{urllib.parse.urljoin(base, found[1])}"', line))
        else:
            lines.append(urllib.parse.urljoin(base, line.strip()) if line.strip() else "")
    return "\n".join([*lines, ""]).encode("utf-8", "surrogateescape")
