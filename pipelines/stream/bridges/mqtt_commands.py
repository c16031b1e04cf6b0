"""Commands over MQTT: pause, resume and snooze the cameras of a list. Off unless cameras are listed.

A command is the payload of `<prefix>/<source>/command`: `pause`, `resume`, or `snooze 30m` (`off` ends it). The outcome
follows on `<prefix>/<source>/command/result`. Retained commands are ignored, because a broker would repeat them on each
connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from typing import Any

import msgspec

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.errors import ConfigError, EngineError
from engine.redaction import printable
from pipelines.history.times import span_s
from pipelines.stream.bridges.home_assistant import DISCOVERY_ROOT, device, level, node_id

MAX_PAYLOAD_BYTES = 64
ENDS = ("off", "0")
LEAST_GAP_S = 0.5
MAX_ERROR_CHARS = 500
Act = Callable[[dict[str, Any]], dict[str, Any]]


class MqttCommands:
    """Carries out the commands for the listed cameras.

    Args:
        sources: names of the cameras that accept commands.
        act: sends a request to the run and returns its reply; raises `EngineError` if the run refuses.
        prefix: first level of all topics.
        clock: limits the rate.
    """

    def __init__(
        self, sources: Collection[str], act: Act, *, prefix: str = "framewire", clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._prefix, self._act, self._clock = prefix, act, clock
        self._source_of = {f"{prefix}/{level(source)}/command": source for source in sources}
        self._next_ns: dict[str, int] = {}
        self._told: dict[str, int] = {}
        if len(self._source_of) < len(set(sources)):
            raise ConfigError("two cameras would share a command topic: give them names that differ in more than + # /")

    @property
    def topics(self) -> list[str]:
        """The topics to subscribe to."""
        return list(self._source_of)

    def announced(self, engine_id: str, source_id: str) -> Iterator[tuple[str, bytes]]:
        """Yield the discovery of a listed camera: a switch for detection, and a button that snoozes it for an hour."""
        topic = f"{self._prefix}/{level(source_id)}"
        if f"{topic}/command" not in self._source_of:
            return
        node, common = node_id(engine_id, source_id), device(self._prefix, engine_id, source_id)
        entities: dict[tuple[str, str], dict[str, Any]] = {
            ("switch", "detection"): {
                "name": "Detection",
                "command_topic": f"{topic}/command",
                "payload_on": "resume",
                "payload_off": "pause",
                "state_topic": f"{topic}/detecting",
                "state_on": "ON",
                "state_off": "OFF",
            },
            ("button", "snooze"): {
                "name": "Snooze actions for 1 h",
                "command_topic": f"{topic}/command",
                "payload_press": "snooze 1h",
                "icon": "mdi:bell-sleep",
            },
        }
        for (component, name), entity in entities.items():
            payload = msgspec.json.encode({**entity, "unique_id": f"{node}_{name}", **common})
            yield f"{DISCOVERY_ROOT}/{component}/{node}/{name}/config", payload

    def states(self) -> Iterator[tuple[str, bytes]]:
        """Yield whether each listed camera detects, if the run answers."""
        try:
            sources = self._act({"command": "status"}).get("sources", {})
        except EngineError:
            return
        for source in self._source_of.values():
            if source in sources:
                yield f"{self._prefix}/{level(source)}/detecting", b"OFF" if sources[source].get("paused") else b"ON"

    def handle(self, topic: str, payload: bytes, *, is_retained: bool) -> Iterator[tuple[str, bytes]]:
        """Carry out a command, and yield the messages to publish. Of commands that come too fast, one is answered."""
        source = self._source_of.get(topic)
        if source is None or is_retained:
            return
        now_ns = self._clock.monotonic_ns()
        try:
            if now_ns < (next_ns := self._next_ns.get(topic, now_ns)):
                if self._told.get(topic) == next_ns:
                    return
                self._told[topic] = next_ns
                raise ConfigError(f"commands arrive too fast: at most one per {LEAST_GAP_S} s and camera")
            self._next_ns[topic] = now_ns + int(LEAST_GAP_S * NS_PER_S)
            self._act(request_of(source, payload))
        except EngineError as error:
            reply = {"ok": False, "error": printable(str(error), MAX_ERROR_CHARS)}
        else:
            reply = {"ok": True}
            yield from self.states()
        yield f"{topic}/result", json.dumps(reply).encode()


def request_of(source_id: str, payload: bytes) -> dict[str, Any]:
    """Return the request to the run for a payload.

    Raises:
        ConfigError: it is not a known command.

    >>> request_of("gate", b"snooze 30m")
    {'command': 'snooze', 'source_id': 'gate', 'for_s': 1800}
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ConfigError(f"a command has at most {MAX_PAYLOAD_BYTES} bytes: found {len(payload)}")
    words = payload.decode("ascii", "replace").split()
    if words in (["pause"], ["resume"]):
        return {"command": words[0], "source_id": source_id}
    if len(words) == 2 and words[0] == "snooze":
        for_s = 0 if words[1] in ENDS else span_s(words[1], "snooze")
        return {"command": "snooze", "source_id": source_id, "for_s": for_s}
    found = printable(" ".join(words), MAX_PAYLOAD_BYTES)
    raise ConfigError(f"unknown command {found!r}; expected one of: pause, resume, snooze 30m")
