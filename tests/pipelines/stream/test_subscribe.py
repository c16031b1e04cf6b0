"""What `framewire subscribe` prints, and what it reports when nothing arrives."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from engine.sinks.pictures import Pictures
from engine.sinks.zmq import ZmqPublisher
from engine.subscriber import NoMessageError
from engine.transport.keys import KeyPair
from pipelines.stream.subscribe import line_of, print_messages, why_silent
from tests.wire.samples import RUN, SAMPLES, packet


@pytest.fixture
def publisher() -> Iterator[ZmqPublisher]:
    """A publisher whose thread repeatedly sends a frame, an image and heartbeats."""
    yield from _publishing(ZmqPublisher("tcp://127.0.0.1:*", pictures=Pictures(images_per_s=60)))


def _publishing(made: ZmqPublisher) -> Iterator[ZmqPublisher]:
    ready, stop = threading.Event(), threading.Event()

    def publish() -> None:
        made.open(RUN)
        ready.set()
        seq = 0
        while not stop.wait(0.01):
            made.write(packet(1, seq=seq))
            made.tick()
            seq += 1
        made.close()

    thread = threading.Thread(target=publish)
    thread.start()
    ready.wait()
    yield made
    stop.set()
    thread.join()


@pytest.mark.parametrize("kind", sorted(set(SAMPLES) - {"snapshot"}))
def test_every_kind_is_one_short_line(kind: str) -> None:
    line = line_of(SAMPLES[kind])
    assert len(line) < 300
    assert "Message(" not in line
    assert "\n" not in line


def test_pictures_go_to_files_and_not_to_the_terminal(
    publisher: ZmqPublisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "made"
    for as_json in (False, True):
        print_messages(publisher.address, ["v1/image/"], count=1, timeout_s=20, as_json=as_json, pictures=str(folder))
    text, line = capsys.readouterr().out.splitlines()
    assert text.startswith("gate image of frame")
    assert "jpeg" not in json.loads(line)
    files = list(folder.iterdir())
    assert files
    assert all(file.read_bytes().startswith(b"\xff\xd8") for file in files)


def test_a_camera_that_is_not_there_is_met_with_those_that_are(publisher: ZmqPublisher) -> None:
    assert why_silent(publisher.address, ["v1/frame/gaet/"]) == (
        "the engine is running, but sends nothing on v1/frame/gaet/: it has v1/frame/gate/"
    )


def test_no_publisher_is_said_so(free_port: int) -> None:
    assert "is an engine running there?" in why_silent(f"tcp://127.0.0.1:{free_port}", ["v1/"])


def test_an_encrypted_stream_asks_for_its_key() -> None:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    for encrypted in _publishing(ZmqPublisher("tcp://127.0.0.1:*", keys=KeyPair(public, secret))):
        assert "--server-key" in why_silent(encrypted.address, ["v1/"])
        assert "the engine is running" in why_silent(encrypted.address, ["v1/x/"], {"server_key": public})


def test_silence_ends_with_the_error_that_was_asked_for(free_port: int) -> None:
    with pytest.raises(NoMessageError):
        print_messages(f"tcp://127.0.0.1:{free_port}", ["v1/"], count=1, timeout_s=0.2, as_json=True)
