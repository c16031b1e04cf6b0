"""Two engines that share a name are told apart, and not taken for one that restarts all the time."""

from __future__ import annotations

import logging

import msgspec
import pytest

from engine.subscriber.reader import Gap, MessageReader
from engine.wire import FrameMessage, Message, encode, topic_of
from tests.wire.samples import SAMPLES


def parts(kind: str, seq: int, epoch: int, **fields: object) -> list[bytes]:
    message: Message = msgspec.structs.replace(
        SAMPLES[kind], seq=seq, run_epoch=epoch, published_utc_ns=10_000 + seq, **fields
    )
    return [topic_of(message).encode(), encode(message)]


def test_two_engines_of_one_name_are_no_restarts(caplog: pytest.LogCaptureFixture) -> None:
    gaps: list[Gap] = []
    restarts: list[Message] = []
    reader = MessageReader(on_gap=gaps.append, on_restart=restarts.append)
    with caplog.at_level(logging.WARNING):
        for seq in range(20):
            reader.read(parts("heartbeat", seq, 100, frame_seq={}))
            reader.read(parts("heartbeat", seq, 200, frame_seq={}))
    assert reader.restarts == len(restarts) <= 1
    assert gaps == []
    assert len([text for text in caplog.messages if "give each its own pipeline.engine_id" in text]) == 1


def test_an_engine_that_restarts_many_times_is_counted_and_does_not_fill_the_memory() -> None:
    reader = MessageReader()
    for run in range(50):
        for seq in range(3):
            reader.read(parts("status", seq, 1_000 * run, source_id="gate"))
    assert reader.restarts == 49
    assert len(reader._last) < 10


def test_what_a_restarted_engine_sent_before_it_was_heard_is_a_gap() -> None:
    gaps: list[Gap] = []
    reader = MessageReader(on_gap=gaps.append)
    reader.read(parts("status", 0, 100, source_id="gate"))
    reader.read(parts("status", 2, 20_000, source_id="gate"))
    assert gaps == [Gap("v1/status/gate/", 0, 1, 20_000, "restart")]


def test_a_camera_that_moves_to_another_engine_and_back_is_neither_lost_nor_restarted() -> None:
    gaps: list[Gap] = []
    reader = MessageReader(on_gap=gaps.append)
    moves = [("one", 100, range(3), 1), ("two", 200, range(3), 2), ("one", 100, range(3, 6), 3)]
    for engine_id, run_epoch, numbers, owner_epoch in moves:
        for seq in numbers:
            message = reader.read(parts("frame", seq, run_epoch, engine_id=engine_id, owner_epoch=owner_epoch))
            assert isinstance(message, FrameMessage)
            assert message.owner_epoch == owner_epoch
        reader.read(
            parts("heartbeat", owner_epoch // 2, run_epoch, engine_id=engine_id, frame_seq={"gate": numbers[-1]})
        )
    assert gaps == []
    assert reader.restarts == 0
