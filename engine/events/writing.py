"""The thread that writes to the store. Submitting a job never waits, however slow the disk is.

While the store cannot be written, jobs wait in memory and are written when it returns. Their number is limited; beyond
the limit, track paths are dropped first, then the oldest jobs, and every lost job is counted.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.events.store.database import BusyStoreError, DamagedStoreError, NewerStoreError, RejectedError, StoreError
from engine.events.store.place import StorePlace
from engine.events.store.writer import StoreWriter

logger = logging.getLogger(__name__)
CAPACITY = 50_000
BATCH = 500
RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)
LATE_NS = 2 * NS_PER_S
BUNDLE_S = 0.25
"""How long jobs that need not be durable wait for others, because each transaction costs as much as several rows."""


@dataclass(frozen=True, slots=True)
class Job:
    """Something to write.

    Attributes:
        apply: writes it, in a transaction shared with other jobs; may be called again if that fails, so it must have
            the same effect when repeated, and it must not wait.
        events: number of rows of events in it, for the figures.
        is_durable: a power cut after the job must not undo it.
        is_droppable: dropped first if memory runs out.
    """

    apply: Callable[[StoreWriter], None]
    events: int = 0
    is_durable: bool = False
    is_droppable: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """The progress of the store.

    Attributes:
        stored: rows of events written.
        waiting: rows of events that are not written yet.
        unstored: rows that have waited for more than two seconds, or are lost.
        lost: lost rows of events by cause: `memory`, `stopped`, `rejected`.
        error: why the store cannot be written now; empty if it can.
    """

    stored: int
    waiting: int
    unstored: int
    lost: dict[str, int]
    error: str


class StoreThread:
    """Opens the store, recovers what an earlier run left open, and writes jobs in order.

    Args:
        place: where the store is.
        engine_id: the engine that writes.
        run_epoch: start of the run.
        on_open: called on the thread with each newly opened writer, in a transaction; `is_new` tells whether the
            database is empty although media may exist.
        clock: time.
    """

    def __init__(
        self,
        place: StorePlace,
        engine_id: str,
        run_epoch: int,
        on_open: Callable[[StoreWriter, bool], None] = lambda writer, is_new: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.place = place
        self._engine_id = engine_id
        self._run_epoch = run_epoch
        self._on_open = on_open
        self._clock = clock
        self._jobs: deque[tuple[int, Job]] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._is_urgent = False
        self._gives_up = threading.Event()
        self._ready = threading.Event()
        self._refusal: StoreError | None = None
        self._lost: Counter[str] = Counter()
        self._stored = 0
        self._waiting = 0
        self._oldest_ns: int | None = None
        self._error = ""
        self._writer: StoreWriter | None = None
        self._thread = threading.Thread(target=self._run, name="events store", daemon=True)

    def start(self, timeout_s: float) -> None:
        """Start, and wait up to `timeout_s` for the store to open; after that, it opens in the background.

        Raises:
            StoreError: the store can never be opened (no access, in use, newer than this program).
        """
        self._thread.start()
        self._ready.wait(timeout_s)
        if self._refusal is not None:
            raise self._refusal
        if not self._ready.is_set():
            logger.warning("%s has not answered for %g s: events wait in memory", self.place, timeout_s)

    def submit(self, *jobs: Job) -> None:
        """Write jobs as soon as possible; never waits. May be called on any thread."""
        with self._changed:
            if self._is_closing:
                self._lost["stopped"] += sum(job.events for job in jobs)
                return
            now_ns, was_idle = self._clock.monotonic_ns(), not self._jobs
            for job in jobs:
                if len(self._jobs) >= CAPACITY:
                    self._make_room()
                self._jobs.append((now_ns, job))
                self._waiting += job.events
                self._is_urgent = self._is_urgent or job.is_durable
            self._is_urgent = self._is_urgent or len(self._jobs) >= BATCH
            if self._is_urgent or was_idle:
                self._changed.notify()

    def _make_room(self) -> None:
        """Drop what matters least, a tenth at a time, so that it costs little."""
        want = CAPACITY // 10
        droppable = [at for at, (_, job) in enumerate(self._jobs) if job.is_droppable][:want]
        drop = set(droppable) or set(range(want))
        gone = sum(job.events for at, (_, job) in enumerate(self._jobs) if at in drop)
        self._jobs = deque(item for at, item in enumerate(self._jobs) if at not in drop)
        self._lost["memory"] += gone
        self._waiting -= gone

    def figures(self) -> Figures:
        """Return the progress of the store. May be called on any thread."""
        with self._changed:
            lost = {cause: n for cause, n in self._lost.items() if n}
            late = 0
            if self._oldest_ns is not None and self._clock.monotonic_ns() - self._oldest_ns > LATE_NS:
                late = self._waiting
            return Figures(self._stored, self._waiting, late + sum(lost.values()), lost, self._error)

    @property
    def is_idle(self) -> bool:
        """Whether everything is written."""
        with self._changed:
            return not self._jobs and self._oldest_ns is None

    def close(self, timeout_s: float) -> bool:
        """Write what is waiting, for at most `timeout_s`, and end; return whether everything was written."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        self._gives_up.set()
        if self._thread.is_alive():
            self._thread.join(0.1)
        with self._changed:
            if self._waiting:
                self._lost["stopped"] += self._waiting
                logger.error("%s: %d events were not stored before the end: %s", self.place, self._waiting, self._error)
                self._waiting = 0
        return not self._lost["stopped"]

    # --- on the thread ---

    def _run(self) -> None:
        try:
            self._open_with_patience()
            while True:
                batch = self._take()
                if not batch:
                    break
                self._write(batch)
                if self._gives_up.is_set():
                    break
            if self._writer is not None:
                self._writer.finish()
        except StoreError as error:
            self._error = str(error)
        except Exception as error:  # a failing log must not end detection
            self._error = f"{type(error).__name__}: {error}"
            logger.exception("the event log failed; detection continues without it")
        finally:
            self._ready.set()
            self._drop_connection()
            self.place.release()

    def _take(self) -> list[tuple[int, Job]]:
        """Wait for jobs and return a batch of them; empty only when the thread must end."""
        with self._changed:
            while not self._jobs and not self._is_closing:
                self._changed.wait()
            self._changed.wait_for(lambda: self._is_urgent or self._is_closing, BUNDLE_S)
            self._is_urgent = len(self._jobs) > BATCH
            batch = [self._jobs.popleft() for _ in range(min(len(self._jobs), BATCH))]
            self._oldest_ns = batch[0][0] if batch else None
            return batch

    def _done(self, batch: Sequence[tuple[int, Job]], *, lost: str = "") -> None:
        events = sum(job.events for _, job in batch)
        with self._changed:
            self._waiting -= events
            if lost:
                self._lost[lost] += events
            else:
                self._stored += events
            if not lost:
                self._error = ""
            self._oldest_ns = self._jobs[0][0] if self._jobs else None

    def _write(self, batch: list[tuple[int, Job]]) -> None:
        """Write a batch, however long that takes."""
        try:
            if self._until_it_works(lambda: self._commit(batch)):
                self._done(batch)
        except RejectedError as error:
            self._one_by_one(batch, error)
        except Exception as error:  # noqa: BLE001  # of a job: the others must not suffer
            self._one_by_one(batch, error)

    def _one_by_one(self, batch: list[tuple[int, Job]], error: Exception) -> None:
        if len(batch) == 1:
            logger.error("%s: a row was rejected and is lost: %s", self.place, error)
            self._done(batch, lost="rejected")
            return
        for item in batch:
            self._write([item])

    def _commit(self, batch: Sequence[tuple[int, Job]]) -> None:
        writer = self._opened()
        with writer.transaction(durable=any(job.is_durable for _, job in batch)):
            for _, job in batch:
                job.apply(writer)

    def _until_it_works(self, act: Callable[[], Any]) -> bool:
        """Repeat an action until the store accepts it; return False if the run ends first."""
        tries = 0
        while True:
            try:
                act()
                return True
            except RejectedError:
                raise
            except DamagedStoreError as error:
                self._drop_connection()
                aside = self.place.set_aside()
                logger.error("%s: set aside as %s; a new one is built from the media files", error, aside.name)
                self._error = str(error)
            except StoreError as error:
                self._tell(error)
            if self._clock.wait(self._gives_up, RETRY_S[min(tries, len(RETRY_S) - 1)]) or (
                self._is_closing and self._gives_up.is_set()
            ):
                return False
            tries += 1

    def _tell(self, error: StoreError) -> None:
        if not self._error:
            logger.error("%s: events wait in memory until it works", error)
        self._error = str(error)
        if self.place.is_server:
            self._drop_connection()

    def _open_with_patience(self) -> None:
        """Open the store. A server, a locked file or a full disk may become available; others are rejected at once."""
        try:
            self._opened()
        except StoreError as error:
            may_return = self.place.is_server or isinstance(error, BusyStoreError)
            if isinstance(error, NewerStoreError) or not may_return:
                self._refusal = error
                raise
            self._tell(error)
        finally:
            self._ready.set()

    def _opened(self) -> StoreWriter:
        if self._writer is not None and self._writer.database.is_there():
            return self._writer
        self._drop_connection()
        is_new = self.place.is_new
        database = self.place.open(self._engine_id)
        try:
            writer = StoreWriter(database, self._engine_id, self._run_epoch)
            with writer.transaction(durable=True):
                left = writer.recover()
                self._on_open(writer, is_new)
        except BaseException:
            database.close()
            raise
        if left:
            logger.warning("%d episodes of a run that was killed were ended when it was last seen", left)
        self._writer = writer
        return writer

    def _drop_connection(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(StoreError):
                writer.database.close()
