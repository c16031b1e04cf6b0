"""Live images: made only for subscribers, at the size and rate of the topic."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zmq

from engine.data import Detections, Frame, Packet, Run, Tracks
from engine.sinks.media import MediaPublisher
from engine.sinks.media_demand import picture_request, picture_topic
from engine.sinks.pictures import Pictures
from engine.sources.synthetic import Scene, SyntheticSource
from engine.video.read_image import decode_image
from engine.wire import ImageMessage, decode
from tests.patience import AT_ONCE_S

RUN = Run("engine", 1, "model", ("person",))
SCENE = SyntheticSource(Scene(width=800, height=600, objects=1, seed=2))
SOURCE = "gate/2"


def packet(frame_id: int) -> Packet:
    found = SCENE.truth(frame_id)
    found = Detections(found.xyxy, found.score, np.zeros(1, np.int32))
    return Packet(Frame(SCENE.image(frame_id), SOURCE, frame_id), found, Tracks.empty(), RUN)


@pytest.fixture
def media() -> Iterator[MediaPublisher]:
    made = MediaPublisher("tcp://127.0.0.1:*")
    made.open(RUN)
    yield made
    made.close()


@pytest.fixture
def reader(media: MediaPublisher) -> Iterator[zmq.Socket[Any]]:
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger, socket.rcvtimeo = 0, int(AT_ONCE_S * 1000)
        socket.connect(media.address)
        yield socket


def until(media: MediaPublisher, count: int) -> None:
    """Wait until this many topics are subscribed to."""
    deadline = time.monotonic() + AT_ONCE_S
    while len(media.wanted) != count and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(media.wanted) == count


def test_nothing_is_encoded_while_nobody_subscribes(media: MediaPublisher, reader: zmq.Socket[Any]) -> None:
    topic = picture_topic(SOURCE, 320, 30)
    media.write(packet(0))
    reader.subscribe(topic)
    until(media, 1)
    media.write(packet(1))
    assert [reader.recv_multipart()[0], media.encoded[SOURCE]] == [topic.encode(), 1]
    reader.unsubscribe(topic)
    until(media, 0)
    for number in range(2, 6):
        media.write(packet(number))
    assert media.encoded[SOURCE] == 1


def test_a_picture_has_the_size_of_its_topic_and_says_which_frame_it_is(
    media: MediaPublisher, reader: zmq.Socket[Any]
) -> None:
    for side in (320, 640):
        reader.subscribe(picture_topic(SOURCE, side, 30))
    until(media, 2)
    media.write(packet(7))
    widths = set()
    for _ in range(2):
        _, body, jpeg = reader.recv_multipart()
        message = decode(body)
        assert isinstance(message, ImageMessage)
        assert (message.frame_id, message.source_id, message.region) == (7, SOURCE, [0, 0, 800, 600])
        widths.add(decode_image(np.frombuffer(jpeg, np.uint8)).shape[1])
    assert widths == {320, 640}
    assert media.encoded[SOURCE] == 2


def test_the_rate_of_the_topic_is_kept(media: MediaPublisher, reader: zmq.Socket[Any]) -> None:
    reader.subscribe(picture_topic(SOURCE, 320, 1))
    until(media, 1)
    for number in range(20):
        media.write(packet(number))
        time.sleep(0.01)
    assert media.encoded[SOURCE] == 1


@pytest.mark.parametrize(
    "topic",
    [b"v1/", b"v1/picture/", b"v1/picture/gate/", b"v1/picture/gate/640/7/", b"v1/picture/gate/100000/10/", b"\xff/"],
)
def test_other_subscriptions_make_no_pictures(media: MediaPublisher, reader: zmq.Socket[Any], topic: bytes) -> None:
    assert picture_request(topic) is None
    reader.setsockopt(zmq.SUBSCRIBE, topic)
    reader.subscribe(picture_topic(SOURCE, 320, 30))
    until(media, 1)


def test_what_must_be_hidden_is_hidden(reader: zmq.Socket[Any]) -> None:
    """Sizes that do not fit the regions send nothing; a blurred class is named in the message."""
    made = MediaPublisher("tcp://127.0.0.1:*", pictures=Pictures(blur=("person",)))
    made.open(RUN)
    try:
        reader.connect(made.address)
        reader.subscribe(picture_topic(SOURCE, 640, 30))
        until(made, 1)
        made.write(packet(1))
        message = decode(reader.recv_multipart()[1])
        assert isinstance(message, ImageMessage)
        assert message.blurred == ["person"]
    finally:
        made.close()


def test_closing_is_harmless_when_repeated() -> None:
    made = MediaPublisher("tcp://127.0.0.1:*")
    made.close()
    made.open(RUN)
    made.close()
    made.close()
