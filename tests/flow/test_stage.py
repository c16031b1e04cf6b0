"""The thread that all stages share, and the batcher."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from engine.clock import FakeClock
from engine.data import Frame
from engine.errors import ConfigError
from engine.flow.batcher import LIVE_IN_A_ROW, Batcher, Inlet
from engine.flow.channel import Channel, ChannelClosedError
from engine.flow.stage import Stage

WAIT_S = 5.0


class Recorder(Stage[int]):
    def __init__(self, items: Iterable[int], fails_in: str = "") -> None:
        super().__init__("recorder")
        self.items, self.fails_in = items, fails_in
        self.events: list[str] = []
        self.ended = threading.Event()
        self.error: BaseException | None = None

    def note(self, event: str) -> None:
        self.events.append(event)
        if event == self.fails_in:
            raise ValueError(event)

    def open(self) -> None:
        self.note("open")

    def inbox(self) -> Iterable[int]:
        return self.items

    def work(self, item: int) -> None:
        self.note(f"work {item}")

    def close(self) -> None:
        self.note("close")

    def run_and_wait(self) -> None:
        def on_end(stage: Stage[int], error: BaseException | None) -> None:
            self.error = error
            self.ended.set()

        self.start(on_end)
        assert self.ended.wait(WAIT_S)
        assert self.join(WAIT_S)


def test_stage_opens_works_and_closes_on_its_thread() -> None:
    stage = Recorder([1, 2])
    stage.run_and_wait()
    assert stage.events == ["open", "work 1", "work 2", "close"]
    assert stage.error is None


@pytest.mark.parametrize("fails_in", ["open", "work 1", "close"])
def test_stage_reports_its_failure_and_closes_all_the_same(fails_in: str) -> None:
    stage = Recorder([1, 2], fails_in)
    stage.run_and_wait()
    assert stage.events[-1] == "close"
    assert repr(stage.error) == repr(ValueError(fails_in))


def test_closed_channel_is_a_normal_end() -> None:
    def closed() -> Iterable[int]:
        raise ChannelClosedError("stopped")
        yield

    stage = Recorder(closed())
    stage.run_and_wait()
    assert stage.error is None
    assert stage.events == ["open", "close"]


def frame(source_id: str, frame_id: int, captured_ns: int = 0) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), source_id, frame_id, captured_ns, 0)


def batcher_of(
    sources: dict[str, int],
    max_batch: int,
    *,
    wait_s: float = 0.0,
    clock: FakeClock | None = None,
    max_age_ms: float | None = None,
    keep_older: bool = False,
) -> tuple[Batcher, dict[str, Channel[Frame]], list[tuple[str, str]]]:
    lost: list[tuple[str, str]] = []
    batcher = Batcher(
        max_batch,
        wait_s,
        keep_older=keep_older,
        on_old=lambda f, cause: lost.append((f.source_id, cause)),
        clock=clock or FakeClock(),
    )
    channels: dict[str, Channel[Frame]] = {}
    for name, count in sources.items():
        channels[name] = Channel(8, condition=batcher.condition)
        batcher.add(Inlet(name, channels[name], max_age_ms))
        for frame_id in range(count):
            channels[name].put(frame(name, frame_id))
    return batcher, channels, lost


def names(frames: list[Frame]) -> list[str]:
    return [f.source_id for f in frames]


def test_batch_holds_one_frame_of_each_source_that_has_one() -> None:
    batcher, _, _ = batcher_of({"a": 2, "b": 1, "c": 0}, 8)
    assert names(batcher.get().frames) == ["a", "b"]


def test_served_sources_go_to_the_end_of_the_queue() -> None:
    batcher, _, _ = batcher_of({"a": 3, "b": 3, "c": 3}, 2)
    assert [names(batcher.get().frames) for _ in range(3)] == [["a", "b"], ["c", "a"], ["b", "c"]]


def test_batch_does_not_wait_for_a_silent_source_beyond_its_deadline() -> None:
    batcher, _, _ = batcher_of({"a": 1, "silent": 0}, 2, wait_s=0.01)
    assert names(batcher.get().frames) == ["a"]


def test_batch_waits_for_a_frame_that_comes_before_the_deadline() -> None:
    batcher, channels, _ = batcher_of({"a": 1, "late": 0}, 2, wait_s=WAIT_S)
    late = threading.Timer(0.02, lambda: channels["late"].put(frame("late", 0)))
    late.start()
    assert names(batcher.get().frames) == ["a", "late"]
    late.join()


def test_old_frames_are_dropped_and_counted_and_the_next_one_is_taken() -> None:
    clock = FakeClock()
    batcher, channels, lost = batcher_of({"a": 1}, 1, clock=clock, max_age_ms=100)
    clock.advance(0.2)
    channels["a"].put(frame("a", 1, clock.monotonic_ns()))
    assert [f.frame_id for f in batcher.get().frames] == [1]
    assert lost == [("a", "age")]


class _HurriedClock(FakeClock):
    """Each check of it takes half a second."""

    def monotonic_ns(self) -> int:
        self.advance(0.5)
        return super().monotonic_ns()


@pytest.mark.parametrize(("frames", "warnings"), [(3, 0), (8, 1)])
def test_a_source_of_which_every_frame_is_too_old_is_warned_of_once(
    frames: int, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    batcher, channels, lost = batcher_of({"a": frames}, 1, clock=_HurriedClock(), max_age_ms=100)
    batcher.seal()
    channels["a"].close()
    while True:
        try:
            assert batcher.get().frames == []
        except ChannelClosedError:
            break
    assert len(lost) == frames
    assert [record.getMessage()[:2] for record in caplog.records] == ["a:"] * warnings


def test_each_waiting_frame_is_handed_on_or_counted_as_old() -> None:
    clock = FakeClock()
    batcher, channels, lost = batcher_of({"a": 3, "b": 2}, 2, clock=clock, max_age_ms=100, keep_older=True)
    clock.advance(0.2)
    for frame_id in (3, 4):
        channels["a"].put(frame("a", frame_id, clock.monotonic_ns()))
    batch = batcher.get()
    assert [f.frame_id for f in batch.frames] == [4]
    assert [f.frame_id for f in batch.older] == [3]
    assert Counter(lost) == {("a", "age"): 3, ("b", "age"): 2}


def test_end_of_each_source_is_told_once_after_its_last_frame() -> None:
    batcher, channels, _ = batcher_of({"a": 1, "b": 0}, 2)
    batcher.seal()
    channels["a"].close()
    batch = batcher.get()
    assert (names(batch.frames), batch.ended) == (["a"], ["a"])
    channels["b"].close()
    assert batcher.get().ended == ["b"]
    with pytest.raises(ChannelClosedError):
        batcher.get()


def test_source_that_comes_after_the_end_was_told_is_refused() -> None:
    batcher = Batcher(1, 0.0)
    batcher.seal()
    with pytest.raises(ChannelClosedError):
        batcher.get()
    with pytest.raises(ConfigError, match="late cannot be added"):
        batcher.add(Inlet("late", Channel(1, condition=batcher.condition)))


def refilled(batcher: Batcher, channels: dict[str, Channel[Frame]], batches: int) -> list[list[str]]:
    """Return the order in which sources are served if each always has a frame waiting."""
    served = []
    for number in range(batches):
        for name, channel in channels.items():
            if not len(channel):
                channel.put(frame(name, number))
        served.append(names(batcher.get().frames))
    return served


def with_files(live: list[str], files: list[str], max_batch: int) -> tuple[Batcher, dict[str, Channel[Frame]]]:
    batcher = Batcher(max_batch, 0.0, clock=FakeClock())
    channels = {name: Channel[Frame](4, condition=batcher.condition) for name in [*files, *live]}
    for name, channel in channels.items():
        batcher.add(Inlet(name, channel, is_live=name in live))
    return batcher, channels


def test_live_frames_come_before_those_of_a_file() -> None:
    batcher, channels = with_files(["camera"], ["file"], 1)
    served = refilled(batcher, channels, 2 * (LIVE_IN_A_ROW + 1))
    assert served == 2 * [*LIVE_IN_A_ROW * [["camera"]], ["file"]], "and files are not starved"


def test_a_file_takes_what_the_cameras_leave() -> None:
    batcher, channels = with_files(["camera"], ["file"], 1)
    for number in range(3):
        channels["file"].put(frame("file", number))
    channels["camera"].put(frame("camera", 0))
    assert [names(batcher.get().frames) for _ in range(4)] == [["camera"], ["file"], ["file"], ["file"]]


@pytest.mark.parametrize("max_batch", [1, 3, 4])
def test_files_share_one_frame_in_ten_fairly_beside_many_cameras(max_batch: int) -> None:
    cameras, files = [f"camera {n}" for n in range(12)], ["file 1", "file 2"]
    batcher, channels = with_files(cameras, files, max_batch)
    flat = [name for batch in refilled(batcher, channels, 1200 // max_batch) for name in batch]
    counts = Counter(flat)
    assert counts["file 1"] == pytest.approx(counts["file 2"], abs=1)
    assert counts["file 1"] + counts["file 2"] == pytest.approx(len(flat) / (LIVE_IN_A_ROW + 1), abs=2)
    assert max(counts[name] for name in cameras) - min(counts[name] for name in cameras) <= 1


def test_free_places_of_a_batch_go_to_files() -> None:
    batcher, channels = with_files(["camera"], ["file"], 2)
    assert refilled(batcher, channels, 2) == [["camera", "file"], ["camera", "file"]]
