"""The publishing stage stamps a packet and changes nothing else in it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from engine.clock import FakeClock
from engine.data import Detections, Frame, Packet, Run, TrackEvent, Tracks
from engine.flow.channel import Channel
from engine.flow.lane import FlowContext
from engine.flow.options import PipelineOptions
from engine.flow.publish import PublishStage
from engine.protocols import SinkBase
from engine.stats import PipelineStats

STAMPED = ("seq", "published_utc_ns", "latency_ms", "dropped")


class Kept(SinkBase):
    """A fast sink that keeps what it is given."""

    name = "kept"
    blocking = False

    def __init__(self) -> None:
        self.packets: list[Packet] = []

    def write(self, packet: Packet) -> None:
        self.packets.append(packet)


def full_packet() -> Packet:
    """Return a packet in which every field that publishing does not set differs from its default."""
    rows: Any = ([[0, 0, 4, 4]], [0.9], [0])
    return Packet(
        Frame(np.zeros((8, 8, 3), np.uint8), "gate", captured_ns=1_000_000),
        Detections(*rows),
        Tracks(*rows, [1]),
        Run("engine", 1, "model"),
        {"queue": 1.0},
        is_detected=False,
        is_held=True,
        events=(TrackEvent("new", 1, 0, 0, 0, 0, 0.9, 1, (0.0, 0.0, 4.0, 4.0)),),
        track_classes=np.zeros((1, 1, 2), np.float32),
        analyses={"own": 1},
        hidden=Detections(*rows),
    )


def test_publishing_sets_its_own_fields_and_keeps_all_others() -> None:
    sink, given = Kept(), full_packet()
    clock = FakeClock(now_ns=3_000_000, utc_ns=77)
    context = FlowContext(PipelineOptions(), {}, PipelineStats(clock), clock)
    context.stats.source("gate").add_dropped("overflow", 2)
    stage = PublishStage(given.run, Channel(1), [sink], [], context=context)
    stage.work([given, given])
    first, second = sink.packets
    assert [getattr(first, name) for name in STAMPED] == [0, 77, 2.0, {"overflow": 2}]
    assert [getattr(second, name) for name in STAMPED] == [1, 77, 2.0, {}]
    for name in {field.name for field in fields(Packet)} - set(STAMPED):
        assert getattr(first, name) is getattr(given, name), name
