"""Life events of tracks on the wire."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from engine.data import Detections, Frame, Packet, Run, TrackEvent, Tracks
from engine.sinks.zmq import ZmqPublisher
from engine.subscriber import NoMessageError, Subscriber
from engine.wire import EventMessage, decode, encode, event_message

EVENT = TrackEvent("ended", 7, 5_000_000_000, 1, 1_000_000_000, 4_000_000_000, 0.75, 30, (1.0, 2.0, 3.004, 4.0))


def packet(*events: TrackEvent) -> Packet:
    frame = Frame(np.zeros((8, 8, 3), np.uint8), "gate", 50, 5_000_000_000, 99)
    return Packet(frame, Detections.empty(), Tracks.empty(), Run("jetson", 3, "m", ("person", "car")), events=events)


def test_event_says_what_happened_to_which_track() -> None:
    message = event_message(EVENT, packet(EVENT), seq=4)
    assert (message.event, message.track_id, message.class_name, message.seq) == ("track_ended", 7, "car", 4)
    assert message.event_id == "gate-3-7"
    assert message.xyxy == [1.0, 2.0, 3.0, 4.0]
    assert message.data == {"lived_ms": 3000.0, "unseen_ms": 1000.0, "mean_score": 0.75, "hits": 30}
    assert decode(encode(message)) == message


def test_events_of_a_packet_are_published_behind_its_frame(free_port: int) -> None:
    publisher = ZmqPublisher(f"tcp://127.0.0.1:{free_port}")
    publisher.open(packet().run)
    with Subscriber(publisher.address, ["v1/frame/", "v1/event/"], timeout_s=10) as subscriber:
        seen = []
        while not any(isinstance(message, EventMessage) for message in seen):  # until the subscription has arrived
            publisher.write(packet(EVENT))
            with suppress(NoMessageError):
                seen.append(subscriber.receive(0.05))
    publisher.close()
    assert seen[-1].event == "track_ended"
