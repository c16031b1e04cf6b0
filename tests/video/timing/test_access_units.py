"""Frames from pieces: real streams of libx264 and libx265, split as RTP senders split them, well and badly."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache, partial
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.video.timing.access_units import (
    MAX_BYTES,
    MIN_KEYFRAMES,
    MIN_PICTURES,
    SMALLEST_FULL,
    AccessUnit,
    AccessUnits,
    Piece,
)
from tests.media import numbered_images

START = b"\x00\x00\x00\x01"
MTU = 600
COUNT, GOP = 60, 10
FILLER = {"h264": bytes([12, 255, 128]), "hevc": bytes([38 << 1, 1, 255, 128])}
HEADER = {"h264": 1, "hevc": 2}  # bytes of a unit's header, repeated in every packet of a divided unit
Cut = Callable[[bytes, str], list[bytes]]
Coded = tuple[bytes, ...]


@lru_cache
def pictures(codec: str, options: str = "") -> tuple[Coded, ...]:
    """Return the units of each coded frame, without start codes."""
    context: Any = av.CodecContext.create(f"lib{'x264' if codec == 'h264' else 'x265'}", "w")
    context.width, context.height, context.pix_fmt = 320, 240, "yuv420p"
    context.time_base = Fraction(1, 25)
    parameters = f"keyint={GOP}:min-keyint={GOP}:scenecut=0:repeat-headers=1{options}"
    quiet = {"x264-params": parameters} if codec == "h264" else {"x265-params": parameters + ":log-level=none"}
    context.options = {"tune": "zerolatency", "preset": "ultrafast", **quiet}
    rng = np.random.default_rng(0)
    coded: list[bytes] = []
    for number, image in enumerate(numbered_images(COUNT)):
        noisy = np.clip(image + rng.integers(-6, 6, image.shape), 0, 255).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(noisy, format="bgr24")
        frame.pts = number
        coded += [bytes(packet) for packet in context.encode(frame)]
    coded += [bytes(packet) for packet in context.encode(None)]
    return tuple(tuple(part.rstrip(b"\0") for part in data.split(START[1:]) if part.rstrip(b"\0")) for data in coded)


def filled(unit: bytes, codec: str, mtu: int = MTU) -> list[bytes]:
    """Cut as encoders do: every packet full but the last."""
    header, room = HEADER[codec], mtu - HEADER[codec] - 1
    if len(unit) <= mtu:
        return [START + unit]
    rest = unit[header:]
    chunks = [rest[at : at + room] for at in range(0, len(rest), room)]
    return [START + unit[:header] + chunks[0], *chunks[1:]]


def equal(unit: bytes, codec: str) -> list[bytes]:
    """Cut into packets of about one size, as WebRTC does."""
    header = HEADER[codec]
    if len(unit) <= MTU:
        return [START + unit]
    chunks = [bytes(chunk) for chunk in np.array_split(np.frombuffer(unit[header:], np.uint8), -(-len(unit) // MTU))]
    return [START + unit[:header] + chunks[0], *chunks[1:]]


def ragged(unit: bytes, codec: str) -> list[bytes]:
    """Cut anywhere."""
    rng, header, rest = random.Random(len(unit)), HEADER[codec], unit[HEADER[codec] :]
    chunks = []
    while rest:
        size = rng.randint(MTU // 2, MTU)
        chunks, rest = [*chunks, rest[:size]], rest[size:]
    return [START + unit[:header] + chunks[0], *chunks[1:]] if chunks else [START + unit]


def pieces_of(coded: Sequence[Coded], codec: str, cut: Cut, interval_ns: int = 40_000) -> list[Piece]:
    """Return what FFmpeg hands out; pieces are 1 ns apart."""
    found = []
    for number, units in enumerate(coded):
        data = [piece for unit in units for piece in cut(unit, codec)]
        found += [
            Piece(each, number, arrived_ns=interval_ns * number + at + 1, packet=at) for at, each in enumerate(data)
        ]
    return found


def put_together(pieces: Sequence[Piece], codec: str) -> tuple[list[AccessUnit], dict[int | None, int], AccessUnits]:
    """Return the frames, the time at which each was returned, and what assembled them."""
    units, found, moments = AccessUnits(codec), [], {}
    for piece in pieces:
        for unit in units.add(piece):
            found.append(unit)
            moments[unit.pts] = piece.arrived_ns
    return found + list(units.rest()), moments, units


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("options", ["", ":slices=4", ":aud=1"])
def test_pictures_are_given_when_their_last_piece_comes(codec: str, options: str) -> None:
    coded = pictures(codec, options)
    pieces = pieces_of(coded, codec, filled)
    found, moments, units = put_together(pieces, codec)
    assert units.is_trusted
    assert [bytes(unit.data) for unit in found] == [
        b"".join(piece.data for piece in pieces if piece.pts == number) for number in range(len(coded))
    ]
    early = [unit for unit in found if moments.get(unit.pts) == unit.arrived_ns]
    assert len(early) > 0.8 * (COUNT - max(MIN_PICTURES, MIN_KEYFRAMES * GOP))
    assert [unit.pts for unit in found if unit.is_keyframe] == list(range(0, COUNT, GOP))


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize(("fps", "waits"), [(1, 4), (5, 14), (10, MIN_PICTURES), (25, MIN_PICTURES)])
def test_a_slow_camera_is_trusted_after_a_few_seconds(codec: str, fps: int, waits: int) -> None:
    pieces = pieces_of(pictures(codec), codec, filled, 1_000_000_000 // fps)
    found, moments, _ = put_together(pieces, codec)
    late = [unit.pts for unit in found if moments.get(unit.pts) != unit.arrived_ns]
    assert late[:waits] == list(range(waits))
    assert set(late[waits:]) <= {COUNT - 1}, "the last one has no successor that could have begun"


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_a_slow_camera_with_packets_that_are_not_filled_is_not_trusted_for_long(codec: str) -> None:
    found, _, units = put_together(pieces_of(pictures(codec), codec, ragged, 10**9), codec)
    assert not units.is_trusted
    assert len(found) == COUNT


def small(codec: str) -> list[Coded]:
    """Return frames that fit into one packet each, as cameras of still scenes send them."""
    return [tuple(unit[: SMALLEST_FULL // 4] for unit in units) for units in pictures(codec)]


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize(("fps", "waits"), [(1, 4), (2, 7), (25, MIN_PICTURES)])
def test_frames_of_one_packet_are_given_at_once_after_a_few(codec: str, fps: int, waits: int) -> None:
    pieces = pieces_of(small(codec), codec, lambda unit, _: [START + unit], 1_000_000_000 // fps)
    found, moments, _ = put_together(pieces, codec)
    late = [unit.pts for unit in found if moments.get(unit.pts) != unit.arrived_ns]
    assert late[:waits] == list(range(waits))
    assert set(late[waits:]) <= {COUNT - 1}


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_a_first_large_frame_after_small_ones_stays_whole(codec: str) -> None:
    """A slice that seemed to end with a packet continues in the next: by its size, the packet may be full."""
    little = small(codec)
    large = (little[30][0] + bytes(3 * 1000),)
    pieces = pieces_of([*little[:30], large, *little[30:]], codec, partial(filled, mtu=1000), 10**9)
    found, _, units = put_together(pieces, codec)
    assert units.is_trusted
    assert [bytes(unit.data) for unit in found if unit.pts == 30] == [START + large[0]]


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("cut", [filled, equal, ragged])
def test_the_arrival_is_that_of_the_last_piece(codec: str, cut: Cut) -> None:
    pieces = pieces_of(pictures(codec), codec, cut)
    found, _, _ = put_together(pieces, codec)
    assert [unit.arrived_ns for unit in found] == [
        max(piece.arrived_ns for piece in pieces if piece.pts == number) for number in range(COUNT)
    ]


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("cut", [equal, ragged])
def test_packets_that_are_not_filled_are_not_trusted(codec: str, cut: Cut) -> None:
    found, _, units = put_together(pieces_of(pictures(codec), codec, cut), codec)
    assert not units.is_trusted
    assert [bytes(unit.data) for unit in found] == [
        b"".join(piece.data for piece in pieces_of([each], codec, cut)) for each in pictures(codec)
    ]


def test_a_varying_number_of_slices_is_not_trusted() -> None:
    coded = pictures("h264", ":slice-max-size=300")
    assert len({len(units) for units in coded[1:GOP]}) > 1
    found, _, units = put_together(pieces_of(coded, "h264", filled), "h264")
    assert not units.is_trusted
    assert len(found) == COUNT


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_what_comes_behind_a_picture_goes_before_the_next(codec: str) -> None:
    coded = [(*units, FILLER[codec]) for units in pictures(codec)]
    pieces = pieces_of(coded, codec, filled)
    found, _, units = put_together(pieces, codec)
    assert units.is_trusted
    assert b"".join(unit.data for unit in found) == b"".join(piece.data for piece in pieces)[: -len(FILLER[codec]) - 4]
    late = START + FILLER[codec]
    assert bytes(found[-1].data).startswith(late)
    assert not bytes(found[-1].data).endswith(late)


def test_a_slice_behind_a_picture_that_was_given_ends_the_trust() -> None:
    true = pictures("h264", ":slices=2")
    surprise = 45
    coded = [(*units, units[-1]) if number == surprise else units for number, units in enumerate(true)]
    found, _, units = put_together(pieces_of(coded, "h264", filled), "h264")
    assert not units.is_trusted
    whole = [b"".join(piece.data for piece in pieces_of([each], "h264", filled)) for each in true]
    assert [bytes(unit.data) for unit in found] == whole


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("options", ["", ":slices=4"])
def test_pictures_of_one_stream_time_stay_apart(codec: str, options: str) -> None:
    pieces = [piece._replace(pts=0) for piece in pieces_of(pictures(codec, options), codec, filled)]
    found, _, _ = put_together(pieces, codec)
    assert len(found) == COUNT
    assert b"".join(unit.data for unit in found) == b"".join(piece.data for piece in pieces)


def test_pictures_that_were_put_together_decode() -> None:
    found, _, _ = put_together(pieces_of(pictures("h264"), "h264", filled), "h264")
    decoder: Any = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    frames = [frame for unit in found for frame in decoder.decode(av.Packet(bytes(unit.data)))]
    frames += decoder.decode(None)
    assert len(frames) == COUNT
    assert not any(frame.is_corrupt for frame in frames)


def test_nothing_comes_of_nothing() -> None:
    assert not list(AccessUnits("h264").rest())


@pytest.mark.parametrize("data", [b"", START, START + b"\x65", b"\x00\x00\x00", bytes(100)])
def test_odd_pieces_are_handed_on(data: bytes) -> None:
    for codec in ("h264", "hevc"):
        units = AccessUnits(codec)
        list(units.add(Piece(data, 0)))
        list(units.add(Piece(data, 1)))
        assert [bytes(unit.data) for unit in units.rest()] == [data]


@given(
    st.sampled_from(["h264", "hevc"]),
    st.lists(st.tuples(st.booleans(), st.binary(max_size=12), st.integers(0, 3)), max_size=40),
)
def test_whatever_comes_is_handed_on_in_order(codec: str, parts: list[tuple[bool, bytes, int]]) -> None:
    pieces = [Piece((START if begins else b"") + data, pts) for begins, data, pts in parts]
    found, _, units = put_together(pieces, codec)
    assert not units.is_trusted
    assert b"".join(unit.data for unit in found) == b"".join(piece.data for piece in pieces)


def test_memory_is_bounded_where_no_picture_begins() -> None:
    units, data = AccessUnits("h264"), bytes(1 << 20)
    given_bytes = [len(unit.data) for _ in range(2 * MAX_BYTES >> 20) for unit in units.add(Piece(data, 0))]
    assert given_bytes
    assert max(given_bytes) <= MAX_BYTES + len(data)
