"""The W3C trace context of a frame: it is derived from engine, run, source and `seq`, so any process can compute it."""

from __future__ import annotations

import hashlib

from engine.data import Run


def trace_ids(run: Run, source_id: str, seq: int) -> tuple[int, int]:
    """Return the trace id of a frame and the id of the span that stands for its camera."""
    seed = f"{run.engine_id}/{run.run_epoch}/{source_id}/{seq}".encode()
    digest = hashlib.blake2b(seed, digest_size=24).digest()
    return int.from_bytes(digest[:16], "big") or 1, int.from_bytes(digest[16:], "big") or 1


def traceparent(run: Run, source_id: str, seq: int) -> str:
    """Return the `traceparent` of a frame, for programs that continue its trace.

    >>> traceparent(Run("engine", 1), "gate", 7)[:3]
    '00-'
    """
    trace_id, span_id = trace_ids(run, source_id, seq)
    return f"00-{trace_id:032x}-{span_id:016x}-01"
