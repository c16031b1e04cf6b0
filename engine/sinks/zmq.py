"""Publishing on ZeroMQ: never waits for a reader, bounded in memory, and honest about what it loses.

How losses are known. An XPUB socket that must not drop (`XPUB_NODROP`) refuses a message when the queue of any
matching reader is full; a socket that may drop leaves out only those readers, silently. So each message is tried
without dropping first; if it is refused, that is counted as an overflow of its kind and the message is sent again
with dropping allowed: all readers with room get it, and nobody waits. libzmq then leaves the slow reader out until
it has read half of its queue, so the overflow count says how often readers fell behind, and the reader itself
knows exactly what it missed, by the gaps in `seq`.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

import zmq

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.data import Packet, Run, SourceStatus
from engine.errors import ConfigError, SinkError
from engine.protocols import SinkBase
from engine.sinks.traffic import SourceTraffic
from engine.wire import (
    Encoding,
    HeartbeatMessage,
    Message,
    check_encoding,
    encode,
    eos_message,
    frame_message,
    kind_of,
    status_message,
    topic_for,
    topic_of,
)

HIGH_WATER_MARK = 1000
SEND_BUFFER_BYTES = 256 * 1024
LINGER_MS = 250
MAX_SUBSCRIPTION_BYTES = 1024
HEARTBEAT_S = 1.0
BACKLOG = 128
MAX_PORT = 65535

_REMEDIES = {
    zmq.EADDRINUSE: "another program uses this port: end it, or publish on another one (tcp://127.0.0.1:* finds one)",
    zmq.EADDRNOTAVAIL: "this machine has no such address: use 127.0.0.1, * or one of its own",
    errno.ENODEV: "this machine has no such interface: use 127.0.0.1, * or one of its own",
}


def _is_bindable(address: str) -> bool:
    """Return whether the form is right; libzmq itself would wrap a port above 65535 silently."""
    transport, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    if transport == "tcp":
        return bool(host) and (port == "*" or (port.isdigit() and int(port) <= MAX_PORT))
    return transport == "ipc" and bool(rest)


@dataclass
class _Counter:
    """Numbers of the messages of one topic."""

    topic: bytes
    next_seq: int = 0

    def take(self) -> int:
        self.next_seq += 1
        return self.next_seq - 1


class ZmqPublisher(SinkBase):
    """Publishes packets, states, statistics and heartbeats as `[topic, body]` (see docs/wire.md).

    All calls come from one thread; `address`, `overflows` and `published` may be read from any.

    Args:
        address: `tcp://host:port` or `ipc://path` to bind; `*` as port finds a free one, `*` as host is every network.
        high_water_mark: messages that wait for one slow reader before it loses some.
        encoding: `json` or `msgpack`.
        send_buffer_bytes: kernel buffer per reader.
        linger_ms: how long closing waits for readers to take what was sent.
        clock: for tests.

    Raises:
        ConfigError: the address or the encoding cannot be right.
    """

    name = "zmq"
    blocking = False

    def __init__(
        self,
        address: str = "tcp://127.0.0.1:5555",
        *,
        high_water_mark: int = HIGH_WATER_MARK,
        encoding: str = "json",
        send_buffer_bytes: int = SEND_BUFFER_BYTES,
        linger_ms: int = LINGER_MS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not _is_bindable(address):
            raise ConfigError(f"publish address {address!r} cannot be bound: give tcp://127.0.0.1:5555 or ipc://path")
        if high_water_mark < 1:
            raise ConfigError(f"high_water_mark is {high_water_mark}: it must be 1 or more, as memory must be bounded")
        self.address = address
        self.overflows: dict[str, int] = {}
        self.published = 0
        self._encoding: Encoding = check_encoding(encoding)
        self._options = {
            zmq.SNDHWM: high_water_mark,
            zmq.SNDBUF: send_buffer_bytes,
            zmq.LINGER: linger_ms,
            zmq.MAXMSGSIZE: MAX_SUBSCRIPTION_BYTES,
            zmq.BACKLOG: BACKLOG,
            zmq.XPUB_NODROP: 1,
        }
        self._clock = clock
        self._context: zmq.Context[Any] | None = None
        self._socket: zmq.Socket[Any] | None = None
        self._run = Run("", 0)
        self._counters: dict[str, _Counter] = {}
        self._traffic: dict[str, SourceTraffic] = {}
        self._opened_ns = 0
        self._due_ns = 0

    def open(self, run: Run) -> None:
        """Bind the socket; afterwards `address` is the bound endpoint.

        Raises:
            SinkError: the port is in use, or this machine does not have the address.
        """
        self._run = run
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        for option, value in self._options.items():
            self._socket.setsockopt(option, value)
        try:
            self._socket.bind(self.address)
        except zmq.ZMQError as error:
            self.close()
            remedy = _REMEDIES.get(error.errno or 0, "give an address like tcp://127.0.0.1:5555")
            raise SinkError(f"cannot publish on {self.address}: {error.strerror}: {remedy}") from error
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._opened_ns = self._clock.monotonic_ns()
        self._due_ns = self._opened_ns

    def write(self, packet: Packet) -> None:
        """Publish one packet; never waits."""
        source_id = packet.frame.source_id
        traffic = self._traffic_of(source_id)
        traffic.add(packet)
        counter = self._counter("frame", source_id)
        counter.next_seq = packet.seq + 1
        self._send("frame", counter.topic, encode(frame_message(packet), self._encoding))
        if self._clock.monotonic_ns() >= self._due_ns:
            self.tick()

    def status(self, status: SourceStatus) -> None:
        """Publish a source's new state, and the end of its stream when it ended."""
        traffic = self._traffic_of(status.source_id)
        if status.state == "ended" and traffic.ended:
            return
        self._publish_status(status)
        if status.state == "ended":
            self._end(status.source_id, status.reason)

    def send(self, message: Message) -> None:
        """Publish a message made elsewhere (an event, say), as it is; call from the publishing thread."""
        self._send(kind_of(message), topic_of(message).encode(), encode(message, self._encoding))

    def next_seq(self, kind: str, source_id: str) -> int:
        """Return the `seq` for the next message of a topic, and count it."""
        return self._counter(kind, source_id).take()

    def tick(self) -> None:
        """Send what is due each second: statistics per source and the heartbeat; take note of subscriptions."""
        now_ns = self._clock.monotonic_ns()
        if self._socket is None or now_ns < self._due_ns:
            return
        self._due_ns = now_ns + int(HEARTBEAT_S * NS_PER_S)
        self._drain_subscriptions(self._socket)
        for source_id, traffic in self._traffic.items():
            if not traffic.ended:
                self._publish_stats(source_id, traffic, now_ns)
        self._publish_heartbeat(now_ns)

    def close(self) -> None:
        """End every stream that has not ended, hand over what was sent, and free the socket."""
        if self._socket is not None and self._opened_ns:
            for source_id, traffic in self._traffic.items():
                if not traffic.ended:
                    self._end(source_id, "shutdown")
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._context is not None:
            self._context.term()
            self._context = None

    def _send(self, kind: str, topic: bytes, body: bytes) -> None:
        socket = self._socket
        if socket is None:
            raise SinkError(f"{self.address} is not open: call open() before publishing")
        self.published += 1
        try:
            socket.send_multipart((topic, body), zmq.NOBLOCK)
        except zmq.Again:
            self.overflows[kind] = self.overflows.get(kind, 0) + 1
            socket.setsockopt(zmq.XPUB_NODROP, 0)
            socket.send_multipart((topic, body), zmq.NOBLOCK)
            socket.setsockopt(zmq.XPUB_NODROP, 1)

    def _counter(self, kind: str, source_id: str) -> _Counter:
        topic = topic_for(kind, source_id)
        counter = self._counters.get(topic)
        if counter is None:
            counter = self._counters[topic] = _Counter(topic.encode())
        return counter

    def _traffic_of(self, source_id: str) -> SourceTraffic:
        traffic = self._traffic.get(source_id)
        if traffic is None:
            traffic = self._traffic[source_id] = SourceTraffic(self._clock.monotonic_ns())
        return traffic

    def _publish_status(self, status: SourceStatus) -> None:
        seq = self.next_seq("status", status.source_id)
        self.send(status_message(status, self._run, seq=seq, published_utc_ns=self._clock.utc_ns()))

    def _publish_stats(self, source_id: str, traffic: SourceTraffic, now_ns: int) -> None:
        seq = self.next_seq("stats", source_id)
        self.send(traffic.message(source_id, self._run, seq=seq, now_ns=now_ns, utc_ns=self._clock.utc_ns()))

    def _publish_heartbeat(self, now_ns: int) -> None:
        message = HeartbeatMessage(
            engine_id=self._run.engine_id,
            run_epoch=self._run.run_epoch,
            seq=self.next_seq("heartbeat", self._run.engine_id),
            published_utc_ns=self._clock.utc_ns(),
            interval_s=HEARTBEAT_S,
            uptime_s=round((now_ns - self._opened_ns) / NS_PER_S, 3),
            frame_seq={name: t.last_seq for name, t in self._traffic.items() if t.last_seq is not None},
            overflows=dict(self.overflows),
        )
        self.send(message)

    def _end(self, source_id: str, reason: str) -> None:
        traffic = self._traffic[source_id]
        traffic.ended = True
        self.send(
            eos_message(
                source_id,
                self._run,
                seq=self.next_seq("eos", source_id),
                published_utc_ns=self._clock.utc_ns(),
                last_seq=traffic.last_seq,
                reason=reason,
            )
        )

    @staticmethod
    def _drain_subscriptions(socket: zmq.Socket[Any]) -> None:
        """Take the pending subscription notices, so that readers cannot pile them up in our memory."""
        while socket.poll(0):
            socket.recv(zmq.NOBLOCK)
