"""The analytics messages of the publisher."""

from __future__ import annotations

import zmq

from engine.clock import FakeClock
from engine.data import SourceInfo, SourceStatus
from engine.sinks.scene import SceneTraffic
from engine.sinks.zmq import ZmqPublisher
from engine.wire import AnalyticsMessage, EventMessage, SnapshotMessage, decode
from tests.wire.test_findings import RUN, _packets


def test_totals_are_sent_when_they_change_at_most_twice_a_second_and_every_ten_seconds() -> None:
    traffic, packets, clock = SceneTraffic(), _packets(), FakeClock()
    sent = []
    for number, packet in enumerate(packets):
        if traffic.is_due(packet, clock.monotonic_ns()):
            sent.append(number)
        clock.advance(0.1)
    assert sent == [0, 5, 10, 16]  # the first; entered at 3; the rule began at 10; crossed at 16
    for _ in range(250):
        if traffic.is_due(packets[-1], clock.monotonic_ns()):
            sent.append(-1)
        clock.advance(0.1)
    assert sent[4:] == [-1, -1]


def test_readers_get_events_totals_and_a_snapshot_with_both() -> None:
    context = zmq.Context()
    reader, asker = context.socket(zmq.SUB), context.socket(zmq.REQ)
    publisher = ZmqPublisher("tcp://127.0.0.1:*", snapshot="tcp://127.0.0.1:*")
    try:
        publisher.open(RUN)
        reader.subscribe(b"v1/event/")
        reader.subscribe(b"v1/analytics/")
        reader.connect(publisher.address)
        packets = _packets()
        while not reader.poll(50):  # until the subscription has arrived
            publisher.write(packets[0])
        for packet in packets[1:]:
            publisher.write(packet)
        info = SourceInfo("gate", "file", is_live=False)
        last = packets[-1].findings
        publisher.status(SourceStatus(info, "ended").with_analysis("analytics", packets[3].findings or last))
        found = []
        while reader.poll(500):
            found.append(decode(reader.recv_multipart()[1]))
        events = [message.event for message in found if isinstance(message, EventMessage)]
        assert events[:3] == ["zone_entered", "rule_began", "line_crossed"]
        assert any(isinstance(message, AnalyticsMessage) for message in found)
        asker.connect(publisher.endpoints["snapshot"])
        asker.send(b"")
        while not asker.poll(20):
            publisher.tick()
        snapshot = decode(asker.recv_multipart()[-1])
        assert isinstance(snapshot, SnapshotMessage)
        assert isinstance(snapshot.analytics, list)
        assert snapshot.analytics[0].source_id == "gate"
    finally:
        publisher.close()
        context.destroy(linger=0)
