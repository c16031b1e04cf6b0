"""Formats by name, and the messages for which each has a body."""

from __future__ import annotations

import io
import json
from xml.etree import ElementTree

import pytest

from engine.errors import ConfigError
from engine.wire import encode, frame_message
from pipelines.stream.adapters.forms import form_by_name
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
    with pytest.raises(ConfigError, match=r"does not go to .*csv"):
        output_for("x.csv", "frigate")
