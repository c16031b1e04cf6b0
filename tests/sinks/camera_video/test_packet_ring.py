"""The packets kept in memory before an event."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from engine.clock import NS_PER_S
from engine.sinks.camera_video.packet_ring import Held, PacketRing
from engine.sinks.camera_video.segments import Captured


def packet(number: int, *, gop: int = 10, fps: int = 10, size: int = 100) -> Held:
    coded = SimpleNamespace(number=number, is_keyframe=number % gop == 0, size=size)
    return Held(coded, None, Captured(0), number * NS_PER_S // fps)


def numbers(ring: PacketRing) -> list[int]:
    return [held.packet.number for held in ring.drain()]


@pytest.mark.parametrize(("count", "first"), [(35, 0), (55, 20), (59, 20), (60, 20), (61, 30), (70, 30), (71, 40)])
def test_it_reaches_back_for_its_time_and_begins_at_a_keyframe(count: int, first: int) -> None:
    ring = PacketRing(before_s=3.0)
    for number in range(count):
        ring.add(packet(number))
    assert ring.seconds(packet(count - 1).read_ns) >= min(3.0, (count - 1) / 10)
    assert numbers(ring) == list(range(first, count))


def test_packets_before_the_first_keyframe_are_left_out() -> None:
    ring = PacketRing(before_s=3.0)
    for number in range(5, 25):
        ring.add(packet(number))
    assert numbers(ring) == list(range(10, 25))


def test_drained_it_goes_on_at_the_next_keyframe() -> None:
    ring = PacketRing(before_s=3.0)
    for number in range(15):
        ring.add(packet(number))
    assert numbers(ring) == list(range(15))
    assert (ring.bytes, ring.seconds(0)) == (0, 0.0)
    for number in range(15, 23):
        ring.add(packet(number))
    assert numbers(ring) == [20, 21, 22]


def test_its_memory_is_bounded_by_dropping_the_oldest_group() -> None:
    ring = PacketRing(before_s=1000.0, max_bytes=2500)
    for number in range(100):
        ring.add(packet(number))
        assert ring.bytes <= 2500
    kept = numbers(ring)
    assert kept == list(range(80, 100))
    assert ring.overflows == 8


def test_a_group_too_large_for_it_is_dropped_until_the_next_keyframe() -> None:
    ring = PacketRing(before_s=1000.0, max_bytes=550)
    for number in range(8):
        ring.add(packet(number))
    assert numbers(ring) == []
    for number in range(8, 13):
        ring.add(packet(number))
    assert numbers(ring) == [10, 11, 12]
