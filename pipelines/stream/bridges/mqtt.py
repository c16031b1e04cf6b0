"""Bridge to MQTT: publishes the stream on a broker and announces the cameras to Home Assistant.

Topics below the prefix: `frame/<source>` (QoS 0), `event/<source>`, `status/<source>` (retained), `eos/<source>`,
`stats/<source>`, and for simple consumers `<source>/count` and `<source>/occupied` (retained, on change only; `None`
while unknown because the camera or the engine is gone); `home_assistant_scene` lists those of zones, lines and rules,
and `mqtt_commands` those that control cameras. `<engine>/available` is `online` while the engine sends
heartbeats, otherwise `offline`; the broker's last will sets it even if the bridge is killed. If another bridge of
the same engine still runs, it publishes its state again.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import msgspec

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.errors import ConfigError
from engine.optional import require
from engine.wire import (
    AnalyticsMessage,
    FrameMessage,
    HeartbeatMessage,
    Message,
    SnapshotMessage,
    StatusMessage,
    encode,
    kind_of,
)
from pipelines.stream.adapters.forms import Form
from pipelines.stream.bridges.base import TargetError
from pipelines.stream.bridges.engine_state import EngineState
from pipelines.stream.bridges.home_assistant import UNKNOWN, discovery, level, node_id
from pipelines.stream.bridges.home_assistant_scene import Payload, SceneEntities, scene_parts
from pipelines.stream.bridges.mqtt_commands import MAX_PAYLOAD_BYTES, MqttCommands
from pipelines.stream.bridges.mqtt_waiting import Waiting

__all__ = ["MqttBridge", "MqttOutput", "discovery"]

logger = logging.getLogger(__name__)
KEEPALIVE_S, CONNECT_S, LOOP_S = 15, 5.0, 0.05
PASSING = (0x88, 0x89)
"""Reason codes: server unavailable, server busy."""
MAX_ENGINES = 100
AT_LEAST_ONCE_KINDS = frozenset(("event", "status", "eos"))
MAX_COMMANDS_WAITING = 100
WATCHED_TOPICS = ("v1/heartbeat/", "v1/status/", "v1/frame/", "v1/analytics/", "v1/event/", "v1/image/")


class MqttOutput:
    """Publishes to an MQTT broker; resends events, states and ends until they are acknowledged. Needs paho-mqtt.

    Args:
        host: of the broker.
        port: of the broker.
        prefix: first level of all topics.
        engine_id: names the client and its availability topic.
        username: if the broker requires one.
        password: of that user.
        tls: encrypt, with the system's certificates.
        frames: also publish whole frame messages, not only counts.
        discovery: announce the cameras to Home Assistant.
        form: formats the bodies of frames only; None: whole messages of every kind.
        commands: carries out commands from the broker; None: there are none.
        clock: for tests.
    """

    watched_topics = WATCHED_TOPICS

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
        form: Form | None = None,
        commands: MqttCommands | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._commands = commands
        self._asked: deque[tuple[str, bytes, bool]] = deque(maxlen=MAX_COMMANDS_WAITING)
        self._scenes: dict[str, SceneEntities] = {}
        self._address = (host, port)
        self._prefix = prefix
        self._engine_id, self._engine = engine_id, level(engine_id)
        self._available_topic = f"{prefix}/{self._engine}/available"
        self._is_denied = False
        self._client_id = f"framewire-{self._engine}-{secrets.token_hex(3)}"
        self._state = EngineState(clock)
        self._is_online = False
        self._login = (username, password)
        self._tls = tls
        self._frames = frames
        self._discovery = discovery
        self._form = form
        self._client: Any = None
        self._announced: set[str] = set()
        self._named: dict[str, str] = {}
        self._counts: dict[str, int | None] = {}
        self._waiting = Waiting()
        self._refused: Any = None
        self.was_accepted = False

    def check(self) -> None:
        """Connect and disconnect at once, without publishing anything. Raises like `open`."""
        self._client = self._new_client(require("paho.mqtt.client", extra="mqtt"), has_will=False)
        self._connect()
        self._client.disconnect()
        self._client = None

    def open(self) -> None:
        """Connect and wait for the broker's acknowledgement.

        Raises:
            TargetError: the broker is away.
            ConfigError: the broker refuses this user, and has not accepted it before.
            MissingDependencyError: paho-mqtt is not installed.
        """
        if self._client is None:
            self._client = self._new_client(require("paho.mqtt.client", extra="mqtt"))
        self._connect()
        self._publish_all()
        self._client.subscribe(self._available_topic, qos=1)
        if self._commands is not None:
            for topic in self._commands.topics:
                self._client.subscribe(topic, qos=1)
            self._publish_retained(self._commands.states())

    def _publish_all(self) -> None:
        """Publish everything that the broker retains; counts follow with the next frames."""
        self._announced.clear()
        self._counts.clear()
        self._say_available(self._state.is_alive)
        self._publish_states(list(self._state.statuses.values()))
        for scene in self._scenes.values():
            self._publish_retained(scene.again())

    def _connect(self) -> None:
        self._refused = None
        self._waiting.disconnected()
        try:
            self._client.connect(*self._address, keepalive=KEEPALIVE_S)
        except OSError as error:
            raise TargetError(f"MQTT broker {self._address[0]} cannot be reached: {error}") from error
        deadline_ns = SYSTEM_CLOCK.monotonic_ns() + int(CONNECT_S * NS_PER_S)
        while not self._client.is_connected():
            self._loop(LOOP_S)
            if self._refused is not None:
                raise self._refusal()
            if SYSTEM_CLOCK.monotonic_ns() > deadline_ns:
                raise TargetError(f"MQTT broker {self._address[0]} does not answer")
        self.was_accepted = True

    def _refusal(self) -> TargetError | ConfigError:
        """Return the error for a refusal; a broker that accepted this user before, or may later, is just away."""
        said = f"MQTT broker {self._address[0]} refuses: {self._refused}"
        if self.was_accepted or self._refused.value in PASSING:
            return TargetError(said)
        return ConfigError(f"{said}: check user and password")

    def watch(self, message: Message) -> None:
        """Learn the state of the engine and its cameras from a message, whether or not it is forwarded."""
        new = self._state.take(message)
        if self._is_connected():
            if not self._is_online:
                self._say_available(True)
            self._publish_states(new)
            if isinstance(message, FrameMessage):
                self._announce(message.source_id, message.model)
                self._count(level(message.source_id), len(message.objects))
        for part in scene_parts(message):
            payloads = list(self._scene(part.source_id).of(part))
            if self._is_connected():
                self._publish_retained(payloads)

    def _scene(self, source_id: str) -> SceneEntities:
        if source_id not in self._scenes:
            made = SceneEntities(self._prefix, self._engine_id, source_id, discovery=self._discovery)
            self._scenes[source_id] = made
        return self._scenes[source_id]

    def _publish_retained(self, payloads: Iterable[Payload]) -> None:
        for topic, payload in payloads:
            self._put(topic, payload, qos=1, retain=True)

    def send(self, message: Message) -> None:
        """Publish one message."""
        self.watch(message)
        if isinstance(message, HeartbeatMessage | SnapshotMessage | StatusMessage | AnalyticsMessage):
            return
        source = level(message.source_id)
        kind = kind_of(message)
        self._announce(message.source_id, getattr(message, "model", ""))
        if self._form is not None:
            for body in self._form(message):
                self._publish(f"{kind}/{source}", body)
        elif kind != "frame" or self._frames:
            qos = int(kind in AT_LEAST_ONCE_KINDS)
            self._publish(f"{kind}/{source}", encode(message), qos=qos)

    def turn(self) -> None:
        """Exchange pending data with the broker, and detect a lost engine.

        Raises:
            TargetError: the connection is lost.
        """
        if self._is_online and not self._state.is_alive:
            self._publish_states(self._state.lost("the engine sends no heartbeats"))
            self._say_available(False)
        self._loop(0.0)
        if self._is_denied and self._is_online:  # another bridge of this engine has ended, and this one has not
            self._publish_all()
        self._is_denied = False
        while self._asked and self._commands is not None:
            topic, payload, is_retained = self._asked.popleft()
            self._publish_retained(self._commands.handle(topic, payload, is_retained=is_retained))

    def close(self) -> None:
        """Wait for outstanding acknowledgements and disconnect; the rest is sent on reconnect."""
        if not self._is_connected() or self._waiting.is_full:
            if self._client is not None and (open_socket := self._client.socket()) is not None:
                open_socket.close()  # without a farewell, so the broker publishes the last will
            return
        deadline_ns = SYSTEM_CLOCK.monotonic_ns() + int(CONNECT_S * NS_PER_S)
        try:
            if self._is_online:
                self._publish_states(self._state.lost("the bridge has ended"))
            self._say_available(False)
            while self._waiting.unacknowledged and SYSTEM_CLOCK.monotonic_ns() < deadline_ns:
                self._loop(LOOP_S)
        except TargetError:
            return
        self._client.disconnect()

    def _new_client(self, mqtt: Any, *, has_will: bool = True) -> Any:
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=self._client_id)
        if has_will:
            client.will_set(self._available_topic, b"offline", qos=1, retain=True)
        if self._login[0] is not None:
            client.username_pw_set(*self._login)
        if self._tls:
            client.tls_set()
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_publish = lambda client, userdata, mid, *rest: self._waiting.remove(mid)
        return client

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._refused = reason if reason.is_failure else None

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        """Keep a command until the next turn; a payload that is too long is cut to one byte more than is allowed."""
        if message.topic == self._available_topic:
            self._is_denied = message.payload == b"offline"
            return
        self._asked.append((message.topic, message.payload[: MAX_PAYLOAD_BYTES + 1], bool(message.retain)))

    def _loop(self, timeout_s: float) -> None:
        try:
            result = self._client.loop(timeout_s)
        except Exception as error:  # the client raises many kinds of error for malformed packets
            with suppress(Exception):
                self._client.disconnect()
            raise TargetError(f"MQTT broker {self._address[0]} sends invalid data: {error!r}"[:300]) from error
        if result != 0 and self._refused is None:
            raise TargetError(f"MQTT broker {self._address[0]} has closed the connection")

    def _publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        self._put(f"{self._prefix}/{topic}", payload, qos=qos, retain=retain)

    def _put(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        if self._waiting.is_full:
            self._make_room()
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        if qos or (info.rc == 0 and not info.is_published()):
            self._waiting.add(info.mid, len(topic) + len(payload), qos)

    def _make_room(self) -> None:
        """Wait until the broker has taken some messages. Raises `TargetError` if it takes none."""
        deadline_ns = SYSTEM_CLOCK.monotonic_ns() + int(CONNECT_S * NS_PER_S)
        while self._waiting.is_full:
            self._loop(LOOP_S)
            if SYSTEM_CLOCK.monotonic_ns() > deadline_ns:
                raise TargetError(f"MQTT broker {self._address[0]} takes no messages: {len(self._waiting)} wait")

    def _is_connected(self) -> bool:
        return self._client is not None and bool(self._client.is_connected())

    def _say_available(self, is_online: bool) -> None:
        self._is_online = is_online
        payload = b"online" if is_online else b"offline"
        self._publish(f"{self._engine}/available", payload, qos=1, retain=True)

    def _publish_states(self, statuses: list[StatusMessage]) -> None:
        """Publish states, and set the count of every camera that is not live to unknown."""
        for status in statuses:
            source = level(status.source_id)
            self._announce(status.source_id)
            self._publish(f"status/{source}", encode(status), qos=1, retain=True)
            if status.state != "live":
                self._count(source, None)
                if status.source_id in self._scenes:
                    self._publish_retained(self._scenes[status.source_id].unknown())

    def _count(self, source: str, count: int | None) -> None:
        if source in self._counts and self._counts[source] == count:
            return
        self._counts[source] = count
        number, occupied = (UNKNOWN, UNKNOWN) if count is None else (str(count), "ON" if count else "OFF")
        self._publish(f"{source}/count", number.encode(), retain=True)
        self._publish(f"{source}/occupied", occupied.encode(), retain=True)

    def _announce(self, source_id: str, model: str = "") -> None:
        if source_id in self._announced:
            return
        self._announced.add(source_id)
        other = self._named.setdefault(node_id(self._engine, source_id), source_id)
        if other != source_id:
            logger.warning("cameras %r and %r get the same MQTT topics or entities: rename one", other, source_id)
        if not self._discovery:
            return
        for topic, payload in discovery(self._prefix, self._engine, source_id, model).items():
            self._put(topic, msgspec.json.encode(payload), qos=1, retain=True)
        if self._commands is not None:
            self._publish_retained(self._commands.announced(self._engine_id, source_id))


class MqttBridge:
    """One `MqttOutput` per engine in the stream, each with its own client, availability topic and last will.

    Args:
        make: creates the output for an engine id.
    """

    watched_topics = WATCHED_TOPICS

    def __init__(self, make: Callable[[str], MqttOutput]) -> None:
        self._make = make
        self._outputs: dict[str, MqttOutput] = {}
        self._is_open = self._was_accepted = False

    def open(self) -> None:
        """Connect; before the first engine is known, only check that the broker accepts this user.

        Raises:
            TargetError: the broker is away.
            ConfigError: the broker refuses this user, and has not accepted it before.
            MissingDependencyError: paho-mqtt is not installed.
        """
        if not self._outputs:
            self._made("probe").check()
        for output in self._outputs.values():
            output.open()
        self._is_open = self._was_accepted = True

    def _made(self, engine_id: str) -> MqttOutput:
        output = self._make(engine_id)
        output.was_accepted = self._was_accepted
        return output

    def watch(self, message: Message) -> None:
        """Let the output of the message's engine learn from it."""
        self._output(message.engine_id).watch(message)

    def send(self, message: Message) -> None:
        """Publish one message. Raises `TargetError`."""
        self._output(message.engine_id).send(message)

    def turn(self) -> None:
        """Do periodic work. Raises `TargetError`."""
        for output in self._outputs.values():
            output.turn()

    def close(self) -> None:
        """Mark the engines as unavailable and disconnect."""
        self._is_open = False
        for output in self._outputs.values():
            output.close()

    def _output(self, engine_id: str) -> MqttOutput:
        output = self._outputs.get(engine_id)
        if output is None:
            if len(self._outputs) >= MAX_ENGINES:
                raise ConfigError(f"more than {MAX_ENGINES} engines in one stream: bridge them separately")
            output = self._outputs[engine_id] = self._made(engine_id)
            if self._is_open:
                output.open()
        return output
