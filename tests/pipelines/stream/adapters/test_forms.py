"""Formats by name, and the messages for which each has a body."""

from __future__ import annotations

import io
import json
from xml.etree import ElementTree

import msgspec
import pytest

from engine.errors import ConfigError
from engine.wire import encode, frame_message
from pipelines.stream.adapters.forms import form_by_name
from pipelines.stream.adapters.onvif import NAMESPACE
from pipelines.stream.bridges.lines import NdjsonOutput
from pipelines.verbs.stream.bridge import output_for
from tests.wire.samples import SAMPLES, packet

FRAME = frame_message(packet(2))


@pytest.mark.parametrize(
    ("name", "key", "count"),
    [
        pytest.param("framewire", "objects", 1, id="as it is"),
        pytest.param("deepstream", "sensorId", 1, id="deepstream"),
        pytest.param("savant", "source_id", 1, id="savant"),
        pytest.param("frigate", "type", 2, id="frigate: an event per new track"),
    ],
)
def test_a_frame_becomes_json_of_the_format(name: str, key: str, count: int) -> None:
    out = io.BytesIO()
    NdjsonOutput(out, form_by_name(name)).send(FRAME)
    lines = out.getvalue().splitlines()
    assert len(lines) == count
    assert all(key in json.loads(line) for line in lines)


def test_onvif_bodies_are_xml() -> None:
    (body,) = form_by_name("onvif")(FRAME)
    assert ElementTree.fromstring(body).tag.endswith("MetadataStream")


def test_a_format_leaves_out_what_it_has_no_word_for() -> None:
    assert form_by_name("deepstream")(SAMPLES["stats"]) == []
    assert len(form_by_name("savant")(SAMPLES["eos"])) == 1
    assert form_by_name("framewire")(SAMPLES["stats"]) == [encode(SAMPLES["stats"])]


def test_a_message_sent_again_is_not_counted_twice() -> None:
    form = form_by_name("frigate")
    assert form(FRAME) == form(FRAME)
    assert len(form(frame_message(packet(2, seq=1)))) == 0


def test_formats_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of framewire, deepstream"):
        output_for("-", "deepsteam")
    with pytest.raises(ConfigError, match=r"does not work with .*csv"):
        output_for("x.csv", "frigate")


CARRIED = {"framewire": 1, "deepstream": 1, "frigate": 2, "onvif": 1, "savant": 0}


@pytest.mark.parametrize(("name", "count"), CARRIED.items())
def test_an_event_of_a_rule_is_carried_where_the_format_has_a_word(name: str, count: int) -> None:
    assert len(form_by_name(name)(SAMPLES["event"])) == count


def test_counts_are_onvif_notifications() -> None:
    (body,) = form_by_name("onvif")(SAMPLES["analytics"])
    items = ElementTree.fromstring(body).iter(f"{{{NAMESPACE}}}SimpleItem")
    values = [(item.get("Name"), item.get("Value")) for item in items]
    assert [value for name, value in values if name == "Count"] == ["8", "0", "3", "0"]


@pytest.mark.parametrize(("phase", "operation"), [("begin", "Initialized"), ("update", "Changed"), ("end", "Deleted")])
def test_loitering_has_a_topic_of_its_own_in_onvif(phase: str, operation: str) -> None:
    changes = {"event": "rule_began", "phase": phase, "at": msgspec.UNSET, "rule_kind": "loiter"}
    (body,) = form_by_name("onvif")(msgspec.structs.replace(SAMPLES["event"], **changes))  # type: ignore[type-var]
    assert b"tns1:RuleEngine/LoiteringDetector/ObjectIsLoitering" in body
    (message,) = ElementTree.fromstring(body).iter(f"{{{NAMESPACE}}}Message")
    assert message.get("PropertyOperation") == operation
    items = {item.get("Name"): item.get("Value") for item in message.iter(f"{{{NAMESPACE}}}SimpleItem")}
    assert str(items["Since"]) <= str(message.get("UtcTime"))


def test_a_review_has_one_begin_and_one_end_and_none_of_a_run_before() -> None:
    form = form_by_name("frigate")
    types = []
    for phase in ("begin", "update", "update", "end"):
        message = msgspec.structs.replace(SAMPLES["event"], phase=phase)  # type: ignore[type-var]
        types += [json.loads(body)["type"] for body in form(message)]
    assert types == ["new", "update", "update", "end"]
    point = msgspec.structs.replace(SAMPLES["event"], phase="point", event_id="other")  # type: ignore[type-var]
    assert [json.loads(body)["type"] for body in form(point)] == ["new", "end"]


def test_an_event_of_a_track_is_no_review() -> None:
    message = msgspec.structs.replace(SAMPLES["event"], rule=msgspec.UNSET)  # type: ignore[type-var]
    assert form_by_name("frigate")(message) == []
