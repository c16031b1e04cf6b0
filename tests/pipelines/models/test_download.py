"""Downloads from a real HTTP server on this machine, which answers correctly, slowly, wrongly or incompletely."""

from __future__ import annotations

import fcntl
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine.catalogue import Download
from engine.errors import ConfigError
from pipelines.models.download import DownloadError, Patience, fetch, take

CONTENT = bytes(range(256)) * 4000  # a megabyte
HURRIED = Patience(silence_s=0.5, pace_s=0.4, pace_bytes=100_000)


@dataclass
class Server:
    """Serves `CONTENT` as `answer` says, and remembers the ranges asked for."""

    answer: Callable[[BaseHTTPRequestHandler], None]
    ranges: list[str | None] = field(default_factory=list)
    address: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    def wanted(self, content: bytes = CONTENT) -> Download:
        return Download(f"{self.address}/model.onnx", hashlib.sha256(content).hexdigest(), len(content))


def whole(request: BaseHTTPRequestHandler, content: bytes = CONTENT) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)


def rest(request: BaseHTTPRequestHandler, content: bytes = CONTENT) -> None:
    asked = request.headers["Range"]
    if asked is None:
        whole(request, content)
        return
    start = int(asked.removeprefix("bytes=").removesuffix("-"))
    request.send_response(206)
    request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    request.send_header("Content-Length", str(len(content) - start))
    request.end_headers()
    request.wfile.write(content[start:])


def half(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(CONTENT)))
    request.end_headers()
    request.wfile.write(CONTENT[: len(CONTENT) // 2])


@pytest.fixture
def server() -> Iterator[Server]:
    serves = Server(rest)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            serves.ranges.append(self.headers["Range"])
            try:
                serves.answer(self)
            except OSError:
                self.close_connection = True  # the client has left

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        serves.address = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield serves
        serves.released.set()
        listening.shutdown()
        thread.join()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "new" / "model.onnx"


def part_of(place: Path) -> Path:
    return place.with_name(place.name + ".part")


def test_a_file_arrives_whole_and_with_progress(server: Server, place: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert fetch(server.wanted(), place, progress=lambda done, total: seen.append((done, total)))
    assert place.read_bytes() == CONTENT
    assert not part_of(place).exists()
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)


def test_a_file_that_is_there_needs_no_connection(server: Server, place: Path) -> None:
    fetch(server.wanted(), place)
    assert not fetch(server.wanted(), place)
    assert len(server.ranges) == 1


def test_a_changed_file_is_fetched_again(server: Server, place: Path) -> None:
    fetch(server.wanted(), place)
    place.write_bytes(b"x" * len(CONTENT))
    assert fetch(server.wanted(), place)
    assert place.read_bytes() == CONTENT


def test_an_interrupted_download_continues_where_it_stopped(server: Server, place: Path) -> None:
    server.answer = half
    with pytest.raises(DownloadError, match=f"stopped after {len(CONTENT) // 2} of {len(CONTENT)}.*to continue"):
        fetch(server.wanted(), place)
    assert not place.exists()
    server.answer = rest
    fetch(server.wanted(), place)
    assert server.ranges == [None, f"bytes={len(CONTENT) // 2}-"]
    assert place.read_bytes() == CONTENT


def test_a_server_without_ranges_sends_it_all_again(server: Server, place: Path) -> None:
    server.answer = half
    with pytest.raises(DownloadError):
        fetch(server.wanted(), place)
    server.answer = whole
    fetch(server.wanted(), place)
    assert place.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "rubbish",
    [pytest.param(b"<html>log in</html>", id="short"), pytest.param(b"?" * len(CONTENT), id="of the right size"),
     pytest.param(b"?" * 3 * len(CONTENT), id="too long")],
)  # fmt: skip
def test_an_unfinished_file_that_is_wrong_is_replaced(server: Server, place: Path, rubbish: bytes) -> None:
    place.parent.mkdir()
    part_of(place).write_bytes(rubbish)
    fetch(server.wanted(), place)
    assert place.read_bytes() == CONTENT


def test_other_content_is_refused_and_nothing_is_kept(server: Server, place: Path) -> None:
    server.answer = lambda request: whole(request, CONTENT[::-1])
    with pytest.raises(DownloadError, match="SHA-256"):
        fetch(server.wanted(), place)
    assert not place.exists()
    assert part_of(place).stat().st_size == 0


def test_a_page_of_a_portal_is_refused(server: Server, place: Path) -> None:
    server.answer = lambda request: whole(request, b"<html>accept our terms</html>")
    with pytest.raises(DownloadError, match="stopped after 29 of"):
        fetch(server.wanted(), place)
    server.answer = rest
    fetch(server.wanted(), place)
    assert place.read_bytes() == CONTENT


def test_no_more_than_the_size_is_taken(server: Server, place: Path) -> None:
    server.answer = lambda request: whole(request, CONTENT * 20)
    with pytest.raises(DownloadError, match=f"more than {len(CONTENT)}"):
        fetch(server.wanted(), place)
    assert part_of(place).stat().st_size == 0


def test_a_silent_server_is_left(server: Server, place: Path) -> None:
    def silent(request: BaseHTTPRequestHandler) -> None:
        half(request)
        server.released.wait(30)

    server.answer = silent
    with pytest.raises(DownloadError, match=f"stopped after {len(CONTENT) // 2}"):
        fetch(server.wanted(), place, patience=HURRIED)


def test_a_dripping_server_is_left_although_it_is_never_silent(server: Server, place: Path) -> None:
    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(CONTENT)))
        request.end_headers()
        for byte in CONTENT:
            request.wfile.write(bytes((byte,)))
            if server.released.wait(0.02):
                return

    server.answer = drip
    with pytest.raises(DownloadError, match=r"only \d+ bytes in"):
        fetch(server.wanted(), place, patience=HURRIED)


