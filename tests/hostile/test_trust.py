"""What an address can lead to: certificates of cameras, redirects, playlists and lists that name other files."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from engine.errors import SourceError
from engine.sources.open import open_source
from tests.hostile.certificates import Authority, authority, self_signed
from tests.hostile.servers import HostileCamera, hostile_camera, jpeg, playlist, redirect, send_jpegs
from tests.media import encode_clip, numbered_images

GOOD = send_jpegs(lambda: jpeg(64, 48), fps=50)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ca"))


def first_frame(uri: str, **options: Any) -> tuple[int, ...]:
    """Return the shape of the first frame of an address that is tried once."""
    source = open_source(uri, reconnect=False, **options)
    frames = iter(source)
    try:
        return next(frames).image.shape
    finally:
        source.interrupt()
        frames.close()  # type: ignore[attr-defined]


def secure(camera: HostileCamera, host: str = "127.0.0.1") -> str:
    return camera.url("cam.mjpg", "admin:hunter2").replace("http://", "https://").replace("127.0.0.1", host)


@pytest.mark.parametrize("reader", ["process", "thread"])
def test_a_camera_whose_certificate_nobody_vouches_for_gets_no_request(ours: Authority, reader: str) -> None:
    with hostile_camera(GOOD, context=ours.server("IP:127.0.0.1")) as camera:
        with pytest.raises(SourceError, match=r"is not trusted.*set tls: \{ca: FILE\}.*tls: insecure") as error:
            first_frame(secure(camera), reader=reader)
        assert "hunter2" not in str(error.value)
        assert not camera.seen
        assert first_frame(secure(camera), reader=reader, tls={"ca": ours.ca}) == (48, 64, 3)
        assert first_frame(secure(camera), reader=reader, tls="insecure") == (48, 64, 3)


def test_a_certificate_of_another_name_is_refused(ours: Authority) -> None:
    with hostile_camera(GOOD, context=ours.server("DNS:other.example")) as camera:
        with pytest.raises(SourceError, match="IP address mismatch.*name in its certificate"):
            first_frame(secure(camera), tls={"ca": ours.ca})
        assert not camera.seen


def test_the_own_certificate_of_a_camera_can_be_trusted(tmp_path: Path) -> None:
    context, certificate = self_signed(tmp_path)
    with hostile_camera(GOOD, context=context) as camera:
        with pytest.raises(SourceError, match="self-signed certificate|self signed certificate"):
            first_frame(secure(camera))
        assert first_frame(secure(camera), tls={"ca": certificate}) == (48, 64, 3)


def test_a_redirect_to_a_false_server_is_not_followed_to_a_request(ours: Authority, tmp_path: Path) -> None:
    context, _ = self_signed(tmp_path)
    with hostile_camera(GOOD, context=context) as false, hostile_camera(GOOD) as camera:
        camera.answer = redirect(f"https://127.0.0.1:{false.port}/cam.mjpg")
        with pytest.raises(SourceError):
            first_frame(camera.url())
        assert camera.seen
        assert not false.seen


@contextmanager
def rtsp_server(
    answer: Callable[[str, str], str],
    context: ssl.SSLContext | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[tuple[int, list]]:
    """Serve RTSP text on loopback; yields the port and the requests."""
    server = socket.create_server((host, port))
    seen: list[str] = []

    def talk(plain: socket.socket) -> None:
        with suppress(OSError):  # TLS too: a client that does not trust it hangs up
            with plain, context.wrap_socket(plain, server_side=True) if context else plain as client:
                client.settimeout(10)
                text = ""
                while data := client.recv(4096):
                    text += data.decode(errors="replace")
                    if "\r\n\r\n" in text:
                        seen.append(text)
                        sequence = next(line for line in text.splitlines() if line.lower().startswith("cseq"))
                        client.sendall(answer(text, sequence).encode())
                        text = ""

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=talk, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server.getsockname()[1], seen
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def demands_password(text: str, sequence: str, then: str) -> str:
    if "Authorization" in text:
        return then
    return f'RTSP/1.0 401 Unauthorized\r\n{sequence}\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n'


def not_found(text: str, sequence: str) -> str:
    return demands_password(text, sequence, f"RTSP/1.0 404 Not Found\r\n{sequence}\r\n\r\n")


def test_a_false_rtsps_camera_gets_no_password(ours: Authority) -> None:
    with rtsp_server(not_found, ours.server("IP:127.0.0.1")) as (port, seen):
        uri = f"rtsps://admin:hunter2@127.0.0.1:{port}/x"
        with pytest.raises(SourceError, match="is not trusted"):
            first_frame(uri)
        assert not seen
        with pytest.raises(SourceError, match="404"):
            first_frame(uri, tls={"ca": ours.ca})
        assert any("Authorization" in text for text in seen)


def test_the_password_does_not_follow_an_http_redirect() -> None:
    with hostile_camera(redirect("/")) as thief, hostile_camera(GOOD) as camera:

        def ask(handler: Any) -> None:
            if handler.headers.get("Authorization"):
                redirect(f"http://localhost:{thief.port}/steal")(handler)
                return
            demand = b'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n'
            handler.wfile.write(demand)

        camera.answer = ask
        thief.answer = ask
        with pytest.raises(SourceError):
            first_frame(camera.url("cam.mjpg", "admin:hunter2"))
        assert [one.authorization for one in camera.seen][-1] is not None
        assert {one.authorization for one in thief.seen} <= {None}


def leading_to(there: str) -> Callable[[str, str], str]:
    """Return an answer: a request for the password, then a redirect."""
    return lambda text, sequence: demands_password(
        text, sequence, f"RTSP/1.0 302 Found\r\n{sequence}\r\nLocation: {there}\r\n\r\n"
    )


def test_the_password_does_not_follow_an_rtsp_redirect_to_another_port() -> None:
    with rtsp_server(not_found) as (other_port, stolen):
        with rtsp_server(leading_to(f"rtsp://localhost:{other_port}/steal")) as (port, seen):
            with pytest.raises(SourceError) as error:
                first_frame(f"rtsp://admin:hunter2@127.0.0.1:{port}/x")
        assert any("Authorization" in text for text in seen)
    if not stolen:
        assert "another host or port" in str(error.value)
        return
    pytest.skip("this kernel has neither Landlock for ports (Linux 6.7) nor seccomp notifications (5.5)")


def test_the_password_does_not_follow_an_rtsp_redirect_to_another_host() -> None:
    with rtsp_server(not_found) as (port, seen):
        with rtsp_server(not_found, host="127.0.0.2", port=port) as (_, stolen):
            seen.clear()
            place = f"rtsp://127.0.0.2:{port}/steal"
            with rtsp_server(leading_to(place), host="127.0.0.3", port=port) as (_, asked):
                with pytest.raises(SourceError) as error:
                    first_frame(f"rtsp://admin:hunter2@127.0.0.3:{port}/x")
            assert any("Authorization" in text for text in asked)
            if not stolen:
                assert "another host or port" in str(error.value)
                with pytest.raises(SourceError, match="404"):  # the address itself works
                    first_frame(place.replace("//", "//admin:hunter2@"))
                return
    pytest.skip("this kernel has no seccomp notifications (Linux 5.5)")


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A video that no one asked to read."""
    return encode_clip(tmp_path / "private.ts", numbered_images(10))


