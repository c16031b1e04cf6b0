"""Analytics in a pipeline: one scene per source, driven by packets and states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.analytics.analyser import SceneAnalyser
from engine.analytics.analytics import Analytics
from engine.analytics.places import Line, Zone
from engine.analytics.rules import Blind, Presence
from engine.clock import NS_PER_S, FakeClock
from engine.data import Detections, Frame, Packet, Run, SourceInfo, SourceStatus, TrackEvent
from tests.analytics.scripted import standing, tracks_of, walk

ALL = Zone("all", [(0, 0), (1, 0), (1, 1), (0, 1)])
DOOR = Line("door", [(0.5, 1), (0.5, 0)])
RUN = Run("engine", 1, class_names=("person",))
IMAGE = np.zeros((480, 640, 3), np.uint8)
CAMERA = SourceInfo("gate", "rtsp://gate", is_live=True)


def _packet(boxes: dict, number: int, source_id: str = "gate", **more: object) -> Packet:
    frame = Frame(IMAGE, source_id, number, captured_ns=number * NS_PER_S // 10, captured_utc_ns=10**18)
    packet = Packet(frame, Detections.empty(), tracks_of(boxes), RUN)
    return replace(packet, **more) if more else packet


def test_every_source_has_a_scene_of_its_own() -> None:
    analyser = SceneAnalyser(Analytics([ALL], [DOOR]))
    for number, box in enumerate(walk((200, 300), (440, 300), 30)):
        packets = [_packet({1: box}, number, "left"), _packet({}, number, "right")]
        left, right = analyser.analyse(packets)
    assert left.analytics.totals["door"]["left_to_right"] == 1
    assert right.analytics.totals["door"]["left_to_right"] == 0
    assert left.analytics.class_names == ("person",)
    analyser.close()
    assert analyser.summary()["left"]["zones"]["all"]["visits"] == 1


def test_the_end_of_a_source_ends_its_visits_and_says_so() -> None:
    analyser = SceneAnalyser({"gate": Analytics([ALL], [], [Presence("p", zone="all")])})
    for number in range(10):
        analyser.analyse([_packet({1: standing(300, 300)}, number)])
    status = analyser.status(SourceStatus(CAMERA, "ended"))
    assert [(finding.event, finding.reason) for finding in status.analyses["analytics"]] == [
        ("zone_left", "engine_stopped"),
        ("rule_ended", "engine_stopped"),
    ]
    assert analyser.summary()["gate"]["zones"]["all"]["now"] == 1  # inside when the source ended
    analyser.close()
    assert analyser.summary()["gate"]["zones"]["all"]["now"] == 1


def test_tracks_that_the_tracker_ended_end() -> None:
    analyser = SceneAnalyser({"gate": Analytics([ALL])})
    for number in range(40):
        boxes = {1: standing(300, 300)} if number < 10 else {}
        ended = TrackEvent("ended", 1, 0, 0, 0, 0, 1.0, 10, (0.0, 0.0, 1.0, 1.0))
        (packet,) = analyser.analyse([_packet(boxes, number, events=(ended,) if number == 12 else ())])
        if packet.findings and packet.findings[0].event == "zone_left":
            break
    assert number == 25  # stitching waits for 1.5 s after the last observation
    assert packet.findings[0].ended_ns == 9 * NS_PER_S // 10


def test_a_restarted_stream_ends_the_objects_with_its_next_frame() -> None:
    analyser = SceneAnalyser({"gate": Analytics([ALL])})
    for number in range(10):
        analyser.analyse([_packet({1: standing(300, 300)}, number)])
    analyser.reset("gate", "stream_restarted")
    (packet,) = analyser.analyse([_packet({}, 11)])
    assert [finding.reason for finding in packet.findings] == ["stream_restarted"]


def test_a_camera_that_does_not_deliver_is_blind() -> None:
    clock = FakeClock()
    analyser = SceneAnalyser({"gate": Analytics([ALL], [], [Blind("b", for_s=5)])}, clock)
    for number in range(10):
        analyser.analyse([_packet({}, number)])
    clock.advance(1.0)
    assert not analyser.status(SourceStatus(CAMERA, "stalled")).analyses
    clock.advance(6.0)
    (begin,) = analyser.status(SourceStatus(CAMERA, "offline")).analyses["analytics"]
    assert begin.phase == "begin"
    (packet,) = analyser.analyse([_packet({}, 120)])
    assert [finding.phase for finding in packet.findings] == ["end"]
    assert analyser.summary()["gate"]["blind_s"] == 11.0


def test_blind_time_between_two_frames_is_told_on_the_return() -> None:
    clock = FakeClock()
    analyser = SceneAnalyser({"gate": Analytics([], [], [Blind("b", for_s=5)])}, clock)
    analyser.analyse([_packet({}, 0)])
    analyser.status(SourceStatus(CAMERA, "stalled"))
    (packet,) = analyser.analyse([_packet({}, 100)])
    assert [finding.phase for finding in packet.findings] == ["begin", "end"]
    assert packet.findings[1].duration_s == 10.0


def test_a_source_without_a_scene_passes_untouched() -> None:
    analyser = SceneAnalyser({"gate": Analytics([ALL])})
    packet = _packet({}, 0, "other")
    assert analyser.analyse([packet])[0] is packet
    analyser.reset("other", "model_changed")
    assert analyser.status(SourceStatus(SourceInfo("other", "x", is_live=True), "ended")).analyses == {}
