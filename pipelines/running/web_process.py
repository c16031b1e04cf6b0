"""Starts the web server as a separate process, and restarts it when it dies, so the engine does not depend on it."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from engine.errors import ConfigError
from engine.optional import require
from engine.process import Child
from pipelines.config.models import Config
from pipelines.running.control_access import runtime_folder

logger = logging.getLogger(__name__)
MODULE = "pipelines.web.page.process"
EXTRA = "web"
GRACE_S = 1.0
RESTART_S = 0.5
RESTART_MAX_S = 10.0
STABLE_S = 30.0


def with_web(config: Config) -> Config:
    """Return the configuration with the sockets that the web process reads, private to this user.

    Raises:
        ConfigError: the page is configured, but there is no stream for it to read.
        MissingDependencyError: the extra `web` is not installed.
    """
    if config.web.address == "none":
        return config
    for package in ("uvicorn", "starlette", "websockets"):
        require(package, extra=EXTRA)
    if config.publish.allowed_keys is not None:
        raise ConfigError(
            "web: publish.allowed_keys lists who may read, and the page has no key: start this run without web, and "
            "framewire web --keys with a key that is listed"
        )
    if config.pipeline.workers > 1:
        return config  # the page reads the sockets of the workers
    folder, publish = f"ipc://{runtime_folder()}", {}
    if config.publish.bound == "none":
        publish["address"] = f"{folder}/stream-{os.getpid()}.sock"
    if config.publish.media is None:
        publish["media"] = f"{folder}/media-{os.getpid()}.sock"
    if config.publish.snapshot is None:
        publish["snapshot"] = f"{folder}/snapshot-{os.getpid()}.sock"
    return config.model_copy(update={"publish": config.publish.model_copy(update=publish)})


def web_settings(config: Config, publish: str, endpoints: Mapping[str, str], control: str) -> dict[str, Any]:
    """Return the settings of the web process.

    Args:
        config: of the run.
        publish: bound address of its stream.
        endpoints: further bound addresses by name.
        control: bound address of its control socket.
    """
    return {
        "publish": publish,
        "snapshot": endpoints.get("snapshot"),
        "media": endpoints.get("media"),
        "control": control,
        "server_key": str(key_path) if (key_path := config.publish.keys) else None,
        "events": config.events.folder,
        "store": config.events.store,
        "timezone": config.site.timezone,
        "audit": audit_path(config.web.users, config.events.folder),
        **config.web.model_dump(),
    }


def audit_path(users: str | None, events: str | None) -> str | None:
    """Return the audit file: next to the file of users, else in the events folder; None: there is none."""
    if users is not None:
        return f"{users}.audit.jsonl"
    return None if events is None else os.path.join(events, "audit.jsonl")


class WebProcess:
    """Runs the web server and restarts it when it dies; used by one thread.

    Args:
        listener: where it accepts connections; closed by `close`.
        settings: fields of `pipelines.web.page.settings.Settings`.

    Attributes:
        restarts: number of times that it died and was restarted.
    """

    def __init__(self, listener: socket.socket, settings: dict[str, Any]) -> None:
        self.restarts = 0
        self._listener = listener
        self._settings = json.dumps(settings).encode()
        self._child: Child | None = None
        self._wait_s = RESTART_S
        self._started = self._due = time.monotonic()
        self.poll()

    @property
    def pid(self) -> int | None:
        """Process id of the web server; None while it is down."""
        return None if self._child is None else self._child.pid

    def poll(self) -> None:
        """Start the server if that is due, and detect its end; never blocks for long."""
        now = time.monotonic()
        if self._child is not None:
            if self._is_alive(self._child):
                return
            code = self._child.end(0.0)
            self._child = None
            if now - self._started > STABLE_S:
                self._wait_s = RESTART_S
            logger.warning("the web server ended (exit code %s); restarting it in %.1f s", code, self._wait_s)
            self._due, self._wait_s = now + self._wait_s, min(2 * self._wait_s, RESTART_MAX_S)
            self.restarts += 1
        if now >= self._due:
            self._start(now)

    def close(self) -> None:
        """End the server and stop listening; harmless when repeated."""
        if self._child is not None:
            self._child.end(GRACE_S)
            self._child = None
        self._listener.close()

    def _start(self, now: float) -> None:
        try:
            self._child = Child(MODULE, self._listener.fileno())
        except OSError as error:
            logger.warning("the web server cannot be started: %s", error)
            self._due = now + RESTART_MAX_S
            return
        self._started = now
        self._child.say(self._settings)

    @staticmethod
    def _is_alive(child: Child) -> bool:
        with suppress(EOFError, OSError):
            while child.connection.poll(0):
                child.connection.recv_bytes()
            return True
        return False
