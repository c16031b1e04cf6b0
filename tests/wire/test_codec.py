"""Messages survive both encodings; anything else is refused with `WireError` and no other error."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings

from engine.errors import ConfigError, WireError
from engine.wire import (
    MAJOR,
    MESSAGE_TYPES,
    MINOR,
    FrameMessage,
    Message,
    VersionError,
    check_encoding,
    decode,
    encode,
    kind_of,
    topic_for,
    topic_of,
)
from tests.wire.samples import SAMPLES
from tests.wire.strategies import MESSAGES

GOLDEN = Path(__file__).parent / "golden"
KINDS = sorted(MESSAGE_TYPES)
Encoding = Literal["json", "msgpack"]
ENCODINGS: tuple[Encoding, ...] = ("json", "msgpack")


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=150, deadline=None)
@given(message=MESSAGES)
def test_any_message_survives_encoding_and_decoding(encoding: Encoding, message: Message) -> None:
    assert decode(encode(message, encoding)) == message


@settings(max_examples=100, deadline=None)
@given(message=MESSAGES)
def test_both_encodings_have_the_same_content(message: Message) -> None:
    assert json.loads(encode(message)) == msgspec.msgpack.decode(encode(message, "msgpack"))


@pytest.mark.parametrize("kind", KINDS)
def test_golden_files_of_this_version_are_what_is_written(kind: str) -> None:
    folder = GOLDEN / f"{MAJOR}.{MINOR}"
    assert encode(SAMPLES[kind]) + b"\n" == (folder / f"{kind}.json").read_bytes()
    assert encode(SAMPLES[kind], "msgpack") == (folder / f"{kind}.msgpack").read_bytes()


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/*.*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_golden_files_of_every_version_are_read(path: Path) -> None:
    message = decode(path.read_bytes())
    assert kind_of(message) == path.stem
    assert message.engine_id == "engine-1"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_later_minor_version_with_unknown_fields_is_read(kind: str, encoding: Encoding) -> None:
    later = json.loads(encode(SAMPLES[kind]))
    later["schema"] = later["schema"].replace(f"/{MAJOR}.{MINOR}", "/1.17")
    later["new_field"] = {"deep": [1, {"er": None}]}
    for found in later.get("objects", []):
        found["new_field"] = [1.5]
    body = msgspec.json.encode(later) if encoding == "json" else msgspec.msgpack.encode(later)
    read = decode(body)
    assert msgspec.structs.replace(read, schema=SAMPLES[kind].schema) == SAMPLES[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_another_major_version_is_refused_by_name(kind: str) -> None:
    other = json.loads(encode(SAMPLES[kind]))
    other["schema"] = f"framewire.{kind}/2.0"
    with pytest.raises(VersionError, match=rf"framewire\.{kind}/2\.0, this reader knows 1\.x"):
        decode(msgspec.json.encode(other))


def test_fields_with_defaults_may_be_absent() -> None:
    body = json.loads(encode(SAMPLES["frame"]))
    body["objects"] = [{"track_id": 1, "class_id": 0, "class_name": "person", "score": 0.5, "xyxy": [0, 0, 1, 1]}]
    read = decode(msgspec.json.encode(body))
    assert isinstance(read, FrameMessage)
    assert read.objects[0].age == 1
    assert read.objects[0].mask is None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="one brace"),
        pytest.param(b"{}", id="no schema"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"schema":1}', id="schema is a number"),
        pytest.param(b'{"schema":"framewire.frame/1.0"}', id="fields missing"),
        pytest.param(b'{"schema":"other.frame/1.0"}', id="another family"),
        pytest.param(b'{"schema":"framewire.dream/1.0"}', id="unknown kind"),
        pytest.param(b'{"schema":"framewire.frame/1.0.0"}', id="version with three numbers"),
        pytest.param(b'{"schema":"\xff\xfe"}', id="no UTF-8"),
        pytest.param(b'{"schema":"framewire.eos/1.0","seq":' + b"9" * 5000 + b"}", id="huge number"),
        pytest.param(b'{"schema":"framewire.eos/1.0","x":' + b"[" * 1_000_000, id="deep array"),
        pytest.param(b'{"schema":"framewire.eos/1.0","x":' + b'{"a":' * 500_000, id="deep object"),
        pytest.param(b"\x82\xa6schema\xb1framewire.eos/1.0\xa1x" + b"\x91" * 1_000_000, id="deep msgpack"),
        pytest.param(b"\x82\xa6schema\xb3framewire.frame/1.0\xa7objects\xdd\xff\xff\xff\xff", id="array of 4 billion"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="map of 4 billion"),
        pytest.param(b"\x81\xa6schema\xdb\xff\xff\xff\xff", id="string of 4 GB"),
        pytest.param(encode(SAMPLES["frame"])[:-1], id="cut by a byte"),
        pytest.param(encode(SAMPLES["frame"], "msgpack")[:-1], id="msgpack cut by a byte"),
        pytest.param(encode(SAMPLES["frame"]) + b"x", id="a byte too many"),
        pytest.param(encode(SAMPLES["frame"]).replace(b'"seq":41', b'"seq":-41'), id="negative seq"),
        pytest.param(encode(SAMPLES["frame"]).replace(b"[10.5,20.25,110.0,220.75]", b"[1,2]"), id="box of two numbers"),
    ],
)
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(WireError):
        decode(body)


def test_a_body_over_the_limit_is_refused_before_it_is_parsed() -> None:
    body = encode(SAMPLES["frame"])
    assert decode(body, max_bytes=len(body)) == SAMPLES["frame"]
    with pytest.raises(WireError, match="over the limit"):
        decode(body, max_bytes=len(body) - 1)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_mutated_and_random_bytes_never_raise_anything_else(encoding: Encoding) -> None:
    rng = random.Random(20)
    bodies = [bytearray(encode(message, encoding)) for message in SAMPLES.values()]
    for _ in range(4000):
        body = bytearray(rng.choice(bodies))
        for _ in range(rng.randint(1, 8)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        if rng.random() < 0.2:
            body = body[: rng.randrange(len(body))]
        try:
            read = decode(bytes(body))
        except WireError:
            continue
        assert type(read) in MESSAGE_TYPES.values()


@pytest.mark.parametrize(
    ("source_id", "topic"),
    [
        pytest.param("gate", "v1/frame/gate/", id="plain"),
        pytest.param("", "v1/frame//", id="empty"),
        pytest.param("a/b", "v1/frame/a%2Fb/", id="slash"),
        pytest.param("50%", "v1/frame/50%25/", id="percent"),
        pytest.param("a\nb\x00", "v1/frame/a%0Ab%00/", id="control characters"),
        pytest.param("tür 3", "v1/frame/tür 3/", id="letters and spaces stay"),
    ],
)
def test_topics_of_two_sources_never_contain_each_other(source_id: str, topic: str) -> None:
    assert topic_for("frame", source_id) == topic
    assert not topic_for("frame", source_id + "0").startswith(topic)


def test_a_heartbeat_is_on_the_topic_of_its_engine() -> None:
    assert topic_of(SAMPLES["heartbeat"]) == "v1/heartbeat/engine-1/"
    assert topic_of(SAMPLES["status"]) == "v1/status/gate/"


def test_a_text_that_is_no_unicode_cannot_be_written() -> None:
    with pytest.raises(WireError, match="cannot be written"):
        encode(msgspec.structs.replace(SAMPLES["eos"], reason="\ud800"))


def test_an_unknown_encoding_is_refused() -> None:
    assert check_encoding("msgpack") == "msgpack"
    with pytest.raises(ConfigError, match="protobuf"):
        check_encoding("protobuf")
