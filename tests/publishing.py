"""A publisher that keeps sending packets on a thread, for tests of what reads it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from engine.sinks.zmq import ZmqPublisher
from tests.wire.samples import RUN, packet


@contextmanager
def sending(publisher: ZmqPublisher, *, objects: int = 1, every_s: float = 0.001, step: int = 1) -> Iterator[None]:
    """Publish packets of the camera `gate` with `seq` 0, `step`, 2 `step` ... until the block ends; and heartbeats."""
    stop = threading.Event()

    def publish() -> None:
        seq = 0
        while not stop.wait(every_s):
            publisher.write(packet(objects, seq=seq))
            publisher.tick()
            seq += step

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def stream(*, objects: int = 1, every_s: float = 0.001, step: int = 1) -> Iterator[str]:
    """Yield the address of a separate publisher that sends until the block ends."""
    publisher = ZmqPublisher("tcp://127.0.0.1:*")
    publisher.open(RUN)
    try:
        with sending(publisher, objects=objects, every_s=every_s, step=step):
            yield publisher.address
    finally:
        publisher.close()
