"""The engine's side of one push process: hands it images without waiting, and replaces it when it hangs or dies."""

from __future__ import annotations

import json
import logging
import select
from dataclasses import asdict
from typing import Any

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.errors import ConfigError
from engine.net.address import ENCODED, has_two_readings
from engine.process import Child, Messages
from engine.process_log import current_level, take_log
from engine.redaction import public_address
from engine.sinks.children import ChildReportError, Restarts, report_from
from engine.sinks.video_push.encoder import Encoded
from engine.sinks.video_push.push_process import STOP, messages_of
from engine.video.address import VideoAddress
from engine.video.network import RTMP_PORTS, RTSP_PORTS
from engine.video.options import SourceOptions
from engine.video.trust import TLS_PORTS
from engine.video.uri import scheme_of

logger = logging.getLogger(__name__)
MODULE = "engine.sinks.video_push.push_process"
SCHEMES = {"rtsp": ("rtsp", "rtsps"), "rtmp": ("rtmp", "rtmps")}
STATES = ("connecting", "ready", "live", "offline")
SILENT_S = 15.0
ROOM_S = 0.05
OPEN_S = 5.0
WRITE_S = 5.0


def push_address(url: str, kind: str, options: SourceOptions) -> VideoAddress:
    """Return where and how to push.

    Args:
        url: of the stream on the server.
        kind: `rtsp` or `rtmp`.
        options: only `tls` is used.

    Raises:
        ConfigError: the address is not valid for this kind.
    """
    from urllib.parse import urlsplit

    scheme = scheme_of(url)
    if scheme not in SCHEMES[kind]:
        raise ConfigError(f"{public_address(url)}: expected an address that begins with {kind}:// or {kind}s://")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or {**RTSP_PORTS, **RTMP_PORTS}[scheme]
    except ValueError as error:
        raise ConfigError(f"{public_address(url)}: {error}") from error
    if not host or len(parts.path) < 2 or has_two_readings(url):
        raise ConfigError(f"{public_address(url)}: expected {kind}://HOST:PORT/NAME, {ENCODED}")
    is_rtsp = kind == "rtsp"
    return VideoAddress(
        url=url,
        format="rtsp" if is_rtsp else "flv",
        ffmpeg={"rtsp_transport": "tcp"} if is_rtsp else {"flvflags": "no_duration_filesize"},
        live=True,
        host_port=(host, port) if is_rtsp else None,
        open_timeout_s=OPEN_S,
        read_timeout_s=WRITE_S,
        tls=options.tls_mode if scheme in TLS_PORTS else "verify",
        ca_file=options.ca_file,
    )


class Pusher:
    """One process that pushes one stream; used by one thread, except for `figures`.

    Args:
        target: where to push.
        name: of the source.
        clock: time.
    """

    def __init__(self, target: VideoAddress, name: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._target = target
        self._name = name
        self._clock = clock
        self._child: Child | None = None
        self._now: dict[str, Any] = {"state": "connecting", "reason": "", "sent": 0, "reconnects": 0}
        self._sent_before = self._reconnects_before = 0
        self._heard_ns = 0
        self._restarts = Restarts(clock)
        self._told = ""
        self._needs_key = True
        self.skipped = 0
        self._start()

    @property
    def wants_pictures(self) -> bool:
        """Whether the server can be reached."""
        return self._now["state"] in ("ready", "live")

    @property
    def needs_key(self) -> bool:
        """Whether the server can only continue with a keyframe."""
        return self._needs_key

    @property
    def pid(self) -> int | None:
        """Process id, None if there is no process."""
        return None if self._child is None else self._child.pid

    def figures(self) -> dict[str, Any]:
        """Return the stream's entry in the summary; may be called on any thread."""
        now = self._now
        return {
            "url": public_address(self._target.url),
            "state": now["state"],
            "reason": now["reason"],
            "sent": self._sent_before + now["sent"],
            "skipped": self.skipped,
            "reconnects": self._reconnects_before + now["reconnects"],
        }

    def send(self, picture: Encoded) -> None:
        """Hand over an image; if the process does not take it, the image and those that depend on it are skipped."""
        if self._child is None or not self.wants_pictures or (self._needs_key and not picture.is_key):
            return
        try:
            for message in messages_of(picture):
                _send(self._child.connection, message)
            self._needs_key = False
        except OSError:
            self.skipped += 1
            self._needs_key = True

    def look(self) -> None:
        """Read the process's reports; replace a process that has died or fallen silent."""
        if self._child is None:
            if self._restarts.is_due:
                self._start()
            return
        try:
            while self._child.connection.poll(0):
                news = report_from(self._child.connection.recv_bytes(), STATES)
                if not take_log(news, self._name):
                    self._note(news)
        except (EOFError, OSError):
            self._replace("the push process has died")
            return
        except ChildReportError as error:
            self._replace(f"the push process sent {error}")
            return
        silent_s = (self._clock.monotonic_ns() - self._heard_ns) / NS_PER_S
        if silent_s > SILENT_S:
            self._replace(f"the server took nothing for {silent_s:.0f} s")

    def close(self) -> None:
        """End the process; harmless when repeated."""
        child, self._child = self._child, None
        if child is not None:
            child.say(STOP)
            child.end(0.3)
        self._now = {**self._now, "state": "ended"}

    def _start(self) -> None:
        self._heard_ns = self._clock.monotonic_ns()
        self._restarts.started()
        self._needs_key = True
        try:
            self._child = Child(MODULE, name=self._name)
        except OSError as error:
            self._now = {**self._now, "state": "offline", "reason": f"no process can be started ({error})"}
            return
        request = {"target": asdict(self._target), "log_level": current_level()}
        self._child.say(json.dumps(request).encode())

    def _note(self, news: dict[str, Any]) -> None:
        self._heard_ns = self._clock.monotonic_ns()
        if news["state"] != "live":
            self._needs_key = True
        self._now = news
        state, where = news["state"], public_address(self._target.url)
        if state == "offline" and self._told != state:
            logger.warning("%s is not pushed to %s: %s; trying again", self._name, where, news["reason"])
            self._told = state
        elif state == "live" and self._told != state:
            logger.info("%s is pushed to %s", self._name, where)
            self._told = state

    def _replace(self, reason: str) -> None:
        """End the process, and start another one, after a pause if the last ones did not live long."""
        logger.warning("%s: %s: starting it again", self._name, reason)
        child, self._child = self._child, None
        if child is not None:
            child.end(0)
        self._sent_before += self._now["sent"]
        self._reconnects_before += self._now["reconnects"] + 1
        self._now = {"state": "connecting", "reason": reason, "sent": 0, "reconnects": 0}
        self._restarts.ended()
        if self._restarts.is_due:
            self._start()


def _send(connection: Messages, message: bytes) -> None:
    """Send a message, waiting briefly for room. Raises `OSError` if there is no room or no reader."""
    try:
        connection.send_bytes(message)
    except BlockingIOError:
        if not select.select((), (connection.fileno(),), (), ROOM_S)[1]:
            raise
        connection.send_bytes(message)
