"""The formats of other systems by name, as functions from a message to the bodies to send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from engine.errors import ConfigError
from engine.wire import AnalyticsMessage, EosMessage, EventMessage, FrameMessage, Message, encode
from pipelines.stream.adapters.deepstream import deepstream_minimal
from pipelines.stream.adapters.deepstream_event import deepstream_event
from pipelines.stream.adapters.frigate import Tracks, frigate_events
from pipelines.stream.adapters.frigate_review import Reviews, frigate_reviews
from pipelines.stream.adapters.onvif import onvif_metadata
from pipelines.stream.adapters.onvif_events import onvif_counts, onvif_event
from pipelines.stream.adapters.savant import savant_end, savant_frame

Form = Callable[[Message], list[bytes]]
"""Returns the bodies for a message; none if the format cannot represent it."""
NATIVE, XML = "framewire", "application/xml"


def form_by_name(name: str) -> Form:
    """Return a new converter; it may keep state about tracks, so each stream needs its own.

    Raises:
        ConfigError: an unknown name.
    """
    forms: dict[str, Callable[[], Form]] = {
        NATIVE: lambda: native,
        "deepstream": lambda: _deepstream,
        "savant": lambda: _savant,
        "frigate": _Frigate,
        "onvif": lambda: _onvif,
    }
    if name not in forms:
        raise ConfigError(f"unknown format {name!r}: expected one of {', '.join(forms)}")
    return _Once(forms[name]())


class _Once:
    """Converts each message only once, even if it is sent again, because a stateful format must not count it twice."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._last: tuple[Message | None, list[bytes]] = (None, [])

    def __call__(self, message: Message) -> list[bytes]:
        if self._last[0] is not message:
            self._last = message, self._form(message)
        return self._last[1]


def content_type(name: str) -> str:
    """Return the MIME type of a format's bodies."""
    return XML if name == "onvif" else "application/json"


def native(message: Message) -> list[bytes]:
    """Return the message as the wire encodes it."""
    return [encode(message)]


def _deepstream(message: Message) -> list[bytes]:
    if isinstance(message, FrameMessage):
        return [_json(deepstream_minimal(message))]
    event = deepstream_event(message) if isinstance(message, EventMessage) else None
    return [] if event is None else [_json(event)]


def _onvif(message: Message) -> list[bytes]:
    text = None
    if isinstance(message, FrameMessage):
        text = onvif_metadata(message)
    elif isinstance(message, EventMessage):
        text = onvif_event(message)
    elif isinstance(message, AnalyticsMessage):
        text = onvif_counts(message)
    return [] if text is None else [text.encode()]


def _savant(message: Message) -> list[bytes]:
    if isinstance(message, FrameMessage):
        return [_json(savant_frame(message))]
    return [_json(savant_end(message))] if isinstance(message, EosMessage) else []


class _Frigate:
    """Follows tracks and episodes of each source and run, because Frigate reports their starts, changes and ends."""

    def __init__(self) -> None:
        self._tracks: dict[tuple[str, str], tuple[int, Tracks]] = {}
        self._reviews: dict[tuple[str, str], tuple[int, Reviews]] = {}

    def __call__(self, message: Message) -> list[bytes]:
        if isinstance(message, EventMessage):
            return self._of_event(message)
        if not isinstance(message, FrameMessage):
            return []
        key = message.engine_id, message.source_id
        run_epoch, tracks = self._tracks.get(key, (message.run_epoch, {}))
        events, following = frigate_events(tracks if run_epoch == message.run_epoch else {}, message)
        self._tracks[key] = message.run_epoch, following
        return [_json(event) for event in events]

    def _of_event(self, message: EventMessage) -> list[bytes]:
        key = message.engine_id, message.source_id
        run_epoch, known = self._reviews.get(key, (message.run_epoch, {}))
        made, following = frigate_reviews(known if run_epoch == message.run_epoch else {}, message)
        self._reviews[key] = message.run_epoch, following
        return [_json(review) for review in made]


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)
