"""The fence lets pass only the newest owner of each source, and nothing that is not a message."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.clock import FakeClock
from engine.wire import FrameMessage, HeartbeatMessage, encode, topic_of
from engine.wire.codec import Encoding
from engine.wire.fence import EpochFence, Verdict
from tests.wire.samples import SAMPLES

FRAME = SAMPLES["frame"]
OWNED = ("frame", "status", "event", "stats", "eos", "image", "crop", "analytics")


def frame(epoch: int | None, *, engine_id: str = "a", source_id: str = "gate") -> tuple[bytes, bytes]:
    assert isinstance(FRAME, FrameMessage)
    message = replace(FRAME, engine_id=engine_id, source_id=source_id)
    if epoch is not None:
        message = replace(message, owner_epoch=epoch)
    return topic_of(message).encode(), encode(message)


def test_a_lower_epoch_does_not_pass_once_a_higher_one_was_seen() -> None:
    fence = EpochFence()
    steps: list[tuple[int | None, str, Verdict]] = [
        (None, "a", "passed"),
        (3, "a", "passed"),
        (3, "a", "passed"),
        (2, "a", "fenced"),
        (None, "b", "fenced"),
        (3, "b", "fenced"),  # one epoch has one owner
        (4, "b", "passed"),
        (3, "a", "fenced"),
    ]
    for epoch, engine_id, verdict in steps:
        assert fence.look_at(*frame(epoch, engine_id=engine_id)) == verdict, (epoch, engine_id)
    assert fence.epoch_of("gate") == 4
    assert fence.look_at(*frame(1, source_id="yard")) == "passed"
    assert fence.refused == {"fenced": 4}


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize("kind", OWNED)
def test_every_kind_about_a_source_is_fenced_in_both_encodings(kind: str, encoding: Encoding) -> None:
    fence = EpochFence()
    older, newer = (replace(SAMPLES[kind], owner_epoch=epoch) for epoch in (7, 8))  # type: ignore[arg-type]
    topic = topic_of(older).encode()
    assert fence.look_at(topic, encode(newer, encoding)) == "passed"
    assert fence.look_at(topic, encode(older, encoding)) == "fenced"


def test_heartbeats_always_pass() -> None:
    beat = SAMPLES["heartbeat"]
    assert isinstance(beat, HeartbeatMessage)
    assert EpochFence().look_at(topic_of(beat).encode(), encode(beat)) == "passed"


@pytest.mark.parametrize(
    ("topic", "body"),
    [
        pytest.param(b"v1/frame/gate/", b"", id="empty body"),
        pytest.param(b"v1/frame/gate/", b"{" * 10_000, id="deep"),
        pytest.param(b"v1/frame/yard/", frame(1)[1], id="another source than the topic's"),
        pytest.param(b"v1/event/gate/", frame(1)[1], id="another kind than the topic's"),
        pytest.param(b"v2/frame/gate/", frame(1)[1], id="another version"),
        pytest.param(b"", frame(1)[1], id="no topic"),
        pytest.param(b"v1/frame/" + b"x" * 2000 + b"/", frame(1)[1], id="long topic"),
        pytest.param(b"v1/frame/gate/", frame(1)[1].replace(b'"owner_epoch":1', b'"owner_epoch":-1'), id="negative"),
        pytest.param(
            b"v1/frame/gate/", frame(1)[1].replace(b'"owner_epoch":1', b'"owner_epoch":' + b"9" * 18), id="huge"
        ),
        pytest.param(b"v1/frame/gate/", frame(1, engine_id="e" * 300)[1], id="long name"),
    ],
)
def test_what_is_no_message_is_refused_and_takes_nothing_over(topic: bytes, body: bytes) -> None:
    fence = EpochFence()
    assert fence.look_at(topic, body) == "malformed"
    assert len(fence) == 0


@settings(max_examples=200, deadline=None)
@given(topic=st.binary(max_size=60), body=st.binary(max_size=200), prefix=st.sampled_from([b"", b"v1/frame/", b"{"]))
def test_any_bytes_are_judged_without_an_error(topic: bytes, body: bytes, prefix: bytes) -> None:
    assert EpochFence().look_at(prefix + topic, prefix + body) == "malformed"


def test_without_room_new_sources_are_refused_and_known_ones_go_on() -> None:
    clock = FakeClock()
    fence = EpochFence(limit=2, clock=clock)
    for name in ("gate", "yard"):
        assert fence.look_at(*frame(5, source_id=name)) == "passed"
    assert fence.look_at(*frame(1, source_id="hall")) == "overfull"
    assert fence.look_at(*frame(None, source_id="hall")) == "passed"  # not of a fleet
    clock.advance(400)
    assert fence.look_at(*frame(5, source_id="gate")) == "passed"
    clock.advance(400)
    assert fence.look_at(*frame(1, source_id="hall")) == "passed"  # `yard` was silent for ten minutes
    assert fence.look_at(*frame(4, source_id="gate")) == "fenced"
    assert len(fence) == 2
