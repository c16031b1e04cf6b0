#!/usr/bin/env python3
"""Feed the decoder random and mutated bytes: it must return a message or raise `WireError`.

usage: fuzz_wire.py [COUNT] [SEED]      COUNT defaults to one million
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from engine.errors import WireError  # noqa: E402
from engine.wire import MESSAGE_TYPES, decode, encode  # noqa: E402
from tests.wire.samples import SAMPLES  # noqa: E402

TOKENS = (b"[", b"{", b'"', b",", b":", b"null", b"1e999", b"-", b"\\u0000", b"\xff", b"\xdf\xff\xff\xff\xff", b"\xc6")
TYPES = tuple(MESSAGE_TYPES.values())


def mutated(rng: random.Random, bodies: list[bytes]) -> bytes:
    """Return a body that is random, or derived from one or two good ones."""
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(300))
    body = bytearray(rng.choice(bodies))
    for _ in range(rng.randint(1, 6)):
        at, how = rng.randrange(len(body) + 1), rng.random()
        if how < 0.4 and body:
            body[at % len(body)] = rng.randrange(256)
        elif how < 0.6:
            body[at:at] = rng.choice(TOKENS) * rng.choice((1, 1, 1, 2, 50))
        elif how < 0.8:
            del body[at : at + rng.randrange(1, 40)]
        else:
            other = rng.choice(bodies)
            start = rng.randrange(len(other))
            body[at : at + rng.randrange(20)] = other[start : start + rng.randrange(60)]
    return bytes(body)


def main() -> None:
    """Run, and print the counts."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    bodies = [encode(message, encoding) for message in SAMPLES.values() for encoding in ("json", "msgpack")]
    started, read = time.monotonic(), 0
    for _ in range(count):
        try:
            message = decode(mutated(rng, bodies))
        except WireError:
            continue
        read += 1
        if not isinstance(message, TYPES):
            raise SystemExit(f"{type(message)} came out")
    seconds = time.monotonic() - started
    print(f"{count} inputs in {seconds:.0f} s: {read} were messages, {count - read} WireError, nothing else")


if __name__ == "__main__":
    main()
