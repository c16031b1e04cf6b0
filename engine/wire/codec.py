"""Encodes messages to bytes and decodes them: JSON by default, msgpack on request, recognised by the first byte."""

from __future__ import annotations

import re
from typing import Any, Literal, cast
from urllib.parse import unquote

import msgspec

from engine.errors import ConfigError, WireError
from engine.wire.messages import MESSAGE_TYPES, Message
from engine.wire.version import MAJOR, MINOR, TOPIC_ROOT

Encoding = Literal["json", "msgpack"]
MAX_BODY_BYTES = 8 * 1024 * 1024

_SCHEMA = re.compile(r"framewire\.([a-z_]{1,32})/(\d{1,4})\.(\d{1,4})", re.ASCII)
_KIND_OF_TYPE: dict[type[Any], str] = {message_type: kind for kind, message_type in MESSAGE_TYPES.items()}
_ESCAPES = {code: f"%{code:02X}" for code in [*range(32), 127, ord("/"), ord("%")]}


class VersionError(WireError):
    """A message of a major version that this reader does not support."""


class _Header(msgspec.Struct, gc=False):
    schema: str


_JSON_ENCODER = msgspec.json.Encoder()
_MSGPACK_ENCODER = msgspec.msgpack.Encoder()
_JSON_HEADER = msgspec.json.Decoder(_Header)
_MSGPACK_HEADER = msgspec.msgpack.Decoder(_Header)
_JSON_DECODERS = {kind: msgspec.json.Decoder(message_type) for kind, message_type in MESSAGE_TYPES.items()}
_MSGPACK_DECODERS = {kind: msgspec.msgpack.Decoder(message_type) for kind, message_type in MESSAGE_TYPES.items()}


def encode(message: Message, encoding: Encoding = "json") -> bytes:
    """Return the body of a message.

    Raises:
        WireError: a number does not fit into 64 bits (msgpack), or a text is not valid Unicode.
    """
    encoder = _JSON_ENCODER if encoding == "json" else _MSGPACK_ENCODER
    try:
        return encoder.encode(message)
    except (OverflowError, UnicodeEncodeError) as error:
        raise WireError(f"{kind_of(message)} message cannot be written as {encoding}: {error}") from error


def decode(body: bytes, *, max_bytes: int = MAX_BODY_BYTES) -> Message:
    """Return the message in `body`, JSON or msgpack; unknown fields are ignored.

    Raises:
        VersionError: the message is of another major version.
        WireError: the body is longer than `max_bytes`, not a message, or of an unknown kind.
    """
    if len(body) > max_bytes:
        raise WireError(f"body of {len(body)} bytes is over the limit of {max_bytes}: raise max_bytes if it is genuine")
    is_json = body[:1] == b"{"
    try:
        header = (_JSON_HEADER if is_json else _MSGPACK_HEADER).decode(body)
        kind = kind_of_schema(header.schema)
        return (_JSON_DECODERS if is_json else _MSGPACK_DECODERS)[kind].decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise WireError(f"body of {len(body)} bytes is not a message ({error or type(error).__name__})") from error


def kind_of(message: Message) -> str:
    """Return the kind of a message, as in its topic."""
    return _KIND_OF_TYPE[type(message)]


def kind_of_schema(schema: str) -> str:
    """Return the kind in a schema name.

    >>> kind_of_schema("framewire.frame/1.7")
    'frame'

    Raises:
        VersionError: it is of another major version.
        WireError: it is not a schema of this family, or of an unknown kind.
    """
    match = _SCHEMA.fullmatch(schema)
    if match is None:
        raise WireError(f"schema {schema[:64]!r} does not have the form framewire.<kind>/<major>.<minor>")
    kind, major = match.group(1), int(match.group(2))
    if major != MAJOR:
        raise VersionError(
            f"message is {schema}, this reader knows {MAJOR}.x ({MAJOR}.{MINOR}): use a matching framewire"
        )
    if kind not in MESSAGE_TYPES:
        raise WireError(
            f"message kind {kind!r} is unknown in {MAJOR}.{MINOR}; expected one of: {', '.join(MESSAGE_TYPES)}"
        )
    return kind


def topic_for(kind: str, source_id: str) -> str:
    """Return the topic of a kind and source; the trailing slash keeps `cam1` from matching `cam10`.

    A slash, percent sign or control character in `source_id` is percent-encoded.

    >>> topic_for("frame", "gate")
    'v1/frame/gate/'
    """
    return f"{TOPIC_ROOT}/{kind}/{source_id.translate(_ESCAPES)}/"


def source_in_topic(topic: str) -> str:
    """Return the source that a topic names.

    >>> source_in_topic(topic_for("frame", "yard/2"))
    'yard/2'

    Raises:
        ValueError: it is not a topic of a source.
    """
    parts = topic.split("/")
    if len(parts) < 4 or parts[0] != TOPIC_ROOT:
        raise ValueError(f"{topic[:64]!r} does not have the form {TOPIC_ROOT}/<kind>/<source>/")
    return unquote(parts[2])


def topic_of(message: Message) -> str:
    """Return the topic of a message: by source, or by engine for heartbeats."""
    name = getattr(message, "source_id", None)
    return topic_for(kind_of(message), message.engine_id if name is None else name)


def check_encoding(encoding: str) -> Encoding:
    """Return `encoding` if it is supported.

    Raises:
        ConfigError: it is not.
    """
    if encoding not in ("json", "msgpack"):
        raise ConfigError(f"encoding {encoding!r} is unknown: choose json or msgpack")
    return cast(Encoding, encoding)
