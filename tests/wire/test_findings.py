"""What analytics find, on the wire."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.analytics.analyser import SceneAnalyser
from engine.analytics.analytics import Analytics
from engine.analytics.places import Ground, Line, Zone
from engine.analytics.rules import Presence
from engine.data import Detections, Frame, Packet, Run
from engine.wire import EventMessage, FrameMessage, analytics_message, decode, encode, finding_message, frame_message
from engine.wire.findings import Moment
from tests.analytics.scripted import tracks_of, walk

NS = 1_000_000_000
UTC = 1_790_000_000 * NS
RUN = Run("engine-1", 7, class_names=("person",))
ALL = Zone(
    "all",
    [(0, 0), (640, 0), (640, 480), (0, 480)],
    ground=Ground([(0, 480), (640, 480), (640, 0), (0, 0)], [(0, 0), (64, 0), (64, 48), (0, 48)]),
)
DOOR = Line("door", [(320, 480), (320, 0)])


def _packets() -> list[Packet]:
    """Return 3 s of a person who walks through a door, at 10 fps."""
    analyser = SceneAnalyser(Analytics([ALL], [DOOR], [Presence("there", zone="all", for_s=1, severity="alert")]))
    image, packets = np.zeros((480, 640, 3), np.uint8), []
    for number, box in enumerate(walk((200, 300), (440, 300), 31)):
        frame = Frame(image, "gate", number, captured_ns=number * NS // 10, captured_utc_ns=UTC + number * NS // 10)
        packets += analyser.analyse([Packet(frame, Detections.empty(), tracks_of({4: box}), RUN, seq=number)])
    return packets


def test_objects_carry_their_zones_speed_and_identity() -> None:
    message = decode(encode(frame_message(_packets()[-1])))
    assert isinstance(message, FrameMessage)
    (found,) = message.objects
    assert (found.track_id, found.zones, found.identity, found.parked) == (4, ["all"], 1, False)
    assert found.kmh == pytest.approx(28.8, abs=0.2)


def test_a_frame_without_analytics_has_none_of_the_new_fields() -> None:
    body = encode(frame_message(replace(_packets()[-1], analyses={})))
    for name in (b"zones", b"kmh", b"identity", b"parked"):
        assert name not in body


def test_findings_become_events_in_wall_clock() -> None:
    events = []
    for packet in _packets():
        for finding in packet.findings:
            message = finding_message(finding, Moment.of(packet), RUN, seq=len(events), published_utc_ns=UTC)
            assert decode(encode(message)) == message
            events.append(message)
    entered, begin, crossed = events
    assert (entered.event, entered.phase, entered.place, entered.began_utc_ns) == ("zone_entered", "point", "all", UTC)
    assert (begin.event, begin.rule, begin.severity, begin.event_id) == (
        "rule_began",
        "there",
        "alert",
        "gate-7-there-1",
    )
    assert begin.captured_utc_ns == UTC + NS
    assert begin.frame_id == 10
    assert begin.why == ["in all for 1.00 s >= for_s 1"]
    assert (crossed.event, crossed.data["direction"], crossed.at) == ("line_crossed", "left_to_right", [320.0, 300.0])
    assert crossed.began_utc_ns == pytest.approx(UTC + 1.5 * NS, abs=2)
    assert isinstance(crossed, EventMessage)
    assert b'"rule"' not in encode(crossed)


def test_totals_of_a_source() -> None:
    packet = _packets()[-1]
    message = analytics_message(packet.analytics, Moment.of(packet), RUN, seq=3, published_utc_ns=UTC)
    assert decode(encode(message, "msgpack")) == message
    assert message.zones == {"all": {"person": 1}}
    assert message.visits == {"all": 1}
    assert message.lines == {"door": {"left_to_right": {"person": 1}, "right_to_left": {}}}
    assert (message.since_utc_ns, message.blind_s, message.open) == (UTC, 0.0, ["gate-7-there-1"])
    assert message.captured_utc_ns == UTC + 3 * NS
