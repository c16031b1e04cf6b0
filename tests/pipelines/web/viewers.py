"""Viewers of the page without a browser, in a separate process: they receive everything and decode nothing.

usage: python -m tests.pipelines.web.viewers PORT COUNT SOURCE ...  (until its input ends; then prints what came)
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from websockets.asyncio.client import connect
from websockets.sync.client import connect as connect_at_once

FRAGMENT = 3
HEADER = struct.Struct(">BBHIqq")


def wish(sources: list[str]) -> str:
    """Return the message that asks for video and boxes."""
    return json.dumps({"watch": {name: {"boxes": True, "video": True} for name in sources}})


async def watch(port: int, sources: list[str], seen: Counter[str], pictures: list[tuple[int, int]]) -> None:
    """Watch sources until cancelled; add source and stream time of each piece of video."""
    address = f"ws://127.0.0.1:{port}/api/v1/live"
    async with connect(address, max_size=None, compression=None) as viewer:
        await viewer.send(wish(sources))
        async for message in viewer:
            seen["bytes"] += len(message)
            if isinstance(message, bytes) and message[0] == FRAGMENT:
                seen["fragments"] += 1
                _, _, source, _, pts_ns, _ = HEADER.unpack_from(message)
                pictures.append((source, pts_ns))


@contextmanager
def lazy_viewer(port: int, sources: list[str]) -> Iterator[None]:
    """Ask for video and never read any."""
    address = f"ws://127.0.0.1:{port}/api/v1/live"
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.connect(("127.0.0.1", port))
    with connect_at_once(address, sock=plain, compression=None, max_queue=1, close_timeout=0.1) as viewer:
        viewer.send(wish(sources))
        yield


def missed(all_pictures: list[list[tuple[int, int]]]) -> int:
    """Return how many images viewers missed that others got while they watched."""
    known: dict[int, set[int]] = {}
    for source, pts_ns in set().union(*all_pictures):
        known.setdefault(source, set()).add(pts_ns)
    count = 0
    for pictures in filter(None, all_pictures):
        had: dict[int, set[int]] = {}
        for source, pts_ns in pictures:
            had.setdefault(source, set()).add(pts_ns)
        for source, own in had.items():
            first, last = min(own), max(own)
            count += sum(first <= pts_ns <= last for pts_ns in known[source] - own)
    return count


async def main() -> None:
    """Watch until the input ends."""
    os.nice(15)  # viewers sit at other machines: what they do with the video must not take the engine's processor
    port, count, *sources = sys.argv[1:]
    seen: Counter[str] = Counter()
    pictures: list[list[tuple[int, int]]] = [[] for _ in range(int(count))]
    viewers = [asyncio.create_task(watch(int(port), sources, seen, each)) for each in pictures]
    await asyncio.to_thread(sys.stdin.read)
    failed = [task.exception() for task in viewers if task.done()]
    for task in viewers:
        task.cancel()
    print(json.dumps({**seen, "failed": len(failed), "missed": missed(pictures)}))


class Viewers:
    """Starts viewers of a page, and ends them.

    Args:
        port: of the page, on loopback.
        count: viewers.
        sources: what each of them watches.
    """

    def __init__(self, port: int, count: int, sources: list[str]) -> None:
        command = [sys.executable, "-m", "tests.pipelines.web.viewers", str(port), str(count), *sources]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def end(self) -> dict[str, Any]:
        """End them, and return bytes and fragments that came, images missed, and how many viewers failed."""
        out, _ = self._process.communicate()
        found: dict[str, Any] = json.loads(out)
        return found


if __name__ == "__main__":
    asyncio.run(main())
