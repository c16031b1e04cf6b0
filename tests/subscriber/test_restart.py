"""An engine is killed and comes back: readers notice, are right again at once, and know exactly what they missed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.subscriber import Gap, Subscriber
from engine.subscriber.aio import AsyncSubscriber
from engine.wire import FrameMessage, Message, SnapshotMessage
from tests.publishing import stream

CHECKOUT = Path(__file__).resolve().parents[2]
ENGINE = """
import dataclasses, sys, threading, time
from engine.sinks.zmq import ZmqPublisher
from tests.wire.samples import RUN, packet, status
run = dataclasses.replace(RUN, run_epoch=time.time_ns())
publisher = ZmqPublisher(sys.argv[1], snapshot=sys.argv[2])
publisher.open(run)
publisher.status(status("live"))
pause, seq = threading.Event(), 0
while True:
    publisher.write(dataclasses.replace(packet(2, seq=seq), run=run))
    seq += 1
    pause.wait(0.005)
"""


def engine(address: str, snapshot: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", ENGINE, address, snapshot], cwd=CHECKOUT)


@pytest.mark.timeout(60)
def test_a_killed_engine_that_comes_back_is_followed_with_an_exact_account(tmp_path: Path) -> None:
    address, snapshot = f"ipc://{tmp_path}/main", f"ipc://{tmp_path}/snapshot"
    gaps: list[Gap] = []
    restarts: list[Message] = []
    first = engine(address, snapshot)
    with Subscriber(
        address, "v1/frame/", timeout_s=20, snapshot=snapshot, on_gap=gaps.append, on_restart=restarts.append
    ) as subscriber:
        heard = [subscriber.receive(20) for _ in range(50)]
        assert any(isinstance(message, SnapshotMessage) for message in heard)
        first.send_signal(signal.SIGKILL)
        first.wait()
        lost_before = sum(subscriber.lost.values())
        second = engine(address, snapshot)
        try:
            old_epoch, after = heard[-1].run_epoch, []  # type: ignore[union-attr]
            for message in subscriber:
                after += [message] if message.run_epoch != old_epoch else []
                if len(after) > 20:
                    break
        finally:
            second.kill()
            second.wait()
    assert subscriber.restarts == len(restarts) == 1
    assert any(isinstance(message, SnapshotMessage) for message in after)
    frames = [message for message in after if isinstance(message, FrameMessage)]
    new_gaps = [gap for gap in gaps if gap.cause == "restart"]
    missed = frames[0].seq
    assert new_gaps == ([Gap("v1/frame/gate/", 0, missed - 1, frames[0].run_epoch, "restart")] if missed else [])
    assert sum(subscriber.lost.values()) - lost_before == missed
    assert [frame.seq for frame in frames] == list(range(missed, missed + len(frames)))


def test_asyncio_programs_receive_the_same_messages() -> None:
    async def listen(address: str) -> tuple[list[Message], dict[str, int]]:
        found: list[Message] = []
        async with AsyncSubscriber(address, "v1/frame/gate/") as subscriber:
            async for message in subscriber:
                found.append(message)
                if len(found) == 10:
                    break
            return found, dict(subscriber.lost)

    with stream(every_s=0.002, step=2) as address:
        found, lost = asyncio.run(asyncio.wait_for(listen(address), 20))
    assert [message.seq - found[0].seq for message in found] == list(range(0, 20, 2))
    assert lost == {"v1/frame/gate/": 9}
