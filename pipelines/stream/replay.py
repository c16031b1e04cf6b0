"""Publishes a recorded stream again: with its own timing, as fast as readers take it, or anything in between."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import zmq

from engine.clock import NS_PER_MS, NS_PER_S, SYSTEM_CLOCK, Clock
from engine.errors import ConfigError
from engine.sinks.publisher_sockets import SocketOptions, bound_socket
from engine.wire import TOPIC_ROOT
from engine.wire.stream_file import Record, Recording

HIGH_WATER_MARK = 1000
SEND_BUFFER_BYTES = 256 * 1024
LINGER_MS = 2000
HEARTBEAT_TOPIC = f"{TOPIC_ROOT}/heartbeat/".encode()


@dataclass(frozen=True)
class ReplayOptions:
    """How to replay.

    Attributes:
        speed: 1.0 is the original pace, 2.0 twice as fast; None: as fast as the slowest reader takes it, without loss.
        start_s: start this many seconds into the recording.
        end_s: stop this many seconds into the recording.
        wait_for_reader_s: wait this long for a first subscriber, so that it misses nothing.
    """

    speed: float | None = 1.0
    start_s: float = 0.0
    end_s: float | None = None
    wait_for_reader_s: float = 0.0

    def __post_init__(self) -> None:
        if self.speed is not None and not 0 < self.speed <= 1000:
            raise ConfigError(f"speed is {self.speed}: give a number between 0 and 1000, or max")


@dataclass
class ReplaySummary:
    """Summary of a replay.

    Attributes:
        messages: records sent.
        skipped_bytes: bytes of damaged parts that were skipped.
        recorded_s: time from the first to the last record sent.
    """

    messages: int = 0
    skipped_bytes: int = 0
    recorded_s: float = 0.0


class Replay:
    """A publisher whose messages come from a file; heartbeats say `replayed`, all others are unchanged.

    Args:
        path: file written by `record`.
        address: the endpoint to bind.
        options: pace and range.
        clock: for tests.

    Attributes:
        address: the bound endpoint, once `open` has returned.
    """

    def __init__(
        self, path: str | Path, address: str, options: ReplayOptions | None = None, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.address = address
        self._path = path
        self._options = options or ReplayOptions()
        self._clock = clock
        self._stop = threading.Event()
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket: zmq.Socket[Any] | None = None

    def open(self) -> None:
        """Bind.

        Raises:
            SinkError: the port is in use.
        """
        options = SocketOptions(HIGH_WATER_MARK, SEND_BUFFER_BYTES, LINGER_MS)
        self._socket, self.address = bound_socket(self._context, zmq.XPUB, self.address, options)
        self._socket.setsockopt(zmq.XPUB_NODROP, self._options.speed is None)

    def run(self) -> ReplaySummary:
        """Send the records at their times; return at the end of the file or after `stop`.

        Raises:
            SourceError: the file is not a recording.
        """
        summary = ReplaySummary()
        with Recording(self._path) as recording:
            if self._socket is None:
                self.open()
            first_utc_ns = recording.first_utc_ns
            self._await_reader()
            started_ns, begin = self._clock.monotonic_ns(), None
            for record in self._wanted(recording, first_utc_ns or 0):
                begin = record.received_utc_ns if begin is None else begin
                elapsed_ns = record.received_utc_ns - begin
                if self._options.speed is not None:
                    due_ns = started_ns + int(elapsed_ns / self._options.speed)
                    self._clock.wait(self._stop, (due_ns - self._clock.monotonic_ns()) / NS_PER_S)
                if self._stop.is_set() or not self._send(record):
                    break
                summary.messages += 1
                summary.recorded_s = elapsed_ns / NS_PER_S
            summary.skipped_bytes = recording.skipped_bytes
        return summary

    def stop(self) -> None:
        """Make `run` return soon; may be called on any thread."""
        self._stop.set()

    def close(self) -> None:
        """Flush what has been sent, and disconnect."""
        self._context.destroy(linger=0 if self._stop.is_set() else LINGER_MS)

    def _wanted(self, recording: Recording, first_utc_ns: int) -> Iterator[Record]:
        options = self._options
        start_ns = first_utc_ns + int(options.start_s * NS_PER_S)
        for record in recording.since(start_ns) if options.start_s > 0 else recording:
            if options.end_s is not None and record.received_utc_ns > first_utc_ns + options.end_s * NS_PER_S:
                return
            yield record

    def _await_reader(self) -> None:
        if self._socket is not None and self._options.wait_for_reader_s > 0:
            self._socket.poll(int(self._options.wait_for_reader_s * NS_PER_S / NS_PER_MS))

    def _send(self, record: Record) -> bool:
        """Send one record. At top speed, wait for the slowest reader; otherwise drop the record if a queue is full."""
        socket = self._socket
        body = _marked(record.body) if record.topic.startswith(HEARTBEAT_TOPIC) else record.body
        while socket is not None and not self._stop.is_set():
            try:
                socket.send_multipart((record.topic, body), zmq.NOBLOCK)
                return True
            except zmq.Again:
                self._clock.wait(self._stop, 0.001)
        return False


def replay(path: str | Path, address: str, options: ReplayOptions | None = None) -> ReplaySummary:
    """Publish a recording on an address, and return a summary.

    Raises:
        SourceError: the file is not a recording.
        SinkError: the address cannot be bound.
    """
    player = Replay(path, address, options)
    try:
        player.open()
        return player.run()
    finally:
        player.close()


def _marked(body: bytes) -> bytes:
    """Return a heartbeat that says `replayed`, without the addresses of sockets that no longer exist."""
    codec = msgspec.json if body[:1] == b"{" else msgspec.msgpack
    fields = codec.decode(body)
    return bytes(codec.encode({**fields, "endpoints": {}, "replayed": True}))
