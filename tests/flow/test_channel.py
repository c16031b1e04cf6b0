"""The bounded hand-off between threads."""

from __future__ import annotations

import threading

import pytest

from engine.errors import ConfigError
from engine.flow.channel import Arrivals, Channel, ChannelClosedError, ChannelTimeoutError

WAIT_S = 5.0


def test_items_come_out_in_order() -> None:
    channel: Channel[int] = Channel(3)
    for item in range(3):
        channel.put(item)
    channel.close()
    assert list(channel) == [0, 1, 2]


def test_full_channel_drops_the_oldest_frame() -> None:
    lost: list[tuple[int, str]] = []
    channel: Channel[int] = Channel(2, "drop_oldest", on_drop=lambda item, cause: lost.append((item, cause)))
    for item in range(4):
        channel.put(item)
    assert [channel.get(), channel.get()] == [2, 3]
    assert lost == [(0, "overflow"), (1, "overflow")]
    assert channel.dropped == {"overflow": 2}


def test_who_waits_goes_on_when_the_oldest_may_be_dropped() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(0)
    waiting = threading.Thread(target=channel.put, args=(1,))
    waiting.start()
    channel.drop_oldest()
    waiting.join(WAIT_S)
    assert not waiting.is_alive()
    assert channel.get() == 1
    assert channel.dropped == {"overflow": 1}


def test_full_channel_drops_the_newest_frame() -> None:
    lost: list[tuple[int, str]] = []
    channel: Channel[int] = Channel(1, "drop_newest", on_drop=lambda item, cause: lost.append((item, cause)))
    channel.put(0)
    channel.put(1)
    assert channel.get() == 0
    assert lost == [(1, "overflow")]


def test_full_channel_blocks_until_an_item_is_taken() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(0)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (channel.put(1), done.set()))
    thread.start()
    assert not done.wait(0.05)
    assert channel.get() == 0
    assert done.wait(WAIT_S)
    thread.join()
    assert channel.get() == 1


def test_who_waits_goes_on_when_half_is_taken_and_then_fills_up() -> None:
    channel: Channel[int] = Channel(4)
    thread = threading.Thread(target=lambda: [channel.put(item) for item in range(8)])
    thread.start()
    taken = [channel.get() for _ in range(2)]  # each of these waits until there is one
    full = threading.Event()
    for _ in range(100):
        if len(channel) == channel.capacity or full.wait(0.05):
            break
    assert len(channel) == channel.capacity
    assert channel.get() == 2
    assert not full.wait(0.05)
    assert len(channel) == channel.capacity - 1, "not for a single place"
    taken += [2, *(channel.get() for _ in range(5))]
    thread.join(WAIT_S)
    assert taken == list(range(8))


def test_who_waits_is_not_passed_by_a_steady_stream() -> None:
    channel: Channel[str] = Channel(4)
    for _ in range(channel.capacity):
        channel.put("frame")
    waiting = threading.Thread(target=channel.put, args=("status",))
    waiting.start()
    waiting.join(0.2)
    assert channel.get() == "frame"
    stream = threading.Thread(target=channel.put, args=("another frame",))
    stream.start()
    stream.join(0.2)
    assert len(channel) == channel.capacity - 1, "the place is not for who came later"
    rest = [channel.get(WAIT_S) for _ in range(5)]
    assert rest[:3] == ["frame"] * 3
    assert sorted(rest[3:]) == ["another frame", "status"]
    for thread in (waiting, stream):
        thread.join(WAIT_S)


def test_many_writers_lose_nothing_to_a_slow_reader() -> None:
    channel: Channel[int] = Channel(3)
    writers = [threading.Thread(target=lambda: [channel.put(item) for item in range(200)]) for _ in range(4)]
    for thread in writers:
        thread.start()
    taken = [channel.get(WAIT_S) for _ in range(800)]
    for thread in writers:
        thread.join(WAIT_S)
    assert sorted(taken) == sorted(list(range(200)) * 4)


def test_waiting_reader_is_woken_by_close() -> None:
    channel: Channel[int] = Channel(1)
    seen: list[type[BaseException]] = []

    def read() -> None:
        try:
            channel.get()
        except ChannelClosedError as error:
            seen.append(type(error))

    thread = threading.Thread(target=read)
    thread.start()
    channel.close()
    thread.join(WAIT_S)
    assert seen == [ChannelClosedError]


def test_closed_channel_refuses_items_and_still_gives_those_inside() -> None:
    channel: Channel[int] = Channel(2)
    channel.put(1)
    channel.close()
    with pytest.raises(ChannelClosedError):
        channel.put(2)
    assert channel.get() == 1
    with pytest.raises(ChannelClosedError):
        channel.get()


def test_abort_drops_what_is_inside_with_the_cause() -> None:
    lost: list[tuple[int, str]] = []
    channel: Channel[int] = Channel(3, on_drop=lambda item, cause: lost.append((item, cause)))
    channel.put(1)
    channel.put(2)
    channel.abort()
    channel.abort()
    assert lost == [(1, "shutdown"), (2, "shutdown")]
    assert len(channel) == 0


def test_get_gives_up_after_its_time_limit() -> None:
    with pytest.raises(ChannelTimeoutError):
        Channel[int](1).get(timeout_s=0.01)


@pytest.mark.parametrize(
    ("capacity", "overflow", "message"),
    [
        pytest.param(0, "block", "capacity is 0", id="no room"),
        pytest.param(1, "newest", "expected one of block, drop_oldest, drop_newest", id="unknown policy"),
    ],
)
def test_impossible_channels_are_refused(capacity: int, overflow: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Channel(capacity, overflow)  # type: ignore[arg-type]


@pytest.mark.parametrize("overflow", ["block", "drop_oldest", "drop_newest"])
def test_every_item_put_is_taken_or_counted_under_contention(overflow: str) -> None:
    channel: Channel[int] = Channel(3, overflow)  # type: ignore[arg-type]
    writers, each = 4, 500
    taken: list[int] = []
    reader = threading.Thread(target=lambda: taken.extend(channel))
    reader.start()
    threads = [threading.Thread(target=lambda: [channel.put(n) for n in range(each)]) for _ in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    channel.close()
    reader.join(WAIT_S)
    assert len(taken) + channel.dropped["overflow"] == writers * each
    if overflow == "block":
        assert channel.dropped["overflow"] == 0


def test_an_item_wakes_the_consumer_and_not_the_producers_of_other_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    notified: list[threading.Condition] = []
    notify_all = threading.Condition.notify_all
    monkeypatch.setattr(threading.Condition, "notify_all", lambda self: notified.append(self) or notify_all(self))
    arrivals = Arrivals()
    first, second = Channel[int](1, condition=arrivals), Channel[int](1, condition=arrivals)
    first.put(0)
    assert notified == [arrivals]
    first.get()
    assert notified == [arrivals, first._has_room]
    second.close()
    assert notified[2:] == [arrivals, second._has_room]
