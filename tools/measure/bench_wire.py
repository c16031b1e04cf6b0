#!/usr/bin/env python3
"""Measure encoding and decoding of one frame message, and compare with the standard library's json in the same run.

usage: bench_wire.py      prints the table of docs/wire.md (microseconds, best of 60 rounds)
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

import msgspec  # noqa: E402

from engine.wire import decode, encode, frame_message  # noqa: E402
from tests.wire.samples import packet  # noqa: E402

ROUNDS, CALLS = 60, 30


def best_us(work: Callable[[], object]) -> float:
    """Return the microseconds of a call in the round that other programs disturbed least."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(CALLS):
            work()
        times.append((time.perf_counter() - started) / CALLS)
    return min(times) * 1e6


def row(count: int) -> str:
    """Return the table row of a frame with this many objects."""
    given = packet(count)
    message = frame_message(given)
    body, packed, plain = encode(message), encode(message, "msgpack"), msgspec.to_builtins(message)
    works: list[Callable[[], object]] = [
        lambda: frame_message(given),
        lambda: encode(message),
        lambda: encode(message, "msgpack"),
        lambda: json.dumps(plain),
        lambda: decode(body),
        lambda: decode(packed),
        lambda: json.loads(body),
    ]
    return f"| {count} | {len(body)} / {len(packed)} | {' | '.join(f'{best_us(work):.1f}' for work in works)} |"


def main() -> None:
    """Measure and print."""
    print(
        "| objects | bytes JSON / msgpack | build | JSON | msgpack | stdlib json | read JSON | read msgpack | stdlib |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for count in (0, 10, 50, 200):
        print(row(count), flush=True)


if __name__ == "__main__":
    main()
