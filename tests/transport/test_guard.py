from __future__ import annotations

import threading

import zmq

from engine.transport.guard import NO_LIMIT, SocketGuard
from tests.patience import AT_ONCE_S


def test_a_context_ends_although_a_guard_still_watches_its_sockets() -> None:
    """Ending a context waits for every socket in it, also for those with which the guard watches."""
    for _ in range(20):
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        guard, reader = SocketGuard(), context.socket(zmq.SUB)
        guard.watch(context, reader, "reader", limit=NO_LIMIT)
        reader.connect("tcp://127.0.0.1:9")
        guard.start()
        ending = threading.Thread(target=lambda context=context: context.destroy(linger=0), daemon=True)
        ending.start()
        ending.join(AT_ONCE_S)
        assert not ending.is_alive()
        guard.close()
