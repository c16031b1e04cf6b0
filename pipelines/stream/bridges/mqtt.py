"""Bridge to MQTT: the stream on a broker, and the cameras in Home Assistant by themselves.

Topics below the prefix: `frame/<source>` (QoS 0), `event/<source>`, `status/<source>` (retained), `eos/<source>`,
`stats/<source>`, and for simple consumers `<source>/count` and `<source>/occupied` (retained, on change only).
`<engine>/available` is `online`, or `offline` by the broker's last will.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.clock import NS_PER_S, SYSTEM_CLOCK
from engine.errors import ConfigError
from engine.optional import require
from engine.wire import FrameMessage, HeartbeatMessage, Message, SnapshotMessage, StatusMessage, encode, kind_of
from pipelines.stream.bridges.base import TargetError

KEEPALIVE_S = 15
CONNECT_S = 5.0
LOOP_S = 0.05
MAX_QUEUED = 10_000
AT_LEAST_ONCE_KINDS = frozenset(("event", "status", "eos"))
DISCOVERY_ROOT = "homeassistant"
_UNSAFE = {ord(c): "_" for c in "+#/\0"}


class MqttOutput:
    """Publishes to an MQTT broker; events, states and ends until the broker has acknowledged them. Needs paho-mqtt.

    Args:
        host: of the broker.
        port: of the broker.
        prefix: first level of all topics.
        engine_id: names the client and its availability.
        username: where the broker asks for one.
        password: of that user.
        tls: encrypt, with the system's certificates.
        frames: also publish whole frame messages, not only counts.
        discovery: announce the cameras to Home Assistant.
    """

    def __init__(
        self,
        host: str,
        port: int = 1883,
        *,
        prefix: str = "framewire",
        engine_id: str = "framewire",
        username: str | None = None,
        password: str | None = None,
        tls: bool = False,
        frames: bool = True,
        discovery: bool = True,
    ) -> None:
        self._address = (host, port)
        self._prefix = prefix
        self._engine = _level(engine_id)
        self._login = (username, password)
        self._tls = tls
        self._frames = frames
        self._discovery = discovery
        self._client: Any = None
        self._announced: set[str] = set()
        self._counts: dict[str, int] = {}
        self._unacknowledged: set[int] = set()
        self._refused = ""

    def open(self) -> None:
        """Connect, and wait for the broker's welcome.

        Raises:
            TargetError: the broker is away.
            ConfigError: the broker refuses this user.
            MissingDependencyError: paho-mqtt is not installed.
        """
        if self._client is None:
            self._client = self._new_client(require("paho.mqtt.client", extra="mqtt"))
        try:
            self._client.connect(*self._address, keepalive=KEEPALIVE_S)
        except OSError as error:
            raise TargetError(f"MQTT broker {self._address[0]} cannot be reached: {error}") from error
        deadline_ns = SYSTEM_CLOCK.monotonic_ns() + int(CONNECT_S * NS_PER_S)
        while not self._client.is_connected():
            self._loop(LOOP_S)
            if self._refused:
                raise ConfigError(f"MQTT broker {self._address[0]} refuses: {self._refused}: check user and password")
            if SYSTEM_CLOCK.monotonic_ns() > deadline_ns:
                raise TargetError(f"MQTT broker {self._address[0]} does not answer")
        self._announced.clear()
        self._counts.clear()
        self._publish(f"{self._engine}/available", b"online", retain=True)

    def send(self, message: Message) -> None:
        """Publish one message."""
        if isinstance(message, HeartbeatMessage | SnapshotMessage):
            return
        source = _level(message.source_id)
        kind = kind_of(message)
        if self._discovery and source not in self._announced:
            self._announce(message.source_id, getattr(message, "model", ""))
        if isinstance(message, FrameMessage):
            self._count(source, len(message.objects))
        if kind != "frame" or self._frames:
            qos = int(kind in AT_LEAST_ONCE_KINDS)
            self._publish(f"{kind}/{source}", encode(message), qos=qos, retain=isinstance(message, StatusMessage))

    def turn(self) -> None:
        """DetectorSwap what is due with the broker.

        Raises:
            TargetError: the connection is lost.
        """
        self._loop(0.0)

    def close(self) -> None:
        """Wait for the acknowledgements that are due, and disconnect; the rest goes out on reconnect."""
        if self._client is None or not self._client.is_connected():
            return
        deadline_ns = SYSTEM_CLOCK.monotonic_ns() + int(CONNECT_S * NS_PER_S)
        self._publish(f"{self._engine}/available", b"offline", qos=1, retain=True)
        try:
            while self._unacknowledged and SYSTEM_CLOCK.monotonic_ns() < deadline_ns:
                self._loop(LOOP_S)
        except TargetError:
            return
        self._client.disconnect()

    def _new_client(self, mqtt: Any) -> Any:
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"framewire-{self._engine}")
        client.max_queued_messages_set(MAX_QUEUED)
        client.will_set(f"{self._prefix}/{self._engine}/available", b"offline", qos=1, retain=True)
        if self._login[0] is not None:
            client.username_pw_set(*self._login)
        if self._tls:
            client.tls_set()
        client.on_connect = self._on_connect
        client.on_publish = lambda client, userdata, mid, *rest: self._unacknowledged.discard(mid)
        return client

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._refused = str(reason) if reason.is_failure else ""

    def _loop(self, timeout_s: float) -> None:
        if self._client.loop(timeout_s) != 0 and not self._refused:
            raise TargetError(f"MQTT broker {self._address[0]} is gone")

    def _publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        info = self._client.publish(f"{self._prefix}/{topic}", payload, qos=qos, retain=retain)
        if qos:
            self._unacknowledged.add(info.mid)

    def _count(self, source: str, count: int) -> None:
        if self._counts.get(source) != count:
            self._counts[source] = count
            self._publish(f"{source}/count", str(count).encode(), retain=True)
            self._publish(f"{source}/occupied", b"ON" if count else b"OFF", retain=True)

    def _announce(self, source_id: str, model: str) -> None:
        self._announced.add(_level(source_id))
        for topic, payload in discovery(self._prefix, self._engine, source_id, model).items():
            self._client.publish(topic, msgspec.json.encode(payload), qos=1, retain=True)


def discovery(prefix: str, engine_id: str, source_id: str, model: str = "") -> dict[str, dict[str, Any]]:
    """Return Home Assistant's MQTT discovery payload by topic: objects, occupancy and connection of a camera."""
    engine, source = _level(engine_id), _level(source_id)
    node = f"framewire_{engine}_{source}".replace(" ", "_")
    device = {"identifiers": [node], "name": source_id, "manufacturer": "Framewire", "model": model or "camera"}
    common = {
        "device": device,
        "origin": {"name": "framewire"},
        "availability_topic": f"{prefix}/{engine}/available",
        "payload_available": "online",
        "payload_not_available": "offline",
    }
    entities: dict[tuple[str, str], dict[str, Any]] = {
        ("sensor", "objects"): {
            "name": "Objects",
            "state_topic": f"{prefix}/{source}/count",
            "state_class": "measurement",
            "icon": "mdi:account-eye",
        },
        ("binary_sensor", "occupied"): {
            "name": "Occupied",
            "state_topic": f"{prefix}/{source}/occupied",
            "device_class": "occupancy",
        },
        ("binary_sensor", "connection"): {
            "name": "Connection",
            "state_topic": f"{prefix}/status/{source}",
            "value_template": "{{ 'ON' if value_json.state == 'live' else 'OFF' }}",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
        },
    }
    return {
        f"{DISCOVERY_ROOT}/{component}/{node}/{name}/config": {**entity, "unique_id": f"{node}_{name}", **common}
        for (component, name), entity in entities.items()
    }


def _level(text: str) -> str:
    """Return a text that is one level of a topic."""
    return text.translate(_UNSAFE) or "_"
