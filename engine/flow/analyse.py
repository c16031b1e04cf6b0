"""The step between tracking and publishing: analysers add their findings to the packets of one inference.

It runs on the tracking thread, because handing a packet to another thread costs more than most analyses, and it takes
all packets of one inference, so that an analyser of several sources computes once for all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.clock import NS_PER_MS, Clock
from engine.data import Packet, SourceStatus
from engine.errors import StageError
from engine.protocols import Analyser

if TYPE_CHECKING:
    from engine.analytics.analytics import Analytics

Lists = Mapping[str, Sequence[Analyser]]
ALL_SOURCES = "*"
"""Key of the list for sources without their own."""


class AnalyseStep:
    """Runs the analysers of each source in order; a source without analysers costs nothing.

    An analyser in the lists of several sources is called once per inference with the packets of all of
    them. `change` may be called from any thread, everything else is called from the tracking thread.

    Args:
        analysers: by source, in the order in which they run; under `ALL_SOURCES` for sources without their own list.
        clock: monotonic clock for `stage_ms["analyse"]`.
    """

    def __init__(self, analysers: Lists, clock: Clock) -> None:
        self._lists: dict[str, tuple[Analyser, ...]] = {}
        self._epochs: dict[str, int] = {}
        self._class_names: dict[str, tuple[str, ...]] = {}
        self._clock = clock
        self._lock = threading.Lock()
        self._next: dict[str, tuple[Analyser, ...]] = {}
        self._ever: dict[int, Analyser] = {}
        self.change(analysers)

    def change(self, analysers: Lists) -> None:
        """Replace the lists of the given sources from their next packet on; an empty list ends their analysis."""
        with self._lock:
            self._next.update({source_id: tuple(wanted) for source_id, wanted in analysers.items()})
            self._ever.update((id(analyser), analyser) for wanted in analysers.values() for analyser in wanted)

    @property
    def lists(self) -> dict[str, tuple[Analyser, ...]]:
        """The current lists, including those of the last `change`."""
        with self._lock:
            return {**self._lists, **self._next}

    @property
    def ever(self) -> tuple[Analyser, ...]:
        """All analysers that were ever in a list, so that their final results can be collected."""
        with self._lock:
            return tuple(self._ever.values())

    @property
    def is_idle(self) -> bool:
        """Whether no source has an analyser."""
        return not (self._lists or self._next)

    def __call__(self, packets: list[Packet]) -> list[Packet]:
        """Return the packets of one inference, in order, with the analysers' findings.

        Raises:
            StageError: an analyser failed, or returned packets other than those it was given; the error names the
                analyser.
        """
        if self.is_idle:
            return packets
        self._take_over()
        for packet in packets:
            self._begin(packet)
        for position in range(max(map(len, self._lists.values()), default=0)):
            for analyser, rows in self._due(packets, position):
                self._run(analyser, rows, packets)
        return packets

    def status(self, status: SourceStatus) -> SourceStatus:
        """Notify a source's analysers of its new state, and return it with their additions. Raises `StageError`."""
        if self.is_idle:
            return status
        self._take_over()
        if status.state == "ended":
            self._epochs.pop(status.source_id, None)
        for analyser in self._of(status.source_id):
            try:
                status = analyser.status(status)
            except Exception as error:
                raise StageError(f"analyser {analyser.name}", error) from error
        return status

    def close(self) -> None:
        """Close every analyser once."""
        self._take_over()
        self.change(dict.fromkeys(self._lists, ()))
        self._take_over()

    def _take_over(self) -> None:
        """Apply the lists of `change` and close the analysers that no source uses any more."""
        if not self._next:
            return
        with self._lock:
            changed, self._next = self._next, {}
        before = {id(analyser): analyser for wanted in self._lists.values() for analyser in wanted}
        lists = {**self._lists, **changed}
        has_own = lists.get(ALL_SOURCES, ())  # if there is a shared list, an empty one overrides it: no analysis
        self._lists = {name: wanted for name, wanted in lists.items() if wanted or (has_own and name != ALL_SOURCES)}
        now = {id(analyser) for wanted in self._lists.values() for analyser in wanted}
        for key, analyser in before.items():
            if key not in now:
                analyser.close()

    def _of(self, source_id: str) -> tuple[Analyser, ...]:
        own = self._lists.get(source_id)
        return self._lists.get(ALL_SOURCES, ()) if own is None else own

    def _begin(self, packet: Packet) -> None:
        """Reset the analysers of a source whose stream restarted or whose class ids changed meaning."""
        frame, class_names = packet.frame, packet.run.class_names
        analysers = self._of(frame.source_id)
        if self._epochs.setdefault(frame.source_id, frame.stream_epoch) != frame.stream_epoch:
            self._epochs[frame.source_id] = frame.stream_epoch
            for analyser in analysers:
                analyser.reset(frame.source_id, "stream_restarted")
        if self._class_names.setdefault(frame.source_id, class_names) != class_names:
            self._class_names[frame.source_id] = class_names
            for analyser in analysers:
                analyser.reset(frame.source_id, "model_changed")

    def _due(self, packets: Sequence[Packet], position: int) -> list[tuple[Analyser, list[int]]]:
        """Return each analyser at this position of a list, with the rows of the packets that it analyses."""
        due: dict[int, tuple[Analyser, list[int]]] = {}
        for row, packet in enumerate(packets):
            wanted = self._of(packet.frame.source_id)
            if position < len(wanted):
                due.setdefault(id(wanted[position]), (wanted[position], []))[1].append(row)
        return list(due.values())

    def _run(self, analyser: Analyser, rows: Sequence[int], packets: list[Packet]) -> None:
        """Replace the packets in these rows with those that the analyser returns."""
        started_ns = self._clock.monotonic_ns()
        given = [packets[row] for row in rows]
        try:
            found = analyser.analyse(given)
            _check(given, found)
        except Exception as error:
            raise StageError(f"analyser {analyser.name}", error) from error
        spent_ms = (self._clock.monotonic_ns() - started_ns) / NS_PER_MS / len(rows)
        for row, packet in zip(rows, found, strict=True):
            before_ms = packet.stage_ms.get("analyse", 0.0)
            packets[row] = replace(packet, stage_ms={**packet.stage_ms, "analyse": before_ms + spent_ms})


def _check(given: Sequence[Packet], found: Sequence[Packet]) -> None:
    """Raise ValueError unless the same frames came back; a missing packet would go uncounted."""
    if len(found) != len(given):
        raise ValueError(f"it returned {len(found)} packets for {len(given)}: return every packet, in order")
    if any(after.frame is not before.frame for before, after in zip(given, found, strict=True)):
        raise ValueError("it returned packets of other frames: return every packet, in order")


def with_analytics(analysers: Lists, analytics: Analytics | Mapping[str, Analytics] | None, clock: Clock) -> Lists:
    """Return the lists with the analytics in front of each; the other analysers can read their findings."""
    if analytics is None:
        return analysers
    from engine.analytics.analyser import SceneAnalyser
    from engine.analytics.analytics import Analytics

    everyone = analysers.get(ALL_SOURCES, ())
    first = SceneAnalyser(analytics, clock)
    names = [ALL_SOURCES, *analysers] if isinstance(analytics, Analytics) else [*analytics]
    return {**analysers, **{name: [first, *analysers.get(name, everyone)] for name in names}}
