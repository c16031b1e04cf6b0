"""Live HLS as servers really send it: counters that begin anew, restarts, short failures, an end, and slow cameras."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from engine.data import Frame
from engine.errors import SourceError
from engine.sources.open import open_source
from engine.sources.synthetic import number_in_image
from engine.video.playlist.segment import PACKET_BYTES, Segment
from tests.media import Recorder
from tests.video.playlist.live_list import LiveList, live_list, segments_of

FPS, PER_SEGMENT = 10, 10


@pytest.fixture(scope="module")
def coded() -> dict[str, bytes]:
    """Six segments of a second: `a0` to `a2`, and `b0` to `b2`, which continue the numbers of the frames."""
    parts = segments_of(6 * PER_SEGMENT, PER_SEGMENT, FPS)
    return dict(zip(["a0", "a1", "a2", "b0", "b1", "b2"], parts, strict=True))


class Watched:
    """Reads a source on a thread of its own, and collects the numbers of its frames.

    The last frame of the newest segment comes with the next segment: FFmpeg cannot know before that it is complete.
    """

    def __init__(self, url: str) -> None:
        self.source, self.recorder = open_source(url, reader="thread"), Recorder()
        self.source.attach(self.recorder)
        self.numbers: list[int] = []
        self.changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for frame in self.source:
            with self.changed:
                self.numbers.append(number_in_image(frame.image))
                self.changed.notify_all()

    def wait(self, condition: Callable[[list[int]], bool], timeout_s: float = 60.0) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self.numbers), timeout_s), self.numbers

    def close(self) -> None:
        self.source.interrupt()
        self._thread.join()


@pytest.fixture
def watch() -> Iterator[Callable[[str], Watched]]:
    watched: list[Watched] = []

    def begin(url: str) -> Watched:
        watched.append(Watched(url))
        return watched[-1]

    yield begin
    for each in watched:
        each.close()


def frames_of(url: str) -> tuple[list[Frame], Recorder]:
    source, recorder = open_source(url, reader="thread", live=False), Recorder()
    source.attach(recorder)
    return list(source), recorder


def test_counters_that_begin_anew_with_each_segment_are_no_damage(coded: dict[str, bytes]) -> None:
    """FFmpeg marks the last frames of every segment as corrupt."""
    with live_list(LiveList(coded, ["a0", "a1", "a2"], is_complete=True)) as shown:
        frames, recorder = frames_of(shown.url)
    assert [number_in_image(frame.image) for frame in frames] == list(range(3 * PER_SEGMENT))
    assert not recorder.losses


def test_packets_missing_within_a_segment_are_damage(coded: dict[str, bytes]) -> None:
    packets = [coded["a1"][at : at + PACKET_BYTES] for at in range(0, len(coded["a1"]), PACKET_BYTES)]
    video = [packet for packet in packets if packet[1] & 0x1F == 1 and packet[2] == 0]
    packets.remove(video[len(video) // 2])
    with live_list(LiveList(coded | {"a1": b"".join(packets)}, ["a0", "a1", "a2"], is_complete=True)) as shown:
        _, recorder = frames_of(shown.url)
    assert recorder.losses["corrupt"]


@pytest.mark.parametrize("size", [1, 187, 188, 189, 100_000])
def test_a_segment_is_read_in_pieces_of_any_size(coded: dict[str, bytes], size: int) -> None:
    """Packets with content pass unchanged, in order; anything but MPEG-TS passes as it is."""

    class Pieces:
        def __init__(self, data: bytes) -> None:
            self._data, self._sizes = data, np.random.default_rng(size)

        def read(self, most: int, /) -> bytes:
            count = int(self._sizes.integers(1, min(most, 1000)))
            piece, self._data = self._data[:count], self._data[count:]
            return piece

        def close(self) -> None:
            pass

    for data in (coded["a0"], coded["a0"][:1000], b"\0\0\0\x18ftyp" * 300, b"G" * 500, b""):
        segment, found = Segment(Pieces(data)), b""
        while piece := segment.read(size):
            assert len(piece) <= size
            found += piece
        kept = [found[at : at + PACKET_BYTES] for at in range(0, len(found), PACKET_BYTES)]
        if data[:4] == coded["a0"][:4]:
            found = b"".join(packet for packet in kept if len(packet) < PACKET_BYTES or packet[3] & 0x10)
        assert found == data or data == b"G" * 500


@pytest.mark.parametrize(("name", "number"), [("b1", 47), ("a0", 7)], ids=["time continues", "time begins again"])
def test_an_encoder_that_restarts_its_numbers_is_read_on(
    coded: dict[str, bytes], watch: Callable[[str], Watched], name: str, number: int
) -> None:
    """FFmpeg would wait until the new numbers have reached the old ones."""
    with live_list(LiveList(coded, ["a0", "a1", "a2"], first=5000)) as shown:
        watched = watch(shown.url)
        watched.wait(lambda numbers: 27 in numbers)
        shown.first, shown.shown = 0, [name]
        watched.wait(lambda numbers: number in numbers)
    assert "restarted" in watched.recorder.wait_for("offline").reason


def test_a_server_that_fails_for_a_moment_costs_no_frame(
    coded: dict[str, bytes], watch: Callable[[str], Watched]
) -> None:
    with live_list(LiveList(coded, ["a0", "a1"])) as shown:
        watched = watch(shown.url)
        watched.wait(lambda numbers: 15 in numbers)
        shown.refused, shown.shown = 2, ["a0", "a1", "a2", "b0"]
        watched.wait(lambda numbers: 37 in numbers)
    assert watched.numbers[:28] == list(range(10, 38))
    assert "offline" not in watched.recorder.states


def test_a_stream_that_has_ended_is_not_repeated_and_its_next_one_is_read(
    coded: dict[str, bytes], watch: Callable[[str], Watched]
) -> None:
    """Encoders complete their playlist when they are stopped, for example to be started again."""
    with live_list(LiveList(coded, ["a0", "a1"])) as shown:
        watched = watch(shown.url)
        watched.wait(lambda numbers: 12 in numbers)
        shown.shown, shown.is_complete = ["a0", "a1", "a2"], True
        assert "complete" in watched.recorder.wait_for("offline", count=2, timeout_s=60).reason
        shown.first, shown.shown, shown.is_complete = 3, ["b0", "b1"], False
        watched.wait(lambda numbers: 47 in numbers)
    assert watched.numbers[:28] == [*range(10, 30), *range(40, 48)]


def test_a_slow_camera_is_opened_with_its_first_segment(watch: Callable[[str], Watched]) -> None:
    """FFmpeg would measure its rate over 20 frames: at one frame per second, over longer than its opening may take."""
    coded = {"a0": segments_of(6, 6, 1.0)[0]}
    with live_list(LiveList(coded, ["a0"], segment_s=6.0)) as shown:
        watched = watch(shown.url)
        watched.wait(lambda numbers: 2 in numbers)
        assert watched.source.info.fps == 1.0


def test_an_address_without_suffix_is_hls_if_it_says_so(coded: dict[str, bytes]) -> None:
    """The fragment is not sent to the server."""
    with live_list(LiveList(coded, ["a0", "a1"], is_complete=True)) as shown:
        address = shown.url.replace("live.m3u8", "live?id=7")
        with pytest.raises(SourceError, match=r"If it is HLS, write #\.m3u8 at the end of the address"):
            list(open_source(address, reader="thread", max_attempts=1))
        frames, _ = frames_of(f"{address}#.m3u8")
    assert len(frames) == 2 * PER_SEGMENT
    assert not [path for path in shown.asked if "#" in path or "m3u8" in path]
