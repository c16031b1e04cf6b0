"""One address for many engines and many readers: fan-in and fan-out, with its own statistics.

Subscriptions are forwarded upstream (XPUB to XSUB), so an engine sends only what a reader of the proxy wants.
Messages pass unchanged. A slow reader loses messages as it would at the engine, and delays no other.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import zmq

from engine.clock import NS_PER_S, SYSTEM_CLOCK
from engine.errors import ConfigError
from engine.sinks.publisher_sockets import FanOut, SocketOptions
from engine.transport.address import checked_address, is_loopback
from engine.transport.curve import CurveServer
from engine.transport.guard import NO_LIMIT, SocketGuard
from engine.transport.ipv6 import prepare
from engine.wire import MAX_BODY_BYTES, TOPIC_KINDS, StatsMessage, encode, topic_of
from pipelines.stream.collector import ALL_BYTES, ALLOWANCE_BYTES, Collector

if TYPE_CHECKING:
    from engine.transport.keys import KeyPair

logger = logging.getLogger(__name__)

HIGH_WATER_MARK = 1000
SEND_BUFFER_BYTES = 256 * 1024
LINGER_MS = 250
RECONNECT_MS = 100
RECONNECT_MAX_MS = 2_000
TURN_MS = 100
BATCH = 256
MAX_PARTS = 3
STATS_S = 1.0


@dataclass
class ProxySummary:
    """Summary of what the proxy forwarded.

    Attributes:
        messages: messages received from engines and offered to readers, by kind.
        bytes: size of their bodies.
        overflows: number of times that a message met a reader's full queue, by kind.
        wanted: topics that readers currently subscribe to.
        fenced: collected messages dropped because they came from a former owner of their source, by kind.
        refused: collected messages dropped because they are invalid or from too many sources, by cause.
    """

    messages: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    overflows: Counter[str] = field(default_factory=Counter)
    wanted: set[str] = field(default_factory=set)
    fenced: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


class Proxy:
    """Connects to engines, or lets them connect, and binds one address; publishes its own `stats` as source `name`.

    Args:
        engines: addresses of the publishers.
        address: the endpoint to bind.
        name: engine_id and source_id of its statistics.
        keys: CURVE keys of the proxy: readers must encrypt, and engines that encrypt identify the proxy by them.
        allowed_keys: public keys of the readers that may connect.
        engine_key: public key of the engines to connect to, if they encrypt.
        collect: a second endpoint to bind, to which engines connect; only messages of each source's newest owner pass.
        allowed_engines: public keys of the engines that may connect there.

    Attributes:
        address: the bound endpoint, once `open` has returned.
        collect_address: likewise for `collect`; None without it.
        summary: what it has forwarded so far.
        on_turn: called about ten times a second or more; must be quick.

    Raises:
        ConfigError: no engine is given.
    """

    def __init__(
        self,
        engines: Sequence[str],
        address: str,
        *,
        name: str = "proxy",
        keys: KeyPair | None = None,
        allowed_keys: Collection[str] | None = None,
        engine_key: str | None = None,
        collect: str | None = None,
        allowed_engines: Collection[str] | None = None,
    ) -> None:
        if not engines and collect is None:
            raise ConfigError(
                "a proxy needs the address of at least one engine, or an address for engines to connect to"
            )
        if allowed_engines is not None and collect is None:
            raise ConfigError("allowed_engines without collect: it lists the engines that may connect there")
        if engine_key is not None and keys is None:
            raise ConfigError("engine_key without keys: engines identify their readers by key")
        self.address = checked_address(address, "proxy address")
        self._collector = None if collect is None else Collector(collect, keys, allowed_engines)
        self.summary = ProxySummary()
        self._engines = tuple(engines)
        self._name = name
        self._keys, self._engine_key = keys, engine_key
        self._curve = None if keys is None else CurveServer(keys, allowed_keys)
        self.on_turn: Callable[[], object] = lambda: None
        self._guard = SocketGuard()
        self._upstream = SocketGuard(most_unexplained=ALL_BYTES)
        self._context: zmq.Context[Any] = zmq.Context()
        self._stop = threading.Event()
        self._run_epoch = SYSTEM_CLOCK.utc_ns()
        self._stats_seq = 0
        self._before = 0
        self._out: FanOut | None = None
        self._in: zmq.Socket[Any] | None = None

    @property
    def collect_address(self) -> str | None:
        """Where engines connect, once `open` has returned; None without `collect`."""
        return None if self._collector is None else self._collector.address

    def open(self) -> None:
        """Bind and connect.

        Raises:
            SinkError: the port is in use.
            ConfigError: the address of an engine is malformed.
        """
        if self._curve is not None:
            self._curve.open(self._context)
        options = SocketOptions(HIGH_WATER_MARK, SEND_BUFFER_BYTES, LINGER_MS, self._curve, self._guard)
        self._out = FanOut(self._context, self.address, options)
        self._guard.start()
        self.address = self._out.address
        if self._curve is None and not is_loopback(self.address):
            logger.warning("anyone on the network can read %s: give keys (framewire keys)", self.address)
        self._in = self._connected()
        self._upstream.start()
        if self._collector is not None:
            self._collector.open()

    def run(self) -> ProxySummary:
        """Forward messages until `stop`; return the summary."""
        if self._in is None or self._out is None:
            self.open()
        source, out = self._in, self._out
        if source is None or out is None:
            return self.summary
        poller = zmq.Poller()
        poller.register(source, zmq.POLLIN)
        if self._collector is not None:
            poller.register(self._collector.socket, zmq.POLLIN)
        out.register(poller)
        due_ns = SYSTEM_CLOCK.monotonic_ns() + int(STATS_S * NS_PER_S)
        while not self._stop.is_set():
            poller.poll(TURN_MS)
            self.on_turn()
            self._pass_subscriptions(source, out)
            self._pass_messages(source, out)
            if self._collector is not None:
                self._collect(self._collector, out)
            if self._curve is not None:
                self._curve.service()
            if SYSTEM_CLOCK.monotonic_ns() >= due_ns:
                due_ns += int(STATS_S * NS_PER_S)
                self._publish_stats(out)
        return self.summary

    def stop(self) -> None:
        """Make `run` return within a tenth of a second; may be called on any thread."""
        self._stop.set()

    def close(self) -> None:
        """Disconnect; harmless when repeated."""
        self._guard.close()
        self._upstream.close()
        if self._in is not None:
            self._in.close(linger=0)
        if self._out is not None:
            self._out.close()
        if self._curve is not None:
            self._curve.close()
        if self._collector is not None:
            self._collector.close()
        self._in = self._out = None
        self._context.term()

    def _connected(self) -> zmq.Socket[Any]:
        socket: zmq.Socket[Any] = self._context.socket(zmq.XSUB)
        socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_BODY_BYTES)
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        self._upstream.watch(self._context, socket, "engines", limit=NO_LIMIT, allowance=ALLOWANCE_BYTES)
        if self._engine_key is not None and self._keys is not None:
            socket.setsockopt(zmq.CURVE_SERVERKEY, self._engine_key.encode())
            socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public.encode())
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret.encode())
        for address in self._engines:
            try:
                socket.connect(prepare(socket, address))
            except zmq.ZMQError as error:
                socket.close(linger=0)
                raise ConfigError(f"cannot connect to {address}: {error}: give tcp://host:port") from error
        return socket

    def _pass_subscriptions(self, source: zmq.Socket[Any], out: FanOut) -> None:
        for notice in out.subscriptions():
            source.send(notice, zmq.NOBLOCK)
            if self._collector is not None:
                self._collector.socket.send(notice, zmq.NOBLOCK)
            topic = notice[1:].decode(errors="replace")
            if notice[:1] == b"\x01":
                self.summary.wanted.add(topic)
            else:
                self.summary.wanted.discard(topic)

    def _pass_messages(self, source: zmq.Socket[Any], out: FanOut) -> None:
        for _ in range(BATCH):
            try:
                frames = source.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            self._upstream.explain(frames[-1], sum(len(frame) for frame in frames), parts=len(frames))
            parts = [frame.bytes for frame in frames]
            if not 2 <= len(parts) <= MAX_PARTS:
                continue
            self._pass_on(parts, out)
        self.summary.overflows = out.overflows

    def _pass_on(self, parts: list[bytes], out: FanOut) -> None:
        kind = _kind_of(parts[0])
        self.summary.messages[kind] += 1
        self.summary.bytes += len(parts[1])
        out.send(kind, *parts)

    def _collect(self, collector: Collector, out: FanOut) -> None:
        """Forward messages of connected engines if they own the source."""
        collector.service()
        for _ in range(BATCH):
            try:
                parts = collector.receive()
            except zmq.Again:
                break
            verdict = collector.fence.look_at(*parts[:2]) if 2 <= len(parts) <= MAX_PARTS else "malformed"
            if verdict == "passed":
                self._pass_on(parts, out)
            elif verdict == "fenced":
                self.summary.fenced[_kind_of(parts[0])] += 1
            else:
                self.summary.refused[verdict] += 1
        self.summary.overflows = out.overflows

    def _dropped(self) -> dict[str, int]:
        fenced = self.summary.fenced.total()
        return {**self.summary.overflows, **({"fenced": fenced} if fenced else {})}

    def _publish_stats(self, out: FanOut) -> None:
        total = sum(self.summary.messages.values())
        message = StatsMessage(
            engine_id=self._name,
            run_epoch=self._run_epoch,
            source_id=self._name,
            seq=self._stats_seq,
            published_utc_ns=SYSTEM_CLOCK.utc_ns(),
            interval_s=STATS_S,
            published=total,
            dropped=self._dropped(),
            fps=round((total - self._before) / STATS_S, 2),
            latency_ms={},
            stage_ms={},
        )
        self._stats_seq, self._before = self._stats_seq + 1, total
        out.send("stats", topic_of(message).encode(), encode(message))


def _kind_of(topic: bytes) -> str:
    kind = topic.split(b"/", 2)[1].decode(errors="replace") if topic.count(b"/") > 1 else "other"
    return kind if kind in TOPIC_KINDS else "other"
