"""Cleans up once a minute in a separate process, and reports what the user should know. Used by one thread."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.events.media.jobs import MediaProcess
from engine.events.media.retention import KeepOptions
from engine.events.store.place import StorePlace

logger = logging.getLogger(__name__)
INTERVAL_NS = 60 * NS_PER_S
SOON_NS = 5 * NS_PER_S
LIMIT_S = 600.0
SHARE = 20  # a clean-up takes at most a twentieth of its process's time


class Upkeep:
    """Starts a clean-up every minute.

    Args:
        place: of the store.
        recordings: folders with one folder per recorded source.
        keep: what to keep.
        written: returns the bytes that recordings have written so far: a clean-up runs earlier if they use up the
            space.
        clock: time.

    Attributes:
        report: of the last clean-up, as `TidyReport`; empty before the first.
        deleted: files and rows deleted so far, by kind and cause.
    """

    def __init__(
        self,
        place: StorePlace,
        recordings: Sequence[Path],
        keep: KeepOptions,
        written: Callable[[], int] = lambda: 0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._job: dict[str, Any] = {
            "folder": str(place.folder.resolve()),
            "store": place.url,
            "recordings": [str(path.resolve()) for path in recordings],
            "keep": asdict(keep),
            "engine_id": "",
        }
        self._is_shared = place.is_server
        self._process = MediaProcess(LIMIT_S, clock, network=place.is_server)
        self._clock = clock
        self._keep = keep
        self._written = written
        self._written_before = 0
        self._began_ns = self._lasted_ns = 0
        self._due_ns = clock.monotonic_ns() + SOON_NS
        self._told: set[str] = set()
        self.report: Mapping[str, Any] = {}
        self.deleted: Counter[str] = Counter()

    def begin(self, engine_id: str) -> None:
        """Begin a run of this engine."""
        self._job["engine_id"] = engine_id if self._is_shared else ""
        self._due_ns = self._clock.monotonic_ns() + SOON_NS

    def change(self, keep: KeepOptions) -> None:
        """Change what to keep, from the next clean-up on, which runs soon. May be called on any thread."""
        self._keep = keep
        self._job = {**self._job, "keep": asdict(keep)}
        self.hurry()

    def hurry(self) -> None:
        """Clean up soon: a disk is full."""
        self._due_ns = min(self._due_ns, self._clock.monotonic_ns() + SOON_NS)

    def work(self) -> None:
        """Start a clean-up that is due, or take the result of the running one; never waits."""
        if self._process.is_busy:
            answer = self._process.poll()
            if answer is not None:
                self._take(answer.result, answer.error)
        elif self._clock.monotonic_ns() >= self._due_ns or self._is_urgent():
            self._began_ns, self._written_before = self._clock.monotonic_ns(), self._written()
            self._due_ns = self._began_ns + INTERVAL_NS
            try:
                self._process.begin("tidy", self._job)
            except OSError as error:
                self._tell(f"no process can be started for the clean-up ({error})")

    def _is_urgent(self) -> bool:
        """Return whether recordings made since the last clean-up exceed the limits."""
        waited_ns = self._clock.monotonic_ns() - self._began_ns
        if not self.report or waited_ns < max(SOON_NS, SHARE * self._lasted_ns):
            return False
        fresh, limit = self._written() - self._written_before, self._keep.max_bytes
        is_over = limit is not None and sum(self.report["bytes"].values()) + fresh > limit
        return is_over or (fresh > 0 and self.report["free"] - fresh < self._keep.min_free_bytes)

    def close(self) -> None:
        """Stop; the next clean-up finishes an interrupted one."""
        self._process.close()

    def _take(self, result: Mapping[str, Any], error: str) -> None:
        self._lasted_ns = self._clock.monotonic_ns() - self._began_ns
        if error:
            self._tell(f"events and media could not be cleaned up: {error}")
            return
        self.report = result
        self.deleted.update(result["deleted"])
        if not result["asks"] and not result["warnings"]:
            self._told.clear()
        for text in filter(None, [result["asks"], *result["warnings"]]):
            self._tell(text)
        if result["adopted"] or result["rebuilt"]:
            logger.info("%d media files were adopted, %d events rebuilt", result["adopted"], result["rebuilt"])

    def _tell(self, text: str) -> None:
        key = "".join(character for character in text if not character.isdigit())
        if key not in self._told:
            self._told.add(key)
            logger.warning("%s", text)
