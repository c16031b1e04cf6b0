"""The last stage of the pipeline, and the outputs that it feeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any, Protocol, TypeVar, runtime_checkable

from engine.clock import NS_PER_MS, NS_PER_S, Clock
from engine.data import Packet, Run, SourceStatus
from engine.flow.channel import Channel, ChannelClosedError, ChannelTimeoutError
from engine.flow.defaults import show_leases, show_stats, takes_packets
from engine.flow.lane import FlowContext
from engine.flow.options import FILE_CAPACITY
from engine.flow.stage import Stage
from engine.protocols import Sink

T = TypeVar("T")
_FIELDS = [field.name for field in fields(Packet)]
_before_run = attrgetter(*_FIELDS[: _FIELDS.index("run")])
_after_dropped = attrgetter(*_FIELDS[_FIELDS.index("dropped") + 1 :])
TICK_S = 1.0
STATUS_CAPACITY = 256
SINK_CAPACITY = 8


@runtime_checkable
class Announced(Protocol):
    """A fast sink that sees the packets of an inference in advance, so that it can convert them together."""

    def announce(self, packets: Sequence[Packet]) -> None:
        """Receive the packets of one inference, without `seq` and times, which come with each `write`."""


class PublishStage(Stage["list[Packet] | SourceStatus"]):
    """The last stage: numbers and times each packet, feeds fast sinks and passes it to slow ones."""

    def __init__(
        self,
        run: Run,
        inbox: Channel[list[Packet] | SourceStatus],
        sinks: Sequence[Sink],
        outlets: Sequence[Channel[Packet | SourceStatus]],
        status_outlets: Sequence[Channel[Packet | SourceStatus]] = (),
        *,
        context: FlowContext,
    ) -> None:
        super().__init__("publish")
        self._run_facts = run
        self._inbox = inbox
        self._sinks = sinks
        self._announce = [sink.announce for sink in sinks if isinstance(sink, Announced)]
        self._outlets = outlets
        self._status_outlets = status_outlets
        self._stats, self._clock, self._leases = context.stats, context.clock, context.leases
        self._opened: list[Sink] = []

    def open(self) -> None:
        """Open the fast sinks on this thread."""
        for sink in self._sinks:
            self._opened.append(sink)
            sink.open(self._run_facts)

    def inbox(self) -> Iterator[list[Packet] | SourceStatus]:
        """Yield the packets of each inference, and states, and tick the sinks every second."""
        return ticking(self._inbox, self._tick, self._clock)

    def work(self, item: list[Packet] | SourceStatus) -> None:
        """Publish the packets of one inference, or a state."""
        if isinstance(item, SourceStatus):
            self._publish_status(item)
            return
        done = 0
        try:
            for announce in self._announce:
                announce(item)
            for packet in item:
                published = self._publish(packet)
                done += 1
                if published is not None:
                    hand_on(published, self._outlets)
        except BaseException:
            for packet in item[done:]:
                self._stats.source(packet.frame.source_id).add_dropped("shutdown")
            raise

    def close(self) -> None:
        """Close the fast sinks and let the slow ones finish."""
        try:
            for sink in self._opened:
                sink.close()
        finally:
            for outlet in (*self._outlets, *self._status_outlets):
                outlet.close()

    def _publish(self, item: Packet) -> Packet | None:
        """Publish a packet, or drop it because the lease on its source has expired."""
        source_id = item.frame.source_id
        stats, epoch = self._stats.source(source_id), self._leases.epoch_of(source_id)
        if not self._leases.may_publish(source_id):
            stats.add_dropped("lease")
            return None
        started_ns = self._clock.monotonic_ns()
        latency_ms = (started_ns - item.frame.captured_ns) / NS_PER_MS
        run = item.run if epoch is None else replace(item.run, owner_epoch=epoch)
        packet = _stamped(
            item,
            run,
            seq=stats.published,
            published_utc_ns=self._clock.utc_ns(),
            latency_ms=latency_ms,
            dropped=stats.take_dropped(),
        )
        for sink in self._sinks:
            sink.write(packet)
        self._stats.add_packet(packet, started_ns=started_ns, now_ns=self._clock.monotonic_ns())
        return packet

    def _publish_status(self, status: SourceStatus) -> None:
        stats, has_ended = self._stats.source(status.source_id), status.state == "ended"
        if has_ended:
            stats.set_state("ended", status.reason, status.stream_epoch)
        try:
            for sink in self._sinks:
                sink.status(status)
        finally:
            if has_ended:
                stats.has_ended.set()  # set only now, because a release that waits for it then ends the lease
        hand_on(status, (*self._outlets, *self._status_outlets))

    def _tick(self) -> None:
        self._stats.tick()
        for sink in self._sinks:
            sink.tick()


class Hides(Protocol):
    """Privacy: replaces the pixels of packets; never raises in a way that lets the original pixels through."""

    def take(self, packet: Packet) -> list[Packet]:
        """Accept the next packet of a source, and return those that are ready, in order."""

    def late(self, now_ns: int) -> list[Packet]:
        """Return the packets that have waited long enough for later ones at this monotonic time."""

    def end(self, source_id: str | None = None) -> list[Packet]:
        """Return all waiting packets of a source, or of all sources."""

    def wait_s(self, now_ns: int) -> float | None:
        """Return the seconds until `late` has something to return, or None if nothing waits."""

    def summary(self) -> dict[str, dict[str, int]]:
        """Return figures by source."""


class Shield:
    """Privacy between tracking and publishing, on its own thread; without privacy, the two are connected directly.

    Args:
        privacy: replaces the pixels; None: no privacy.
        inbox: packets and states from the tracking stage.
        context: counters and clock.

    Attributes:
        outbox: the channel that the publishing stage reads.
    """

    def __init__(
        self, privacy: Hides | None, inbox: Channel[list[Packet] | SourceStatus], context: FlowContext
    ) -> None:
        self._privacy, self._inbox, self._context = privacy, inbox, context
        self.outbox = inbox
        if privacy is not None:
            self.outbox = Channel(FILE_CAPACITY, on_drop=context.drop)

    def stages(self) -> list[HideStage]:
        """Return the privacy stage, if there is one."""
        if self._privacy is None:
            return []
        return [HideStage(self._privacy, self._inbox, self.outbox, self._context)]

    def abort(self) -> None:
        """Drop everything waiting before and after it."""
        self._inbox.abort()
        self.outbox.abort()


class HideStage(Stage["list[Packet] | SourceStatus"]):
    """Passes packets on with people hidden; after it, nothing refers to the original pixels."""

    def __init__(
        self,
        privacy: Hides,
        inbox: Channel[list[Packet] | SourceStatus],
        outbox: Channel[list[Packet] | SourceStatus],
        context: FlowContext,
    ) -> None:
        super().__init__("privacy")
        self._privacy, self._inbox, self._outbox, self._context = privacy, inbox, outbox, context

    def inbox(self) -> Iterator[list[Packet] | SourceStatus]:
        """Yield packets and states, passing on packets that have waited long enough in between."""
        clock = self._context.clock
        while True:
            self._pass_on(self._privacy.late(clock.monotonic_ns()))
            try:
                item = self._inbox.get(self._privacy.wait_s(clock.monotonic_ns()))
            except ChannelTimeoutError:
                continue
            except ChannelClosedError:
                return
            yield item

    def work(self, item: list[Packet] | SourceStatus) -> None:
        """Hide people in packets; a state other than live follows the last packet of its source."""
        if isinstance(item, SourceStatus):
            if item.state != "live":
                self._pass_on(self._privacy.end(item.source_id))
            self._outbox.put(item)
            return
        self._pass_on([ready for packet in item for ready in self._privacy.take(packet)])

    def _pass_on(self, packets: list[Packet]) -> None:
        if not packets:
            return
        try:
            self._outbox.put(packets)
        except ChannelClosedError:
            self._context.drop(packets, "shutdown")
            raise

    def close(self) -> None:
        """Pass on whatever is still waiting, and signal the end to the publishing stage."""
        try:
            self._pass_on(self._privacy.end())
        except ChannelClosedError:
            pass  # counted as dropped
        finally:
            self._outbox.close()


class SinkStage(Stage["Packet | SourceStatus"]):
    """Runs one sink that may block (disk, encoder, window) on its own thread and channel."""

    def __init__(self, sink: Sink, run: Run, inbox: Channel[Packet | SourceStatus], *, clock: Clock) -> None:
        super().__init__(sink.name)
        self.was_opened = False
        self._sink = sink
        self._run_facts = run
        self._inbox = inbox
        self._clock = clock

    def open(self) -> None:
        """Open the sink on this thread."""
        self._sink.open(self._run_facts)
        self.was_opened = True

    def inbox(self) -> Iterator[Packet | SourceStatus]:
        """Yield packets and states, and tick the sink every second."""
        return ticking(self._inbox, self._sink.tick, self._clock)

    def work(self, item: Packet | SourceStatus) -> None:
        """Write one packet or state."""
        if isinstance(item, SourceStatus):
            self._sink.status(item)
        else:
            self._sink.write(item)

    def close(self) -> None:
        """Finish the output; the channel counts what could not be written."""
        try:
            self._sink.close()
        finally:
            self._inbox.abort("failed")


class Outlets:
    """The channels to the outputs.

    They may block the pipeline as long as it has no camera, because a camera cannot wait.

    Args:
        dropped: receives each channel's loss counters, under a unique name.
    """

    def __init__(self, dropped: dict[str, Counter[str]]) -> None:
        self.is_lossless = True
        self._dropped = dropped
        self._channels: list[Channel[Packet | SourceStatus]] = []

    def make(self, name: str) -> Channel[Packet | SourceStatus]:
        """Return the channel of another output."""
        channel: Channel[Packet | SourceStatus] = Channel(SINK_CAPACITY, "block" if self.is_lossless else "drop_oldest")
        while name in self._dropped:
            name += "+"
        self._dropped[name] = channel.dropped
        self._channels.append(channel)
        return channel

    def drop_oldest(self) -> None:
        """From now on, let outputs miss packets instead of blocking the pipeline."""
        self.is_lossless = False
        for channel in self._channels:
            channel.drop_oldest()


def output_stages(
    run: Run,
    inbox: Channel[list[Packet] | SourceStatus],
    sinks: Sequence[Sink],
    consumers: Sequence[Channel[Packet | SourceStatus]],
    make_outlet: Callable[[str], Channel[Packet | SourceStatus]],
    *,
    context: FlowContext,
) -> list[Stage[Packet | SourceStatus] | Stage[list[Packet] | SourceStatus]]:
    """Return the publishing stage and one stage per sink that may block; fast sinks run on the publishing thread.

    Args:
        run: facts of the run.
        inbox: packets and states to publish.
        sinks: all of them.
        consumers: further channels to feed.
        make_outlet: makes the channel of a sink, given its name.
        context: counters and clock.
    """
    for sink in sinks:
        show_stats(sink, context.stats)
        show_leases(sink, context.leases)
    quick = [sink for sink in sinks if not sink.blocking]
    slow = sorted((sink for sink in sinks if sink.blocking), key=takes_packets, reverse=True)
    outlets = [make_outlet(sink.name) for sink in slow if takes_packets(sink)]
    of_status: list[Channel[Packet | SourceStatus]] = [
        Channel(STATUS_CAPACITY, "drop_oldest") for _ in slow[len(outlets) :]
    ]
    feeds = zip(slow, outlets + of_status, strict=True)
    stages = [SinkStage(sink, run, outlet, clock=context.clock) for sink, outlet in feeds]
    return [
        *stages,
        PublishStage(run, inbox, quick, [*outlets, *consumers], of_status, context=context),
    ]


def _stamped(
    packet: Packet, run: Run, *, seq: int, published_utc_ns: int, latency_ms: float, dropped: Mapping[str, int]
) -> Packet:
    """Return the packet with the values of one publication; `dataclasses.replace` takes four times as long."""
    stamp: list[Any] = [run, packet.stage_ms, seq, published_utc_ns, latency_ms, dropped]
    return Packet(*_before_run(packet), *stamp, *_after_dropped(packet))


def hand_on(item: Packet | SourceStatus, outlets: Sequence[Channel[Packet | SourceStatus]]) -> None:
    """Put an item into every outlet; count what a failed sink misses."""
    for outlet in outlets:
        try:
            outlet.put(item)
        except ChannelClosedError:
            outlet.dropped["failed"] += 1


def ticking(inbox: Channel[T], tick: Callable[[], None], clock: Clock) -> Iterator[T]:
    """Yield from `inbox` until it is closed and empty, and call `tick` about once a second."""
    due_ns = clock.monotonic_ns()
    while True:
        if clock.monotonic_ns() >= due_ns:
            tick()
            due_ns = clock.monotonic_ns() + int(TICK_S * NS_PER_S)
        try:
            item = inbox.get(max((due_ns - clock.monotonic_ns()) / NS_PER_S, 0.0))
        except ChannelTimeoutError:
            continue
        except ChannelClosedError:
            return
        yield item