@pytest.mark.parametrize("name", ["list.mp4", "list.ffconcat", "list.avi", "list"])
def test_a_list_named_like_a_video_reads_no_neighbours(private: Path, name: str) -> None:
    place = private.with_name(name)
    place.write_text(f"ffconcat version 1.0\nfile {private.name}\n")
    with pytest.raises(SourceError):
        list(open_source(place))


@pytest.mark.parametrize("name", ["list.mp4", "list.ts", "list"])
def test_a_playlist_named_like_a_video_reads_no_neighbours(private: Path, name: str) -> None:
    place = private.with_name(name)
    place.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{private.name}\n#EXT-X-ENDLIST\n")
    with pytest.raises(SourceError):
        list(open_source(place))


def test_a_playlist_that_is_named_like_one_is_read(private: Path) -> None:
    place = private.with_name("list.m3u8")
    place.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{private.name}\n#EXT-X-ENDLIST\n")
    assert len(list(open_source(place))) == 10


def test_a_session_description_in_a_file_opens_no_socket(tmp_path: Path) -> None:
    place = tmp_path / "a.mp4"
    place.write_text("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n")
    with pytest.raises(SourceError):
        list(open_source(place))


@pytest.mark.parametrize("reader", ["process", "thread"])
@pytest.mark.parametrize(
    "entry",
    ["file://{private}", "{private}", "concat:{private}|{private}", "subfile,,start,0,end,99999,,:{private}"],
)
def test_a_playlist_from_the_network_reads_no_file(private: Path, entry: str, reader: str) -> None:
    with hostile_camera(playlist("#EXTINF:2,", entry.format(private=private), "#EXT-X-ENDLIST")) as camera:
        for name in ("live.m3u8", "cam.mjpg", "clip.ts"):
            with pytest.raises(SourceError):
                first_frame(camera.url(name), reader=reader, open_timeout_s=3.0, read_timeout_s=2.0)


@pytest.mark.parametrize("reader", ["process", "thread"])
def test_a_redirect_to_a_file_reads_no_file(private: Path, reader: str) -> None:
    with hostile_camera(redirect(f"file://{private}")) as camera, pytest.raises(SourceError):
        first_frame(camera.url(), reader=reader)
