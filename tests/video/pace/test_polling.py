"""An address that returns one image per request is a camera, and is polled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import pytest

from engine.errors import SourceError
from engine.sources.open import open_source
from engine.sources.synthetic import number_in_image
from tests.media import Recorder, numbered_images

Answers = list[bytes | None]


@contextmanager
def snapshot_camera(answers: Answers) -> Iterator[str]:
    """Serve one answer per request, the last one indefinitely; None is an error 503."""
    asked: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers[min(len(asked), len(answers) - 1)]
            asked.append(1)
            self.send_response(200 if answer else 503)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(answer or b"")))
            self.end_headers()
            self.wfile.write(answer or b"")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/snap.jpg?channel=1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def jpegs(count: int, kind: str = ".jpg") -> Answers:
    return [cv2.imencode(kind, image)[1].tobytes() for image in numbered_images(count)]


@pytest.mark.parametrize("reader", ["process", "thread"])
@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_each_request_gives_a_frame(reader: str, kind: str) -> None:
    with snapshot_camera(jpegs(4, kind)) as url:
        source, frames = open_source(url, reader=reader, fps=20, source_id="gate"), []
        for frame in source:
            frames.append(frame)
            if len(frames) == 4:
                break
    assert source.info.is_live
    assert source.info.fps == pytest.approx(20)
    assert [number_in_image(frame.image) for frame in frames] == [0, 1, 2, 3]
    assert {frame.captured_source for frame in frames} == {"arrival"}
    span_s = (frames[-1].captured_ns - frames[0].captured_ns) / 1e9
    assert span_s > 0.05, "requests keep their distance: three of 0.05 s"


def test_a_camera_that_fails_for_a_while_is_offline_and_comes_back() -> None:
    good = jpegs(1)
    with snapshot_camera([*good, None, None, *good]) as url:
        source, recorder = open_source(url, reader="thread", fps=50, backoff_s=0.01), Recorder()
        source.attach(recorder)
        epochs = set()
        for frame in source:
            epochs.add(frame.stream_epoch)
            if len(epochs) == 2:
                break
    assert "offline" in recorder.states


def test_a_cut_picture_is_counted_and_the_next_one_is_asked_for() -> None:
    [picture] = jpegs(1)
    assert picture is not None
    with snapshot_camera([picture, picture[: len(picture) // 2], picture]) as url:
        source, recorder = open_source(url, reader="thread", fps=50, damage="frame"), Recorder()
        source.attach(recorder)
        ids = []
        for frame in source:
            ids.append(frame.frame_id)
            if len(ids) == 2:
                break
    assert recorder.losses["corrupt"] == 1


def test_what_is_not_live_is_read_once() -> None:
    with snapshot_camera(jpegs(3)) as url:
        assert len(list(open_source(url, reader="thread", live=False))) == 1


def test_an_answer_of_several_pictures_is_asked_for_again_where_it_is_said_to_be_a_snapshot() -> None:
    several = b"".join(picture or b"" for picture in jpegs(2))
    with snapshot_camera([several]) as url:
        seen = []
        for frame in open_source(url, reader="thread", snapshot=True, fps=20):
            seen.append(number_in_image(frame.image))
            if len(seen) == 6:
                break
    assert seen == [0, 1] * 3


def test_a_snapshot_that_is_not_there_is_an_error() -> None:
    with snapshot_camera([None]) as url, pytest.raises(SourceError):
        list(open_source(url, reader="thread", reconnect=False))
