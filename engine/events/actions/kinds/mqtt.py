"""Publishes a message on an MQTT broker and waits for its acknowledgement."""

from __future__ import annotations

import json
import secrets
from typing import Any

from engine.clock import NS_PER_S, SYSTEM_CLOCK
from engine.events.actions.base import DeliveryError, DeliveryRefusedError, Notice
from engine.optional import require
from engine.redaction import hide

KEEPALIVE_S = 30
LOOP_S = 0.05


class MqttAction:
    """Publishes JSON with QoS 1, and the image on `<topic>/picture`. Needs `framewire[mqtt]`.

    Args:
        host: of the broker.
        topic: where to publish.
        port: of the broker.
        username: if the broker requires one.
        password: of that user.
        tls: encrypt, with the system's certificates.
        retain: let the broker keep the last message.
        timeout_s: limit for one attempt.

    Raises:
        MissingDependencyError: paho-mqtt is not installed.
    """

    def __init__(
        self,
        host: str,
        topic: str,
        *,
        port: int = 1883,
        username: str | None = None,
        password: str | None = None,
        tls: bool = False,
        retain: bool = False,
        timeout_s: float = 5.0,
    ) -> None:
        self._mqtt: Any = require("paho.mqtt.client", extra="mqtt")
        if password:
            hide(password)
        self._address, self._topic, self._retain, self._timeout_s = (host, port), topic, retain, timeout_s
        self._login, self._tls = (username, password), tls
        self._client: Any = None
        self._refused = ""

    def send(self, notice: Notice) -> None:
        """Publish the message. Raises `DeliveryError` or `DeliveryRefusedError`."""
        body = json.dumps({**notice.body, "key": notice.key}, separators=(",", ":"))
        try:
            self._connect()
            waiting = [self._client.publish(self._topic, body, qos=1, retain=self._retain)]
            if notice.picture:
                topic = f"{self._topic}/picture"
                waiting.append(self._client.publish(topic, notice.picture, qos=1, retain=self._retain))
            self._until(lambda: all(each.is_published() for each in waiting), "acknowledge")
        except (OSError, RuntimeError, ValueError) as error:
            self._drop()
            raise DeliveryError(f"MQTT broker {self._address[0]} cannot be reached: {error}") from error
        except DeliveryError:
            self._drop()
            raise

    def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            self._client.disconnect()
            self._client = None

    def _connect(self) -> None:
        if self._client is not None and self._client.is_connected() and self._client.loop(0.0) == 0:
            return
        self._drop()
        client = self._mqtt.Client(
            self._mqtt.CallbackAPIVersion.VERSION2, client_id=f"framewire-action-{secrets.token_hex(4)}"
        )
        if self._login[0] is not None:
            client.username_pw_set(*self._login)
        if self._tls:
            client.tls_set()
        client.on_connect = self._on_connect
        client.connect_timeout = self._timeout_s
        self._client, self._refused = client, ""
        client.connect(*self._address, keepalive=KEEPALIVE_S)
        self._until(client.is_connected, "answer")

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._refused = str(reason) if reason.is_failure else ""

    def _until(self, condition: Any, what: str) -> None:
        deadline_ns = SYSTEM_CLOCK.monotonic_ns() + int(self._timeout_s * NS_PER_S)
        while not condition():
            failed = self._client.loop(LOOP_S) != 0
            if self._refused:
                raise DeliveryRefusedError(f"MQTT broker {self._address[0]} refuses: {self._refused}: check the user")
            if failed or SYSTEM_CLOCK.monotonic_ns() > deadline_ns:
                raise DeliveryError(f"MQTT broker {self._address[0]} does not {what}")

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
