"""Viewers of the page without a browser: they take everything and look at nothing, in a process of their own.

usage: python -m tests.pipelines.web.viewers PORT COUNT SOURCE ...  (until its input ends; then prints what came)
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from typing import Any

from websockets.asyncio.client import connect

FRAGMENT = 3


async def watch(port: int, sources: list[str], seen: Counter[str]) -> None:
    """Watch sources, video and boxes, until cancelled."""
    address = f"ws://127.0.0.1:{port}/api/v1/live"
    async with connect(address, max_size=None, compression=None) as viewer:
        await viewer.send(json.dumps({"watch": {name: {"boxes": True, "video": True} for name in sources}}))
        async for message in viewer:
            seen["bytes"] += len(message)
            seen["fragments"] += isinstance(message, bytes) and message[0] == FRAGMENT


async def main() -> None:
    """Watch until the input ends."""
    port, count, *sources = sys.argv[1:]
    seen: Counter[str] = Counter()
    viewers = [asyncio.create_task(watch(int(port), sources, seen)) for _ in range(int(count))]
    await asyncio.to_thread(sys.stdin.read)
    failed = [task.exception() for task in viewers if task.done()]
    for task in viewers:
        task.cancel()
    print(json.dumps({**seen, "failed": len(failed)}))


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
        """End them, and return the bytes and fragments that came, and how many viewers failed."""
        out, _ = self._process.communicate()
        found: dict[str, Any] = json.loads(out)
        return found


if __name__ == "__main__":
    asyncio.run(main())
