"""Home Assistant's entities for what happens in a scene: zones, lines, rules, and the last image.

Topics below the prefix, all retained: `<source>/zone/<zone>/count`, `.../occupied` and `.../visits`;
`<source>/line/<line>/<direction>`; `<source>/rule/<rule>` (`ON` while an episode is open) with `.../event`, the last
message of an episode; `<source>/picture`, a JPEG. `analytics/<source>` is the whole message, with `run_epoch`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from engine.wire import AnalyticsMessage, EventMessage, ImageMessage, Message, RuleState, SnapshotMessage, encode
from pipelines.stream.bridges.home_assistant import DISCOVERY_ROOT, UNKNOWN, device, level, node_id, safe

Payload = tuple[str, bytes]
RUN = "{{ {'run_epoch': value_json.run_epoch, 'since_utc_ns': value_json.since_utc_ns} | tojson }}"
EPISODE = (
    "{{ {'run_epoch': value_json.run_epoch, 'event_id': value_json.event_id, 'phase': value_json.phase,"
    " 'why': value_json.why | default([])} | tojson }}"
)


class SceneEntities:
    """Turns messages about one source into retained topics and their discovery; each topic only when it changes.

    Args:
        prefix: first level of all topics.
        engine_id: of the engine, as it appears in topics.
        source_id: the camera.
        discovery: announce the entities.
    """

    def __init__(self, prefix: str, engine_id: str, source_id: str, *, discovery: bool = True) -> None:
        self._prefix, self._engine_id, self._source_id = prefix, engine_id, source_id
        self._source = level(source_id)
        self._discovery = discovery
        self._sent: dict[str, bytes] = {}
        self._open: dict[str, set[str]] = {}
        self._alerts: set[str] = set()
        self._run_epoch = 0

    def of(self, message: Message) -> Iterator[Payload]:
        """Yield the topics that a message changes; those of Home Assistant's discovery begin with its root."""
        if isinstance(message, AnalyticsMessage):
            found = self._of_totals(message)
        elif isinstance(message, EventMessage):
            found = self._of_event(message)
        elif isinstance(message, ImageMessage) and message.jpeg and message.schema.startswith("framewire.image/"):
            found = self._of_picture(message)
        else:
            return
        yield from self._changed(found)

    def unknown(self) -> Iterator[Payload]:
        """Yield unknown for everything that describes the current state; totals stay, because they are still true."""
        self._open.clear()
        now = [topic for topic in self._sent if topic.endswith(("/occupied", "/count")) or "/rule/" in topic]
        yield from self._changed((topic, UNKNOWN.encode()) for topic in now if not topic.endswith("/event"))

    def again(self) -> Iterator[Payload]:
        """Yield everything again, for a broker that may have lost it."""
        yield from list(self._sent.items())

    def _changed(self, found: Any) -> Iterator[Payload]:
        for topic, payload in found:
            if self._sent.get(topic) != payload:
                self._sent[topic] = payload
                yield topic, payload

    def _of_totals(self, message: AnalyticsMessage) -> Iterator[Payload]:
        here = f"{self._prefix}/{self._source}"
        yield f"{self._prefix}/analytics/{self._source}", encode(message)
        for zone, inside in message.zones.items():
            place, count = f"{here}/zone/{level(zone)}", sum(inside.values())
            yield from self._announced_zone(zone, place)
            yield f"{place}/count", str(count).encode()
            yield f"{place}/occupied", b"ON" if count else b"OFF"
            yield f"{place}/visits", str(message.visits.get(zone, 0)).encode()
        for line, directions in message.lines.items():
            for direction, crossings in directions.items():
                place = f"{here}/line/{level(line)}/{level(direction)}"
                yield from self._announced_line(line, direction, place)
                yield place, str(sum(crossings.values())).encode()
        self._run_epoch = message.run_epoch
        rules = {} if isinstance(message.rules, msgspec.UnsetType) else message.rules
        for rule, state in rules.items():
            yield from self._of_rule(rule, state, message)

    def _of_rule(self, rule: str, state: RuleState, message: AnalyticsMessage) -> Iterator[Payload]:
        if state.severity != "alert":
            return
        self._alerts.add(rule)
        begins = f"{message.source_id}-{message.run_epoch}-{rule}-"
        self._open[rule] = (
            {event_id for event_id in message.open if event_id.startswith(begins)} if state.open else set()
        )
        yield from self._announced_rule(rule)
        yield self._rule_topic(rule), b"ON" if state.open else b"OFF"

    def _of_event(self, message: EventMessage) -> Iterator[Payload]:
        rule = message.rule
        if (
            isinstance(rule, msgspec.UnsetType)
            or not rule
            or (message.severity != "alert" and rule not in self._alerts)
        ):
            return
        if message.run_epoch != self._run_epoch:
            self._run_epoch = message.run_epoch
            self._open.clear()
        self._alerts.add(rule)
        is_open = self._open.setdefault(rule, set())
        if message.phase in ("begin", "update"):
            is_open.add(message.event_id)
        else:
            is_open.discard(message.event_id)
        yield from self._announced_rule(rule)
        yield f"{self._rule_topic(rule)}/event", encode(message)
        yield self._rule_topic(rule), b"ON" if is_open else b"OFF"

    def _of_picture(self, message: ImageMessage) -> Iterator[Payload]:
        topic = f"{self._prefix}/{self._source}/picture"
        facts = {"name": "Picture", "image_topic": topic, "content_type": "image/jpeg"}
        yield from self._announced("image", "picture", facts)
        yield topic, message.jpeg

    def _rule_topic(self, rule: str) -> str:
        return f"{self._prefix}/{self._source}/rule/{level(rule)}"

    def _announced_zone(self, zone: str, place: str) -> Iterator[Payload]:
        key = f"zone_{safe(zone)}"
        counted = {"state_class": "measurement", "icon": "mdi:account-group"}
        totals = {"state_class": "total_increasing", "icon": "mdi:counter"}
        yield from self._announced("sensor", f"{key}_count", self._of_run(f"{zone} count", f"{place}/count") | counted)
        yield from self._announced(
            "binary_sensor",
            f"{key}_occupied",
            {"name": f"{zone} occupied", "state_topic": f"{place}/occupied", "device_class": "occupancy"},
        )
        yield from self._announced(
            "sensor", f"{key}_visits", self._of_run(f"{zone} visits", f"{place}/visits") | totals
        )

    def _announced_line(self, line: str, direction: str, place: str) -> Iterator[Payload]:
        facts = self._of_run(f"{line} {direction}", place) | {"state_class": "total_increasing", "icon": "mdi:counter"}
        yield from self._announced("sensor", f"line_{safe(line)}_{safe(direction)}", facts)

    def _announced_rule(self, rule: str) -> Iterator[Payload]:
        topic = self._rule_topic(rule)
        facts = {
            "name": rule,
            "state_topic": topic,
            "device_class": "problem",
            "json_attributes_topic": f"{topic}/event",
            "json_attributes_template": EPISODE,
        }
        yield from self._announced("binary_sensor", f"rule_{safe(rule)}", facts)

    def _of_run(self, name: str, topic: str) -> dict[str, Any]:
        """Return the definition of a sensor whose attributes state the run that it counts in."""
        return {
            "name": name,
            "state_topic": topic,
            "json_attributes_topic": f"{self._prefix}/analytics/{self._source}",
            "json_attributes_template": RUN,
        }

    def _announced(self, component: str, key: str, facts: dict[str, Any]) -> Iterator[Payload]:
        if self._discovery:
            node = node_id(self._engine_id, self._source_id)
            entity = {**facts, "unique_id": f"{node}_{key}", **device(self._prefix, self._engine_id, self._source_id)}
            yield f"{DISCOVERY_ROOT}/{component}/{node}/{key}/config", msgspec.json.encode(entity)


def scene_parts(message: Message) -> Sequence[AnalyticsMessage | EventMessage | ImageMessage]:
    """Return the scene messages in a message: itself, or those in a snapshot."""
    if isinstance(message, SnapshotMessage):
        return () if isinstance(message.analytics, msgspec.UnsetType) else message.analytics
    return [message] if isinstance(message, AnalyticsMessage | EventMessage | ImageMessage) else ()
