"""The JSON lines file holds the bodies that the wire carries."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import SinkError
from engine.protocols import OutputFile
from engine.sinks.jsonl import JsonlWriter
from engine.wire import EosMessage, FrameMessage, StatusMessage, decode, encode, frame_message
from tests.wire.samples import RUN, packet, status


def test_each_packet_is_a_line_with_the_body_of_the_wire(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path / "out.jsonl")
    writer.open(RUN)
    packets = [packet(3, seq=seq) for seq in range(5)]
    writer.status(status("live"))
    for each in packets:
        writer.write(each)
    writer.close()
    writer.close()
    lines = writer.path.read_bytes().splitlines()
    assert lines == [encode(frame_message(each)) for each in packets]


def test_states_and_ends_are_written_when_asked_for(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path / "out.jsonl", frames_only=False)
    writer.open(RUN)
    writer.status(status("live"))
    writer.write(packet(1, seq=7))
    writer.status(status("ended"))
    writer.close()
    messages = [decode(line) for line in writer.path.read_bytes().splitlines()]
    assert [type(m) for m in messages] == [StatusMessage, FrameMessage, StatusMessage, EosMessage]
    assert [m.seq for m in messages if isinstance(m, StatusMessage)] == [0, 1]
    assert messages[-1].last_seq == 7  # type: ignore[union-attr]


def test_a_tick_hands_the_lines_to_readers_of_the_file(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path / "out.jsonl")
    writer.tick()
    writer.open(RUN)
    writer.write(packet(1))
    writer.tick()
    assert len(writer.path.read_bytes().splitlines()) == 1
    writer.close()


def test_a_folder_that_does_not_exist_is_an_error_at_opening(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"cannot write .*missing/out.jsonl: No such file"):
        JsonlWriter(tmp_path / "missing" / "out.jsonl").open(RUN)


def test_a_full_disk_is_an_error_that_says_so() -> None:
    writer = JsonlWriter("/dev/full")
    writer.open(RUN)
    writer.write(packet(1))
    with pytest.raises(SinkError, match="No space left on device: free some space"):
        writer.tick()
    with pytest.raises(SinkError, match="No space left"):
        writer.close()
    writer.close()


def test_writing_before_opening_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"call open\(\)"):
        JsonlWriter(tmp_path / "out.jsonl").write(packet(1))


def test_a_reader_never_sees_half_a_line(tmp_path: Path) -> None:
    """A killed process leaves what it has handed to the system."""
    writer = JsonlWriter(tmp_path / "out.jsonl")
    writer.open(RUN)
    sizes = set()
    for seq in range(3000):
        writer.write(packet(3, seq=seq))
        data = writer.path.read_bytes() if seq % 100 == 0 else b""
        assert data == b"" or data.endswith(b"}\n")
        sizes.add(len(data))
    assert len(sizes) > 2, "the buffer went to the file more than once"
    writer.close()
    assert len(writer.path.read_bytes().splitlines()) == 3000


def test_the_outputs_tell_path_frames_and_whether_it_is_complete(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path / "out.jsonl")
    writer.open(RUN)
    writer.write(packet(1))
    assert writer.outputs() == [OutputFile(str(writer.path), 1, complete=False)]
    writer.close()
    assert writer.outputs() == [OutputFile(str(writer.path), 1, complete=True)]
    assert JsonlWriter("-").outputs() == []