def test_a_server_that_drips_the_head_is_left(server: Server, place: Path) -> None:
    dripped: list[int] = []

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Padding: ")
        while len(dripped) < 400 and not server.released.wait(0.05):
            request.wfile.write(b"x")
            dripped.append(1)

    server.answer = drip
    with pytest.raises(DownloadError, match="stopped after 0 of .* in time"):
        fetch(server.wanted(), place, patience=HURRIED)
    assert len(dripped) < 200


def test_an_error_of_the_server_names_it_and_the_way_out(server: Server, place: Path) -> None:
    server.answer = lambda request: request.send_error(503)
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1 answered 503 .*--from FILE"):
        fetch(server.wanted(), place)


def test_no_server_at_all_names_the_address(free_port: int, place: Path) -> None:
    with pytest.raises(DownloadError, match="cannot be reached"):
        fetch(Download(f"http://127.0.0.1:{free_port}/m.onnx", "0" * 64, 10), place)


def redirecting(to: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.path == "/there":
            rest(request)
            return
        request.send_response(302)
        request.send_header("Location", to)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def test_a_redirect_is_followed(server: Server, place: Path) -> None:
    server.answer = redirecting("/there")
    fetch(server.wanted(), place)
    assert place.read_bytes() == CONTENT


@pytest.mark.parametrize("to", ["file:///etc/hostname", "ftp://127.0.0.1/x"])
def test_a_redirect_away_from_the_web_is_refused(server: Server, place: Path, to: str) -> None:
    server.answer = redirecting(to)
    with pytest.raises(DownloadError, match="redirects to|answered 302"):
        fetch(server.wanted(), place)


def test_redirects_in_a_circle_end(server: Server, place: Path) -> None:
    server.answer = redirecting("/round")
    with pytest.raises(DownloadError, match="answered 302"):
        fetch(server.wanted(), place)
    assert len(server.ranges) <= 12


def test_an_answer_for_another_range_is_not_spliced_in(server: Server, place: Path) -> None:
    def shifted(request: BaseHTTPRequestHandler) -> None:
        if request.headers["Range"] is None:
            whole(request)
            return
        request.send_response(206)
        request.send_header("Content-Range", f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}")
        request.send_header("Content-Length", str(len(CONTENT)))
        request.end_headers()
        request.wfile.write(CONTENT)

    place.parent.mkdir()
    part_of(place).write_bytes(CONTENT[:1000])
    server.answer = shifted
    fetch(server.wanted(), place)
    assert place.read_bytes() == CONTENT


def test_two_processes_do_not_write_the_same_file(server: Server, place: Path) -> None:
    place.parent.mkdir()
    with part_of(place).open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process"):
            fetch(server.wanted(), place)


def test_a_file_from_elsewhere_is_taken_only_if_it_is_right(server: Server, place: Path, tmp_path: Path) -> None:
    given = tmp_path / "stick.onnx"
    given.write_bytes(CONTENT[:-1])
    with pytest.raises(DownloadError, match="not the file"):
        take(server.wanted(), given, place)
    assert not place.exists()
    given.write_bytes(CONTENT)
    assert take(server.wanted(), given, place)
    assert place.read_bytes() == CONTENT
    assert server.ranges == []


def test_a_folder_that_cannot_be_made_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="FRAMEWIRE_MODELS"):
        fetch(server.wanted(), tmp_path / "file" / "model.onnx")


def test_another_scheme_is_refused(server: Server, place: Path) -> None:
    with pytest.raises(ConfigError, match="https://"):
        fetch(server.wanted(), place, address="file:///etc/hostname")
