"""A ledger in a NATS JetStream key-value bucket, for controllers that share it.

Revisions provide the compare-and-set.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from engine.errors import ConfigError
from engine.optional import require
from pipelines.fleet.ledger.records import Assignment, Change, LedgerError, checked, checked_note

T = TypeVar("T")
OPEN_S = 10.0
AT_ONCE = 100
"""Cameras whose changes are under way at the same time."""
ASSIGNMENT, NOTE = "a.", "n."


class NatsLedger:
    """A ledger in a bucket of a NATS server with JetStream; used by one thread.

    Args:
        url: of the server: `nats://host:4222`.
        bucket: name of the bucket, created if it is missing.
        answer_s: how long each later call may take; its caller also renews leases.

    Raises:
        LedgerError: the server cannot be reached, or has no JetStream.
        MissingDependencyError: nats-py is not installed.
    """

    def __init__(self, url: str, bucket: str, answer_s: float = OPEN_S) -> None:
        self._nats = require("nats", extra="nats")
        self._errors = require("nats.js.errors", extra="nats")
        self._url, self._bucket, self._answer_s = url, bucket, answer_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nats", daemon=True)
        self._thread.start()
        self._known: dict[str, tuple[str, int]] = {}
        self._client: Any = None
        try:
            self._bucket_handle = self._run(self._open(), OPEN_S)
        except BaseException:
            self.close()
            raise

    async def _open(self) -> Any:
        self._client = await self._nats.connect(
            self._url,
            connect_timeout=OPEN_S / 2,
            max_reconnect_attempts=-1,
            error_cb=_ignore,
            name="framewire fleet",
        )
        stream = self._client.jetstream()
        try:
            return await stream.key_value(self._bucket)
        except self._errors.BucketNotFoundError:
            return await stream.create_key_value(bucket=self._bucket, history=1)

    def read(self) -> dict[str, Assignment]:
        """Return all assignments by source_id."""
        self._known = self._run(self._entries())
        values = [_assignment(text) for key, (text, _) in self._known.items() if key.startswith(ASSIGNMENT)]
        return {value.source_id: value for value in values}

    async def _entries(self) -> dict[str, tuple[str, int]]:
        """Return text and revision by key, through one subscription that ends once all stored values have arrived."""
        found: dict[str, tuple[str, int]] = {}
        watcher = await self._bucket_handle.watchall(ignore_deletes=True)
        try:
            while (entry := await watcher.updates(timeout=OPEN_S)) is not None:
                found[entry.key] = ((entry.value or b"").decode(), entry.revision)
        finally:
            await watcher.stop()
        return found

    def change(self, changes: Sequence[Change]) -> list[bool]:
        """Apply each change that is still valid and return those applied."""
        checked(changes)
        return self._run(self._change_all(changes))

    async def _change_all(self, changes: Sequence[Change]) -> list[bool]:
        by_camera: dict[str, list[int]] = {}
        for number, change in enumerate(changes):
            by_camera.setdefault(change.after.source_id, []).append(number)
        done = [False] * len(changes)

        async def make(numbers: Sequence[int]) -> None:
            for number in numbers:  # the changes of one camera stay in order
                before, after = changes[number]
                old = None if before is None else _text(before)
                done[number] = await self._swap(_key(ASSIGNMENT, after.source_id), old, _text(after))

        groups = list(by_camera.values())
        for first in range(0, len(groups), AT_ONCE):
            await asyncio.gather(*map(make, groups[first : first + AT_ONCE]))
        return done

    def note(self, name: str) -> str | None:
        """Return the text stored under this name; None if there is none."""
        found = self._run(self._get(_key(NOTE, name)))
        return None if found is None else found[0]

    def set_note(self, name: str, before: str | None, after: str | None) -> bool:
        """Replace the text `before` with `after`, and return whether `before` was still stored."""
        return self._run(self._swap(_key(NOTE, name), before, checked_note(after)))

    async def _swap(self, key: str, before: str | None, after: str | None) -> bool:
        known = self._known.get(key)
        if known is None or known[0] != before:  # anything that differs from `before` may have changed in the meantime
            known = await self._get(key)
        if (None if known is None else known[0]) != before:
            return False
        try:
            if after is None:
                await self._bucket_handle.delete(key, last=known[1] if known else None)
                self._known.pop(key, None)
                return True
            data = after.encode()
            revision = await (
                self._bucket_handle.create(key, data)
                if known is None
                else self._bucket_handle.update(key, data, last=known[1])
            )
        except self._errors.KeyWrongLastSequenceError:
            self._known.pop(key, None)
            return False
        self._known[key] = (after, revision)
        return True

    async def _get(self, key: str) -> tuple[str, int] | None:
        try:
            entry = await self._bucket_handle.get(key)
        except self._errors.KeyNotFoundError:  # also deleted
            self._known.pop(key, None)
            return None
        self._known[key] = ((entry.value or b"").decode(), entry.revision)
        return self._known[key]

    def close(self) -> None:
        """Hang up; safe to call again."""
        if self._loop.is_closed():
            return
        with suppress(TimeoutError, asyncio.TimeoutError, OSError, self._nats.errors.Error):
            asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result(self._answer_s)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(OPEN_S)
        self._loop.close()

    async def _hang_up(self) -> None:
        """Close the connection, and end what is still under way: a loop that stops would leave it pending."""
        try:
            if self._client is not None:
                await self._client.close()
        finally:
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, T], answer_s: float | None = None) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(answer_s or self._answer_s)
        except (OSError, TimeoutError, asyncio.TimeoutError, self._nats.errors.Error) as error:
            future.cancel()
            raise LedgerError(
                f"ledger {self._url}, bucket {self._bucket}: {error or type(error).__name__}: "
                "is it a NATS server with JetStream (nats-server -js)?"
            ) from error


async def _ignore(error: Exception) -> None:
    """Do nothing: the client reconnects on its own, and each request reports its own failure."""


def _key(kind: str, name: str) -> str:
    """Return a valid key for any name, because buckets allow few characters in keys."""
    return kind + name.encode().hex()


def _text(assignment: Assignment) -> str:
    return json.dumps([assignment.source_id, assignment.engine_id, assignment.epoch])


def _assignment(text: str) -> Assignment:
    try:
        source_id, engine_id, epoch = json.loads(text)
        return Assignment(str(source_id), str(engine_id), int(epoch))
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"ledger: {text[:100]!r} is not an assignment: use a separate bucket") from error
