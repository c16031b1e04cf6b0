#!/usr/bin/env python3
"""Measure a publisher under load: CPU, delivery latency and losses with many readers, including misbehaving ones.

usage: bench_stream.py [SECONDS]      prints the table of docs/wire.md; 30 frames per second of 20 objects each

The publisher runs in one process, all readers in another. Latency is from `published_utc_ns` to the reader's
`recv`. Queues are kept short (50 messages, 32 KiB in the kernel), so that a bad reader falls behind within the run.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import resource
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

import numpy as np  # noqa: E402
import psutil  # noqa: E402
import zmq  # noqa: E402

from engine.sinks.zmq import ZmqPublisher  # noqa: E402
from tests.wire.samples import RUN, packet  # noqa: E402

FPS, OBJECTS, WARMUP_S = 30, 20, 1.0
BAD = ("stopped", "slow", "reconnecting")


def publish(pipe: Connection, seconds: float) -> None:
    """Publish at a steady rate; send back the address first, then the CPU time and the counters."""
    publisher = ZmqPublisher("tcp://127.0.0.1:*", high_water_mark=50, send_buffer_bytes=32 * 1024)
    publisher.open(RUN)
    pipe.send(publisher.address)
    pipe.recv()
    given, pause, memory = packet(OBJECTS), threading.Event(), psutil.Process()
    rss, began = [], time.monotonic()
    cpu = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    for seq in range(int(seconds * FPS)):
        pause.wait(max(0.0, began + seq / FPS - time.monotonic()))
        publisher.write(dataclasses.replace(given, seq=seq, published_utc_ns=time.time_ns()))
        if seq % FPS == 0:
            rss.append(memory.memory_info().rss / 1e6)
    wall = time.monotonic() - began
    cpu = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - cpu
    pipe.send({"cpu": 100 * cpu / wall, "fps": seconds * FPS / wall, "rss": rss, "overflows": publisher.overflows})
    pipe.recv()
    publisher.close()


def subscribed(context: zmq.Context[Any], address: str, *, bad: bool = False) -> zmq.Socket[Any]:
    """Return a plain SUB socket; bad ones have short queues."""
    socket: zmq.Socket[Any] = context.socket(zmq.SUB)
    socket.linger = 0
    if bad:
        socket.setsockopt(zmq.RCVHWM, 5)
        socket.setsockopt(zmq.RCVBUF, 4096)
    socket.subscribe(b"v1/frame/")
    socket.connect(address)
    return socket


def _age_ms(body: bytes) -> float:
    """Return how long ago a message was published."""
    at = body.index(b'"published_utc_ns":') + 19
    return (time.time_ns() - int(body[at : body.index(b",", at)])) / 1e6


def read(pipe: Connection, address: str, healthy: int, bad: tuple[str, ...], seconds: float) -> None:
    """Read with `healthy` good readers and one of each bad kind; send back latencies and counts."""
    context: zmq.Context[Any] = zmq.Context()
    context.max_sockets = 4096
    poller, latencies, counts = zmq.Poller(), [], {}
    for _ in range(healthy):
        socket = subscribed(context, address)
        counts[socket] = 0
        poller.register(socket, zmq.POLLIN)
    others = {kind: subscribed(context, address, bad=True) for kind in bad}
    pipe.send("ready")
    end, due = time.monotonic() + seconds + 2, time.monotonic() + 1
    while time.monotonic() < end:
        for socket, _ in poller.poll(50):
            latencies.append(_age_ms(socket.recv_multipart()[1]))
            counts[socket] += 1
        if time.monotonic() >= due:
            due += 1
            misbehave(context, address, others)
    pipe.send((latencies, list(counts.values())))
    context.destroy(linger=0)


def misbehave(context: zmq.Context[Any], address: str, others: dict[str, zmq.Socket[Any]]) -> None:
    """Once a second, let the slow reader take one message, and the unsteady one leave and come back."""
    if "slow" in others and others["slow"].poll(0):
        others["slow"].recv_multipart()
    if "reconnecting" in others:
        others["reconnecting"].close(linger=0)
        others["reconnecting"] = subscribed(context, address, bad=True)


def measure(healthy: int, bad: tuple[str, ...], seconds: float) -> str:
    """Return one row of the table."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    publisher = spawn.Process(target=publish, args=(theirs, seconds))
    publisher.start()
    address = ours.recv()
    readers_pipe, readers_end = spawn.Pipe()
    readers = spawn.Process(target=read, args=(readers_end, address, healthy, bad, seconds + WARMUP_S))
    readers.start()
    readers_pipe.recv()
    threading.Event().wait(WARMUP_S)
    ours.send("go")
    facts = ours.recv()
    latencies, counts = readers_pipe.recv()
    ours.send("end")
    publisher.join()
    readers.join()
    lost = sum(int(seconds * FPS) - count for count in counts)
    return f"| {healthy} | {', '.join(bad) or '-'} | " + _cells(facts, latencies, lost, int(seconds * FPS) * healthy)


def _cells(facts: dict[str, Any], latencies: list[float], lost: int, sent: int) -> str:
    p50, p99 = np.percentile(latencies, (50, 99))
    rss, overflows = facts["rss"], facts["overflows"].get("frame", 0)
    speed = f"{facts['fps']:.1f} | {facts['cpu']:.1f} % | {p50:.2f} | {p99:.2f}"
    return f"{speed} | {lost} of {sent} | {overflows} | {rss[0]:.0f} → {rss[-1]:.0f} |"


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    print(
        "| readers | and bad ones | fps | publisher CPU | p50 ms | p99 ms | lost by the readers | overflows | RSS MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    rows: list[tuple[int, tuple[str, ...]]] = [(n, ()) for n in (1, 10, 50, 200)]
    rows += [(10, (kind,)) for kind in BAD] + [(10, BAD), (200, BAD)]
    for healthy, bad in rows:
        print(measure(healthy, bad, seconds), flush=True)


if __name__ == "__main__":
    main()
