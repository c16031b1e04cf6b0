"""Playlists from the network: which servers are trusted with a segment, a key or a password; valid ones play."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from engine.errors import SourceError
from engine.sources.open import open_source
from engine.video.playlist.fetch import MAX_SKIPPED
from tests.hostile.certificates import Authority, authority, self_signed
from tests.hostile.servers import fixed, hostile_camera, playlist, redirect
from tests.media import numbered_images

KEY = bytes(range(16))
Answer = Callable[[Any], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three forms of one film of 20 frames in four segments: plain, encrypted, and as ranges of one file."""
    place = tmp_path_factory.mktemp("hls")
    (place / "key.bin").write_bytes(KEY)
    (place / "key_info").write_text(f"key.bin\n{place}/key.bin\n{'00' * 15}01\n")
    forms: dict[str, dict[str, str]] = {
        "plain": {},
        "coded": {"hls_key_info_file": f"{place}/key_info"},
        "ranges": {"hls_flags": "single_file"},
    }
    for name, options in forms.items():
        write_playlist(place / f"{name}.m3u8", {"hls_time": "0.5", "hls_list_size": "0", **options})
    return place


def write_playlist(place: Path, options: dict[str, str]) -> None:
    with av.open(str(place), "w", format="hls", options=options) as output:
        stream: Any = output.add_stream(
            "libx264", rate=10, options={"g": "5", "preset": "ultrafast", "tune": "zerolatency"}
        )
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for image in numbered_images(20):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:96, :128]), format="bgr24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def files_of(folder: Path, *, ranges: bool = True) -> Answer:
    """Return an answer: the files of a folder, with ranges or without."""

    def answer(handler: Any) -> None:
        path = folder / handler.path.rsplit("/", 1)[-1]
        if not path.is_file():
            fixed(b"", status="404 Not Found")(handler)
            return
        data, asked = path.read_bytes(), handler.headers.get("Range", "")
        if asked and ranges:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            data = data[int(start) : int(end) + 1 if end else None]
            head = f"HTTP/1.1 206 Partial\r\nContent-Length: {len(data)}\r\n\r\n"
            handler.wfile.write(head.encode() + data)
            return
        fixed(data)(handler)

    return answer


def either(list_of: Answer, other: Answer) -> Answer:
    """Return an answer: one for playlists, and another for everything else."""
    return lambda handler: (list_of if ".m3u8" in handler.path else other)(handler)


def count(uri: str, **options: Any) -> int:
    """Return the number of frames of an address that is read once as a file."""
    return sum(1 for _ in open_source(uri, reconnect=False, live=False, **options))


@pytest.mark.parametrize("name", ["plain", "coded", "ranges"])
def test_every_form_of_playlist_plays(folder: Path, name: str) -> None:
    with hostile_camera(files_of(folder)) as server:
        assert count(server.url(f"{name}.m3u8")) == 20
        server.answer = files_of(folder, ranges=False)
        assert count(server.url(f"{name}.m3u8")) == 20


def test_segments_lie_where_a_redirected_playlist_lies(folder: Path) -> None:
    with hostile_camera(files_of(folder)) as cdn, hostile_camera(redirect("/")) as front:
        front.answer = redirect(f"http://localhost:{cdn.port}/live/coded.m3u8")
        assert count(front.url("x.m3u8")) == 20
        assert {request.path for request in front.seen} == {"/x.m3u8"}
        assert all(request.path.startswith("/live/") for request in cdn.seen)


