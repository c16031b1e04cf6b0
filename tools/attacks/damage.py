"""Damages good data at random."""

from __future__ import annotations

import random

TOKENS = (
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"{",
    b"[",
    b'"',
    b"${HOME}",
    b"\x1b[2J",
    b"-1",
    b"1e999",
    b"NaN",
    b"../",
)


def mutated(rng: random.Random, good: bytes) -> bytes:
    """Return data that is random, truncated, or changed in a few places."""
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(400))
    data = bytearray(good)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, how = rng.randrange(len(data) + 1), rng.random()
        if how < 0.5 and data:
            data[at % len(data)] = rng.randrange(256)
        elif how < 0.7:
            data[at:at] = rng.choice(TOKENS) * rng.choice((1, 1, 8))
        elif how < 0.85:
            del data[at : at + rng.randrange(1, 64)]
        else:
            data = data[:at]
    return bytes(data)


NUMBERS = (float("nan"), float("inf"), -float("inf"), 1e308, -1, 0, 2**31, 2**63, 2**64, 10**400, 5e-324)
TEXTS = ("", "x" * 5000, "\0", "\ud800", "\x1b[2J", "../../etc/passwd", "${HOME}", "%s%n", "[/x]", "\u202e", "a\nb")
HIDDEN: tuple[object, ...] = (None, True, False, [], {}, [[]], {"": {}})


def value(rng: random.Random) -> object:
    """Return a value that no one expects: a number beyond all limits, an odd text, another type, or deep nesting."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(NUMBERS)
    if kind < 0.7:
        return rng.choice(TEXTS)
    if kind < 0.95:
        return rng.choice(HIDDEN)
    deep: object = 1
    for _ in range(rng.choice((10, 200, 900))):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    return deep


def replaced(rng: random.Random, tree: object, share: float = 0.15) -> object:
    """Return a copy of plain values in which some, often none, are replaced, left out or doubled."""
    if rng.random() < share / 3:
        return value(rng)
    if isinstance(tree, dict):
        kept = {key: replaced(rng, each, share) for key, each in tree.items() if rng.random() > share / 4}
        return {**kept, **({"extra": value(rng)} if rng.random() < share / 4 else {})}
    if isinstance(tree, list):
        items = [replaced(rng, each, share) for each in tree]
        return items * 2 if rng.random() < share / 4 else items
    return value(rng) if rng.random() < share else tree
