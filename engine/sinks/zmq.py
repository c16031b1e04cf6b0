"""Publishes on ZeroMQ: never waits for a reader, uses bounded memory, and counts what it loses."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import msgspec

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.data import Frame, Packet, Run, SourceStatus
from engine.errors import ConfigError
from engine.leases import Leases
from engine.protocols import SinkBase
from engine.sinks.publisher_outputs import UNBOUND, Outputs, Upstream
from engine.sinks.publisher_sockets import SocketOptions
from engine.sinks.scene import SceneTraffic
from engine.sinks.traffic import Figures, SourceTraffic
from engine.stats import PipelineStats
from engine.transport.address import is_loopback
from engine.transport.curve import CurveServer
from engine.transport.guard import SocketGuard
from engine.transport.keys import KeyPair
from engine.wire import (
    AnalyticsMessage,
    Encoding,
    FrameMessage,
    HeartbeatMessage,
    Message,
    SnapshotMessage,
    StatusMessage,
    analytics_message,
    check_encoding,
    encode,
    eos_message,
    event_message,
    finding_message,
    frame_message,
    kind_of,
    status_message,
    topic_for,
    topic_of,
)
from engine.wire.columns import Columns, track_columns
from engine.wire.findings import finding_id

if TYPE_CHECKING:
    from engine.sinks.pictures import Pictures

logger = logging.getLogger(__name__)

HIGH_WATER_MARK = 1000
SEND_BUFFER_BYTES = 256 * 1024
LINGER_MS = 250
HEARTBEAT_S = 1.0
MAX_ENDED = 100


class ZmqPublisher(SinkBase):
    """Publishes packets, states, statistics and heartbeats as `[topic, body]` (see docs/wire.md).

    All calls come from one thread; the attributes may be read from any.

    Args:
        address: `tcp://host:port` or `ipc://path` to bind; `*` as port finds a free one, `*` as host is every network;
            `none` binds nothing, for a publisher that only connects.
        events: a second address for all kinds but `frame` and `stats`, so that frames can never crowd them out.
        latest: an address that sends one snapshot per frame as a single part, and only the newest.
        snapshot: an address (ROUTER) that answers any request with the snapshot; served at each packet and tick.
        high_water_mark: messages queued for one slow reader before it loses some.
        encoding: `json` or `msgpack`.
        pictures: the JPEGs to send with the messages; None: none.
        trace_every: add the trace context to one frame in this many of each source; None: to none.
        keys: CURVE keys of this publisher: all sockets are encrypted; None: plain.
        allowed_keys: public keys of the clients that may read; None admits every client that knows our public key.
        connect: addresses of collectors (`framewire proxy --collect`) to which everything is sent as well.
        connect_key: their public key; `keys` then also identify this publisher there. None: they do not encrypt.
        send_buffer_bytes: kernel buffer per reader.
        linger_ms: how long closing waits for readers to take messages that were sent.
        clock: for tests.

    Attributes:
        published: messages sent.
        withheld: messages about sources whose lease had expired.

    Raises:
        ConfigError: an address or the encoding is not valid.
    """

    name = "zmq"
    blocking = False

    def __init__(
        self,
        address: str = "tcp://127.0.0.1:5555",
        *,
        events: str | None = None,
        latest: str | None = None,
        snapshot: str | None = None,
        high_water_mark: int = HIGH_WATER_MARK,
        encoding: str = "json",
        pictures: Pictures | None = None,
        trace_every: int | None = None,
        keys: KeyPair | None = None,
        allowed_keys: Collection[str] | None = None,
        connect: Sequence[str] = (),
        connect_key: str | None = None,
        send_buffer_bytes: int = SEND_BUFFER_BYTES,
        linger_ms: int = LINGER_MS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if high_water_mark < 1:
            raise ConfigError(
                f"high_water_mark is {high_water_mark}: expected 1 or more, because memory must be bounded"
            )
        if allowed_keys is not None and keys is None:
            raise ConfigError("allowed_keys without keys would admit everyone: give the publisher its own keys")
        others = {"events": events, "latest": latest, "snapshot": snapshot}
        self.curve = None if keys is None or address == UNBOUND else CurveServer(keys, allowed_keys)
        self._outputs = Outputs(
            address,
            {name: each for name, each in others.items() if each is not None},
            Upstream.of(connect, connect_key, keys),
            SocketOptions(high_water_mark, send_buffer_bytes, linger_ms, self.curve),
        )
        self.published = self.withheld = 0
        self._pictures, self._trace_every = pictures, trace_every
        self._encoding: Encoding = check_encoding(encoding)
        self._clock = clock
        self._leases = Leases()
        self._run = Run("", 0)
        self._next_seq: dict[str, int] = {}
        self._traffic: dict[str, SourceTraffic] = {}
        self._figures = Figures(clock)
        self._scenes: dict[str, SceneTraffic] = {}
        self._snapshot_seq = 0
        self._columns: dict[Frame, Columns] = {}
        self._opened_ns = 0
        self._due_ns = 0

    @property
    def address(self) -> str:
        """The endpoint of the main socket, the bound one once open; `none` if it only connects."""
        return self._outputs.address

    @property
    def endpoints(self) -> dict[str, str]:
        """The further bound endpoints by name."""
        return self._outputs.endpoints

    @property
    def guard(self) -> SocketGuard:
        """Closes connections that take more than a reader needs; counts them."""
        return self._outputs.guard

    @property
    def overflows(self) -> dict[str, int]:
        """Number of times that a message met a reader's full queue, by kind.

        Entries of the other sockets are marked.
        """
        return self._outputs.overflows

    def use_leases(self, leases: Leases) -> None:
        """Publish a source assigned by a fleet only while its lease lasts, and state its epoch."""
        self._leases = leases

    def use_stats(self, stats: PipelineStats) -> None:
        """Report the statistics of this run; without a run, the publisher counts what is written to it."""
        self._figures.shared = stats

    def open(self, run: Run) -> None:
        """Bind the sockets; afterwards `address` and `endpoints` are the bound ones.

        Raises:
            SinkError: a port is in use, or this machine does not have the address.
        """
        self._run = run
        self._figures.clear()
        self._next_seq.clear()
        self._traffic.clear()
        self._scenes.clear()
        self.bind()
        bound = [] if self.address == UNBOUND else [self.address]
        for address in (*bound, *self.endpoints.values()):
            if self.curve is None and not is_loopback(address):
                logger.warning("anyone on the network can read %s: give keys (framewire keys)", address)
        self._opened_ns = self._due_ns = self._clock.monotonic_ns()

    def bind(self) -> None:
        """Bind the ports before `open`, on a thread that then leaves this object to the publishing thread.

        Raises:
            SinkError: a port is in use, or this machine does not have the address.
        """
        self._outputs.bind()

    def announce(self, packets: Sequence[Packet]) -> None:
        """Convert the tracks of the packets of the next `write` calls together."""
        self._columns = dict(zip((packet.frame for packet in packets), track_columns(packets), strict=True))

    def write(self, packet: Packet) -> None:
        """Publish one packet; never waits."""
        started_ns = self._clock.monotonic_ns()
        is_traced = self._trace_every is not None and packet.seq % self._trace_every == 0
        message = frame_message(packet, is_traced=is_traced, columns=self._columns.pop(packet.frame, None))
        body = encode(message, self._encoding)
        traffic = self._traffic_of(message.source_id)
        traffic.add(packet, body)
        self._next_seq[traffic.topic] = packet.seq + 1
        self._send("frame", message.source_id, traffic.prefix, body)
        for event in packet.events:
            self.send(event_message(event, packet, seq=self.next_seq("event", message.source_id)))
        if packet.analytics is not None:
            self._publish_scene(packet)
        if self._outputs.has_latest:
            self._outputs.send_latest(self._snapshot())
        if self._pictures is not None:
            self._publish_pictures(self._pictures, packet)
        self._outputs.service(self._snapshot)
        if self._figures.count(packet, started_ns) and self._clock.monotonic_ns() >= self._due_ns:
            self.tick()

    def status(self, status: SourceStatus) -> None:
        """Publish a source's new state, and the end of its stream when it ended."""
        traffic = self._traffic_of(status.source_id)
        if status.state == "ended" and traffic.ended:
            return
        if traffic.ended:
            traffic.resume(self._figures.of(status.source_id), self._clock.monotonic_ns())
        seq = self.next_seq("status", status.source_id)
        message = status_message(status, self._run_of(status.source_id), seq=seq, published_utc_ns=self._clock.utc_ns())
        traffic.status_body = encode(message, self._encoding)
        self.send(message)
        if status.source_id in self._scenes:
            scene, findings = self._scenes[status.source_id], status.analyses.get("analytics", ())
            self._publish_findings(status.source_id, scene, findings, message.published_utc_ns)
        if status.state == "ended":
            self._end(status.source_id, status.reason)

    def send(self, message: Message) -> None:
        """Publish a message made elsewhere (an event, for example) unchanged; call it on the publishing thread."""
        source_id = getattr(message, "source_id", None)
        self._send(kind_of(message), source_id, topic_of(message).encode(), encode(message, self._encoding))

    def next_seq(self, kind: str, source_id: str) -> int:
        """Return the `seq` for the next message of a topic, and count it."""
        topic = topic_for(kind, source_id)
        seq = self._next_seq.get(topic, 0)
        self._next_seq[topic] = seq + 1
        return seq

    def tick(self) -> None:
        """Serve the side sockets, and send the statistics per source and the heartbeat due each second."""
        now_ns = self._clock.monotonic_ns()
        if not self._outputs.is_open:
            return
        self._outputs.service(self._snapshot)
        if now_ns < self._due_ns:
            return
        self._due_ns = now_ns + int(HEARTBEAT_S * NS_PER_S)
        self._outputs.service_readers()
        for source_id, traffic in self._traffic.items():
            if not traffic.ended:
                seq = self.next_seq("stats", source_id)
                figures, utc_ns = self._figures.of(source_id), self._clock.utc_ns()
                self.send(traffic.message(figures, self._run_of(source_id), seq=seq, now_ns=now_ns, utc_ns=utc_ns))
        self._publish_heartbeat(now_ns)

    def close(self) -> None:
        """End every stream that has not ended, flush, and close the sockets."""
        if self._outputs.is_open:
            for source_id, traffic in self._traffic.items():
                if not traffic.ended:
                    self._end(source_id, "shutdown")
        self._outputs.close()

    def _publish_scene(self, packet: Packet) -> None:
        """Send the findings on a frame, and the totals if they are due."""
        source_id, utc_ns = packet.frame.source_id, packet.published_utc_ns
        scene = self._scenes.setdefault(source_id, SceneTraffic())
        is_due = scene.is_due(packet, self._clock.monotonic_ns())
        self._publish_findings(source_id, scene, packet.findings, utc_ns)
        if is_due and scene.moment is not None:
            seq = self.next_seq("analytics", source_id)
            run = self._run_of(source_id)
            totals = analytics_message(packet.analytics, scene.moment, run, seq=seq, published_utc_ns=utc_ns)
            scene.body = encode(totals, self._encoding)
            self._send("analytics", source_id, topic_of(totals).encode(), scene.body)

    def _publish_findings(self, source_id: str, scene: SceneTraffic, findings: Iterable[Any], utc_ns: int) -> None:
        moment = scene.moment
        if moment is None:
            return
        run = self._run_of(source_id)
        for finding in findings:
            offset_ns = scene.times.offset_ns(finding, finding_id(finding, source_id, run), moment)
            seq = self.next_seq("event", source_id)
            told = finding_message(finding, moment, run, seq=seq, published_utc_ns=utc_ns, offset_ns=offset_ns)
            self.send(told)

    def _publish_pictures(self, pictures: Pictures, packet: Packet) -> None:
        for picture in pictures.of(packet, self._clock.monotonic_ns()):
            message = picture.message(packet, self.next_seq(picture.kind, packet.frame.source_id), self._clock.utc_ns())
            body = encode(message, self._encoding)
            self._send(picture.kind, message.source_id, topic_of(message).encode(), body, picture.jpeg)

    def _send(self, kind: str, source_id: str | None, *parts: bytes) -> None:
        """Send a message about a source, unless its lease has expired; None: about the engine."""
        if source_id is None or self._leases.lease_of(source_id) is None:
            self._outputs.send(kind, *parts)
        else:
            with self._leases.publishing(source_id) as may_leave:
                if not may_leave:
                    self.withheld += 1
                    return
                self._outputs.send(kind, *parts)
        self.published += 1

    def _run_of(self, source_id: str) -> Run:
        epoch = self._leases.epoch_of(source_id)
        return self._run if epoch is None else replace(self._run, owner_epoch=epoch)

    def _snapshot(self) -> bytes:
        """Return the body of a snapshot, assembled from the bodies that were sent."""
        ours = {name: t for name, t in self._traffic.items() if self._leases.may_publish(name)}
        frames = [msgspec.Raw(t.frame_body) for t in ours.values() if t.frame_body]
        statuses = [msgspec.Raw(t.status_body) for t in ours.values() if t.status_body]
        totals = [msgspec.Raw(scene.body) for name, scene in self._scenes.items() if scene.body and name in ours]
        self._snapshot_seq += 1
        message = SnapshotMessage(
            engine_id=self._run.engine_id,
            run_epoch=self._run.run_epoch,
            seq=self._snapshot_seq - 1,
            published_utc_ns=self._clock.utc_ns(),
            frames=cast("list[FrameMessage]", frames),
            statuses=cast("list[StatusMessage]", statuses),
            last_seq={topic: seq - 1 for topic, seq in self._next_seq.items() if seq},
            analytics=cast("list[AnalyticsMessage]", totals) if totals else msgspec.UNSET,
        )
        return encode(message, self._encoding)

    def _traffic_of(self, source_id: str) -> SourceTraffic:
        traffic = self._traffic.get(source_id)
        if traffic is None:
            self._forget_ended()
            topic = topic_for("frame", source_id)
            figures, now_ns = self._figures.of(source_id), self._clock.monotonic_ns()
            traffic = self._traffic[source_id] = SourceTraffic(topic, figures, now_ns)
        return traffic

    def _forget_ended(self) -> None:
        """Drop the sources that ended longest ago from snapshots and heartbeats."""
        ended = [name for name, traffic in self._traffic.items() if traffic.ended]
        for name in ended[: max(len(ended) - MAX_ENDED, 0)]:
            del self._traffic[name]
            self._scenes.pop(name, None)

    def _publish_heartbeat(self, now_ns: int) -> None:
        message = HeartbeatMessage(
            engine_id=self._run.engine_id,
            run_epoch=self._run.run_epoch,
            seq=self.next_seq("heartbeat", self._run.engine_id),
            published_utc_ns=self._clock.utc_ns(),
            interval_s=HEARTBEAT_S,
            uptime_s=round((now_ns - self._opened_ns) / NS_PER_S, 3),
            frame_seq={name: t.last_seq for name, t in self._traffic.items() if t.last_seq is not None},
            overflows=self.overflows,
            endpoints=self.endpoints,
        )
        self.send(message)

    def _end(self, source_id: str, reason: str) -> None:
        traffic = self._traffic[source_id]
        traffic.ended = True
        self.send(
            eos_message(
                source_id,
                self._run_of(source_id),
                seq=self.next_seq("eos", source_id),
                published_utc_ns=self._clock.utc_ns(),
                last_seq=traffic.last_seq,
                reason=reason,
            )
        )