def test_a_segment_that_is_gone_is_skipped(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("plain*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "plain1.ts").unlink()
    with hostile_camera(files_of(tmp_path)) as server:
        assert count(server.url("plain.m3u8")) in (14, 15)  # the gap damages one frame beside it
        gone = [line for number in range(MAX_SKIPPED + 2) for line in ("#EXTINF:1,", f"no{number}.ts")]
        server.answer = lambda handler: (
            playlist(*gone, "#EXT-X-ENDLIST")(handler)
            if "m3u8" in handler.path
            else fixed(b"", status="404 No")(handler)
        )
        with pytest.raises(SourceError, match="no such stream"):
            count(server.url("gone.m3u8"))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def false(tmp_path_factory: pytest.TempPathFactory, ours: Authority) -> ssl.SSLContext:
    return self_signed(tmp_path_factory.mktemp("false"))[0]


@pytest.mark.parametrize("tag", ["#EXTINF:2,\n{0}/a.ts", '#EXT-X-KEY:METHOD=AES-128,URI="{0}/k"\n#EXTINF:2,\n/a.ts'])
@pytest.mark.parametrize("is_secure", [True, False])
def test_a_false_server_is_asked_for_no_segment_and_no_key(
    ours: Authority, false: ssl.SSLContext, folder: Path, tag: str, is_secure: bool
) -> None:
    own = ours.server("IP:127.0.0.1") if is_secure else None
    with (
        hostile_camera(files_of(folder), context=false) as thief,
        hostile_camera(files_of(folder), context=own) as server,
    ):
        lines = tag.format(f"https://127.0.0.1:{thief.port}").splitlines()
        segment = fixed((folder / "plain0.ts").read_bytes())
        server.answer = either(playlist(*lines, "#EXT-X-ENDLIST"), segment)
        uri = server.url("x.m3u8").replace("http://", "https://" if is_secure else "http://")
        for reader in ({}, {"live": True, "reader": "process", "open_timeout_s": 20.0}):
            with pytest.raises(SourceError, match=r"is not trusted.*tls: insecure"):
                list(open_source(uri, reconnect=False, **{"live": False, **reader}, tls={"ca": ours.ca}))
        assert not thief.seen
        with pytest.raises(SourceError, match="is not trusted"):
            count(uri)


def test_no_segment_is_read_over_http_where_https_redirects_to_it(ours: Authority, folder: Path) -> None:
    context = ours.server("IP:127.0.0.1")
    with hostile_camera(files_of(folder)) as plain, hostile_camera(redirect("/"), context=context) as secure:
        secure.answer = redirect(f"http://127.0.0.1:{plain.port}/plain.m3u8")
        with pytest.raises(SourceError):
            count(secure.url("x.m3u8").replace("http://", "https://"), tls={"ca": ours.ca})
        assert not plain.seen


@pytest.mark.parametrize("scheme", ["Basic", "Digest"])
def test_password_and_headers_stay_with_their_host(folder: Path, scheme: str) -> None:
    tokens: dict[int, set[str | None]] = {}

    def ask(handler: Any) -> None:
        tokens.setdefault(handler.camera.port, set()).add(handler.headers.get("X-Token"))
        if not handler.headers.get("Authorization"):
            nonce = ', nonce="1f", qop="auth"' if scheme == "Digest" else ""
            demand = f'HTTP/1.1 401 No\r\nWWW-Authenticate: {scheme} realm="x"{nonce}\r\nContent-Length: 0\r\n\r\n'
            handler.wfile.write(demand.encode())
        elif "plain" in handler.path:
            lines = [f"http://localhost:{elsewhere.port}/stolen.ts" if "#" not in line else line for line in listed]
            playlist(*lines)(handler)
        else:
            files_of(folder)(handler)

    def guarded(handler: Any) -> None:
        (files_of(folder) if handler.headers.get("Authorization") else ask)(handler)

    listed = (folder / "plain.m3u8").read_text().splitlines()[1:]
    with hostile_camera(ask) as elsewhere, hostile_camera(ask) as home:
        with pytest.raises(SourceError, match="refused the user name or password"):
            count(home.url("plain.m3u8", "admin:hunter2"), ffmpeg={"headers": "X-Token: abc\r\n"})
        assert any(request.authorization for request in home.seen)
        assert {request.authorization for request in elsewhere.seen} == {None}
        assert tokens == {home.port: {"abc"}, elsewhere.port: {None}}
        home.answer = lambda handler: (
            files_of(folder)(handler) if handler.headers.get("Authorization") else ask(handler)
        )
        assert count(home.url("coded.m3u8", "admin:hunter2")) == 20


@pytest.mark.parametrize(
    "entry", ["file:///etc/passwd", "ftp://127.0.0.1/a.ts", "data:video/mp2t;base64,AA", "crypto:/etc/passwd"]
)
def test_a_playlist_names_only_addresses_of_http(entry: str) -> None:
    with hostile_camera(playlist("#EXTINF:2,", entry, "#EXT-X-ENDLIST")) as server, pytest.raises(SourceError):
        count(server.url("x.m3u8"))
