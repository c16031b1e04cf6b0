"""The recording survives being cut, damaged and killed at any byte."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine.errors import SinkError, SourceError
from engine.wire import encode, frame_message
from engine.wire.stream_file import HEAD, MARK, Record, Recording, RecordingWriter
from tests.publishing import stream
from tests.wire.samples import packet

SECOND = 1_000_000_000


def records(count: int) -> list[Record]:
    """Return messages of different sizes, a second apart; some hold the mark, some do not compress."""
    rng = random.Random(count)
    bodies = [encode(frame_message(packet(n % 5, seq=n))) for n in range(count)]
    bodies[1::7] = [rng.randbytes(40) + MARK + rng.randbytes(3) for _ in bodies[1::7]]
    return [Record(n * SECOND, b"v1/frame/gate/", body) for n, body in enumerate(bodies)]


def written(path: Path, wanted: list[Record]) -> bytes:
    with RecordingWriter(path) as writer:
        for each in wanted:
            writer.write(each.received_utc_ns, each.topic, each.body)
    return path.read_bytes()


def read(path: Path) -> list[Record]:
    with Recording(path) as recording:
        return list(recording)


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    wanted = records(50)
    data = written(tmp_path / "a.fwrec", wanted)
    assert read(tmp_path / "a.fwrec") == wanted
    assert len(data) < sum(len(each.body) for each in wanted) / 2


def test_a_file_cut_at_any_byte_reads_to_its_last_complete_record(tmp_path: Path) -> None:
    path, wanted = tmp_path / "a.fwrec", records(12)
    data = written(path, wanted)
    begin = data.index(MARK)
    previous = 0
    for length in range(begin, len(data) + 1):
        path.write_bytes(data[:length])
        found = read(path)
        assert found == wanted[: len(found)]
        assert previous <= len(found) <= previous + 1
        previous = len(found)
    assert previous == 12


def test_a_cut_file_is_continued_behind_its_last_complete_record(tmp_path: Path) -> None:
    path, wanted = tmp_path / "a.fwrec", records(12)
    data = written(path, wanted[:6])
    for cut in (len(data), len(data) - 1, len(data) - 20, data.index(MARK) + 2, 3, 0):
        path.write_bytes(data[:cut])
        kept = len(read(path)) if cut > 600 else 0
        written(path, wanted[6:])
        assert read(path) == wanted[:kept] + wanted[6:]


@pytest.mark.parametrize("seed", range(20))
def test_damage_costs_only_the_records_it_touches(tmp_path: Path, seed: int) -> None:
    path, wanted, rng = tmp_path / "a.fwrec", records(40), random.Random(seed)
    data = bytearray(written(path, wanted))
    begin = data.index(MARK)
    for _ in range(3):
        at = rng.randrange(begin, len(data))
        data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    found = read(path)
    assert 37 <= len(found) <= 40
    assert all(each in wanted for each in found)


@pytest.mark.parametrize(("from_s", "expected"), [(-5, 0), (0, 0), (0.5, 1), (17, 17), (28.2, 29), (29, 29), (30, 30)])
def test_a_moment_is_found(tmp_path: Path, from_s: float, expected: int) -> None:
    wanted = records(30)
    written(tmp_path / "a.fwrec", wanted)
    with Recording(tmp_path / "a.fwrec") as recording:
        assert list(recording.since(int(from_s * SECOND))) == wanted[expected:]
        assert recording.first_utc_ns == 0


def test_times_never_go_back(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "a.fwrec") as writer:
        for utc_ns in (5, 3, 9):
            writer.write(utc_ns, b"t", b"b")
    assert [each.received_utc_ns for each in read(tmp_path / "a.fwrec")] == [5, 5, 9]


@pytest.mark.parametrize("content", [b"hello world, this is text", b"FWREC\x01\r\n\xff\xff\xff\xff" + b"x" * 600])
def test_another_kind_of_file_is_neither_read_nor_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="recording"):
        Recording(path)
    with pytest.raises(SinkError, match="is not a recording: choose another name"):
        RecordingWriter(path)
    assert path.read_bytes() == content


def test_missing_folders_and_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        Recording(tmp_path / "missing")
    with pytest.raises(SinkError, match="choose a folder"):
        RecordingWriter(tmp_path / "missing" / "a.fwrec")


def test_an_empty_recording_has_no_records(tmp_path: Path) -> None:
    written(tmp_path / "a.fwrec", [])
    with Recording(tmp_path / "a.fwrec") as recording:
        assert recording.first_utc_ns is None
        assert list(recording) == list(recording.since(0)) == []


KILLS = [pytest.param(4, id="4 times"), pytest.param(50, id="50 times", marks=pytest.mark.soak)]


@pytest.mark.parametrize("times", KILLS)
@pytest.mark.timeout(300)
def test_a_recorder_killed_in_mid_stream_leaves_a_file_without_a_torn_end(tmp_path: Path, times: int) -> None:
    rng = random.Random(7)
    program = "import sys; from pipelines.stream.record import record; record(sys.argv[1], sys.argv[2])"
    with stream(objects=20, every_s=0.0005) as address:
        for n in range(times):
            path = tmp_path / f"{n}.fwrec"
            with subprocess.Popen([sys.executable, "-c", program, address, str(path)]) as recorder:
                wait = threading.Event()
                while not path.exists() or path.stat().st_size < 20_000 + rng.randrange(20_000):
                    assert recorder.poll() is None
                    wait.wait(0.002)
                recorder.send_signal(signal.SIGKILL)
            with Recording(path) as recording:
                seqs = [encode_seq(each) for each in recording if each.topic == b"v1/frame/gate/"]
            assert len(seqs) > 10
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
            assert recording.skipped_bytes < 4000  # at most one torn record


def encode_seq(record: Record) -> int:
    at = record.body.index(b'"seq":') + 6
    return int(record.body[at : record.body.index(b",", at)])


def test_a_file_of_marks_is_read_in_time_linear_in_its_length(tmp_path: Path) -> None:
    """Each mark claims a record that reaches to the end, so that each was once checked to the end."""

    def cost(marks: int) -> float:
        path = tmp_path / f"{marks}.fwr"
        path.unlink(missing_ok=True)
        claim = MARK + HEAD.pack(0, 1, 0, 0)
        size = marks * len(claim)
        body = b"".join(MARK + HEAD.pack(max(size - (index + 2) * len(claim), 0), 1, 0, 0) for index in range(marks))
        with RecordingWriter(path) as writer:
            writer.write(1, b"v1/x", b"{}")
        with path.open("ab") as file:
            file.write(body)
        begin = time.process_time()
        with Recording(path) as recording:
            assert len(list(recording)) == 1
        return time.process_time() - begin

    base = max(min(cost(2_000) for _ in range(2)), 2e-3)
    assert cost(16_000) < 4 * 8 * base
