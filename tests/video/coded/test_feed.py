"""The way of coded video from a reader process to the engine: on demand, in parts, and checked."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from engine.video.coded.feed import VideoFeed
from engine.video.coded.outlet import VideoOutlet
from engine.video.coded.pieces import HEAD, INIT, KEY, REST, PieceReader, VideoFeedError, VideoPiece, send_piece
from tests.patience import AT_ONCE_S
from tests.video.coded.test_fmp4 import encoded, played

OUTLETS: list[VideoOutlet] = []


@pytest.fixture
def feed() -> Iterator[VideoFeed]:
    made = VideoFeed("gate")
    made.is_used = True
    yield made
    made.close()
    while OUTLETS:
        OUTLETS.pop().close()


def plugged(feed: VideoFeed) -> VideoOutlet:
    """Return the end of a new reader process, which the fixture closes."""
    theirs = feed.plug()
    assert theirs is not None
    feed.refresh()
    OUTLETS.append(VideoOutlet(theirs))
    return OUTLETS[-1]


def read(feed: VideoFeed, count: int) -> list[VideoPiece]:
    found: list[VideoPiece] = []
    deadline = time.monotonic() + AT_ONCE_S
    while len(found) < count and time.monotonic() < deadline:
        found += feed.read()
    return found


class Stream:
    """What a demuxer tells about a stream."""

    def __init__(self, context: Any) -> None:
        header = bytes(context.extradata or b"")
        self.codec_context = SimpleNamespace(
            name="h264", width=320, height=240, extradata=header, sample_aspect_ratio=None
        )
        self.sample_aspect_ratio = None
        self.time_base = context.time_base


def test_video_flows_from_a_keyframe_while_it_is_wanted(feed: VideoFeed) -> None:
    context, packets = encoded("libx264", {"tune": "zerolatency", "g": "10"})
    outlet, stream = plugged(feed), Stream(context)
    for packet in packets[:3]:
        outlet.take(packet, stream)
    assert list(feed.read()) == []
    feed.want(True)
    for packet in packets[3:]:
        outlet.take(packet, stream)
    pieces = read(feed, 16)
    assert [piece.is_init for piece in pieces] == [True] + [False] * 15
    assert [piece.is_key for piece in pieces[1:]] == [True, *[False] * 9, True, *[False] * 4]
    assert pieces[1].pts_ns == pieces[0].t0_ns == 10 * 40_000_000
    assert [number for number, _ in played(b"".join(piece.data for piece in pieces))] == list(range(10, 25))
    feed.want(False)
    outlet.take(packets[10], stream)
    assert list(feed.read()) == []


def test_video_waits_for_the_size_of_a_camera_that_tells_it_only_once_a_picture_is_decoded(feed: VideoFeed) -> None:
    context, packets = encoded("libx264", {"tune": "zerolatency", "g": "10"})
    feed.want(True)
    outlet, stream = plugged(feed), Stream(context)
    stream.codec_context.width = stream.codec_context.height = 0
    for packet in packets[:2]:
        outlet.take(packet, stream)
    assert list(feed.read()) == []
    stream.codec_context.width, stream.codec_context.height = 320, 240
    for packet in packets[2:5]:
        outlet.take(packet, stream)
    pieces = read(feed, 6)
    assert (pieces[0].is_init, pieces[0].size_wh) == (True, (320, 240))
    assert [number for number, _ in played(b"".join(piece.data for piece in pieces))] == [0, 1, 2, 3, 4]


def test_an_engine_that_does_not_read_costs_pictures_and_no_time(feed: VideoFeed) -> None:
    context, packets = encoded("libx264", {"tune": "zerolatency", "g": "5", "crf": "1"})
    outlet, stream = plugged(feed), Stream(context)
    outlet._sink.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    feed.want(True)
    for packet in packets:
        outlet.take(packet, stream)
    pieces = read(feed, 2)
    assert pieces[0].is_init
    assert len(pieces) < len(packets)


def test_a_new_reader_process_is_told_that_video_is_wanted(feed: VideoFeed) -> None:
    feed.want(True)
    context, packets = encoded("libx264", {"tune": "zerolatency", "g": "10"})
    for _ in range(2):
        outlet = plugged(feed)
        outlet.take(packets[0], Stream(context))
        assert [piece.is_init for piece in read(feed, 2)] == [True, False]


def test_an_unused_feed_makes_no_sockets() -> None:
    feed = VideoFeed("gate")
    assert feed.plug() is None
    feed.close()


def message(flags: int, size: int, body: bytes) -> bytes:
    return HEAD.pack(flags, size, 0, 0) + body


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"x",
        message(0, 0, b""),
        message(0, 1 << 30, b"x"),
        message(REST, 10, b"x"),
        message(0, 2, b"xyz"),
        message(INIT, 3, b"xyz"),
        message(INIT, 4, b"{}\0x"),
        message(INIT, 100_000, b"x"),
        *(
            message(INIT, len(body), body)
            for facts in (
                {"codec": "avc1 <script>", "t0_ns": 0, "size_wh": [1, 1]},
                {"codec": "avc1", "t0_ns": 1 << 63, "size_wh": [1, 1]},
                {"codec": "avc1", "t0_ns": 0, "size_wh": [0, 1]},
                {"codec": "avc1", "t0_ns": 0, "size_wh": [1, 1], "more": 1},
            )
            for body in [json.dumps(facts).encode() + b"\0x"]
        ),
    ],
)
def test_what_a_reader_never_sends_is_refused(bad: bytes) -> None:
    with pytest.raises(VideoFeedError):
        PieceReader().add(bad)


def test_long_pieces_are_sent_in_parts_and_cut_ones_are_dropped() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    data = random.Random(1).randbytes(150_000)
    with ours, theirs:
        send_piece(theirs, VideoPiece(data, False, True, 5, 6))
        parts = [ours.recv(1 << 17) for _ in range(3)]
    reader = PieceReader()
    assert [reader.add(part) for part in parts[:2]] == [None, None]
    assert reader.add(message(KEY, 1, b"z")) == VideoPiece(b"z", False, True, 0, 0)
    assert [reader.add(part) for part in parts] == [None, None, VideoPiece(data, False, True, 5, 6)]
