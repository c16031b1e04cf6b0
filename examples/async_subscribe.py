"""Read the stream alongside other asyncio tasks: python examples/async_subscribe.py [ADDRESS].

Start an engine first, in another terminal: `framewire demo`, or `framewire run` on a camera.
"""

import asyncio
import sys
from collections import Counter

from engine.subscriber.aio import AsyncSubscriber

FRAMES = 40


async def count_objects(address: str, counts: Counter[str]) -> None:
    """Count the objects of FRAMES frames by class."""
    async with AsyncSubscriber(address, topics=["v1/frame/"]) as subscriber:
        for _ in range(FRAMES):
            message = await subscriber.receive()
            counts.update(thing.class_name for thing in message.objects)


async def report(counts: Counter[str]) -> None:
    """Print the counts once a second while the other task reads."""
    while True:
        await asyncio.sleep(1)
        print("so far:", dict(counts))


async def main(address: str) -> None:
    """Run both tasks until enough frames have arrived."""
    counts: Counter[str] = Counter()
    reporter = asyncio.create_task(report(counts))
    await count_objects(address, counts)
    reporter.cancel()
    print("total:", dict(counts))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5555"))
