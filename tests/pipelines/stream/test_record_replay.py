"""A recording is replayed with the same messages at the same pace; only a flag differs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from engine.clock import FakeClock
from engine.errors import ConfigError, SinkError, SourceError
from engine.subscriber import NoMessageError, Subscriber
from engine.wire import HeartbeatMessage, Message, encode, schema_of, topic_of
from engine.wire.stream_file import Recording, RecordingWriter
from pipelines.stream.record import record
from pipelines.stream.replay import Replay, ReplayOptions, replay
from tests.publishing import stream
from tests.wire.samples import SAMPLES, packet

ANY = "tcp://127.0.0.1:*"
MS = 1_000_000


def recording(path: Path, messages: list[Message], step_ms: int = 10) -> Path:
    with RecordingWriter(path) as writer:
        for n, message in enumerate(messages):
            writer.write(n * step_ms * MS, topic_of(message).encode(), encode(message))
    return path


def replayed(path: Path, options: ReplayOptions, count: int) -> list[Message]:
    player = Replay(path, ANY, options)
    player.open()
    found: list[Message] = []

    def listen() -> None:
        with Subscriber(player.address) as subscriber:
            ready.set()
            while len(found) < count:
                message = subscriber.receive(10)
                if message is not None:
                    found.append(message)

    ready = threading.Event()
    thread = threading.Thread(target=listen)
    thread.start()
    assert ready.wait(5)
    player.run()
    thread.join(10)
    player.close()
    return found


def test_what_is_published_is_recorded_as_it_came(tmp_path: Path) -> None:
    with stream(objects=3) as address:
        summary = record(address, tmp_path / "a.fwrec", topics=["v1/frame/"], count=25, timeout_s=10)
    with Recording(tmp_path / "a.fwrec") as made:
        bodies = [each.body for each in made]
    assert summary.messages == len(bodies) == 25
    assert (summary.lost, summary.malformed) == ({}, 0)
    assert all(f'"schema":"{schema_of("frame")}"'.encode() in body for body in bodies)


def test_recording_ends_when_asked_after_its_time_and_on_silence(tmp_path: Path, free_port: int) -> None:
    nobody = f"tcp://127.0.0.1:{free_port}"
    assert record(nobody, tmp_path / "a", stopping=lambda: True).messages == 0
    assert record(nobody, tmp_path / "b", duration_s=0).messages == 0
    with pytest.raises(NoMessageError):
        record(nobody, tmp_path / "c", timeout_s=0.1)


def test_readers_get_the_same_messages_and_a_flag_in_the_heartbeat(tmp_path: Path) -> None:
    messages = [message for kind, message in SAMPLES.items() if kind != "snapshot"]
    path = recording(tmp_path / "a.fwrec", messages)
    found = replayed(path, ReplayOptions(speed=None, wait_for_reader_s=5), len(messages))
    for original, again in zip(messages, found, strict=True):
        if isinstance(again, HeartbeatMessage):
            assert again.replayed
            assert again.endpoints == {}
        else:
            assert again == original


def test_top_speed_loses_nothing(tmp_path: Path) -> None:
    frames: list[Message] = []
    from engine.wire import frame_message

    frames = [frame_message(packet(5, seq=seq)) for seq in range(3000)]
    path = recording(tmp_path / "a.fwrec", frames)
    found = replayed(path, ReplayOptions(speed=None, wait_for_reader_s=5), 3000)
    assert [message.seq for message in found] == list(range(3000))


@pytest.mark.parametrize(("speed", "expected_s"), [(1.0, 0.99), (2.0, 0.495), (0.5, 1.98)])
def test_the_pace_is_that_of_the_recording(tmp_path: Path, speed: float, expected_s: float) -> None:
    path = recording(tmp_path / "a.fwrec", [SAMPLES["status"]] * 100)
    clock = FakeClock()
    player = Replay(path, ANY, ReplayOptions(speed=speed), clock=clock)
    summary = player.run()
    player.close()
    assert summary.messages == 100
    assert summary.recorded_s == pytest.approx(0.99)
    assert clock.monotonic_ns() / 1e9 == pytest.approx(expected_s, abs=0.001)


def test_a_part_may_be_replayed(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.fwrec", [SAMPLES["status"]] * 100)
    player = Replay(path, ANY, ReplayOptions(start_s=0.2, end_s=0.5), clock=FakeClock())
    assert player.run().messages == 31
    player.close()


def test_stopping_ends_a_replay_at_once(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.fwrec", [SAMPLES["status"]] * 3, step_ms=3_600_000)
    player = Replay(path, ANY)
    player.open()
    thread = threading.Thread(target=player.run)
    thread.start()
    player.stop()
    thread.join(2)
    assert not thread.is_alive()
    player.close()


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="speed is 0"):
        ReplayOptions(speed=0)
    with pytest.raises(SourceError, match="No such file"):
        replay(tmp_path / "missing", ANY)
    path = recording(tmp_path / "a.fwrec", [])
    with pytest.raises(SinkError, match="cannot publish"):
        replay(path, "tcp://192.0.2.1:1")
