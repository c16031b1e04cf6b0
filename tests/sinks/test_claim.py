"""Two runs that are told to write the same file: the second one is refused, and the first one's file is whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import av
import numpy as np
import pytest

from engine.data import Run
from engine.errors import SinkError
from engine.sinks.claim import claim
from engine.sinks.jsonl import JsonlWriter
from engine.sinks.video_file import ENCODER, ENCODER_OPTIONS, VideoFile
from tests.events.scenes import packet

IMAGE = np.zeros((96, 128, 3), np.uint8)


def video(path: Path) -> VideoFile:
    return VideoFile(path, (128, 96), 25, ENCODER, dict(ENCODER_OPTIONS))


@pytest.mark.parametrize("written", [0, 1, 5], ids=["at its start", "before it appears", "later"])
def test_a_video_that_another_run_writes_is_refused(tmp_path: Path, written: int) -> None:
    first = video(tmp_path / "a.mp4")
    for number in range(written):
        first.write(IMAGE, number * 40_000_000, 0)
    with pytest.raises(OSError, match="another run is writing it") as refused:
        video(tmp_path / "a.mp4")
    assert refused.value.errno == errno.EBUSY
    for number in range(written, 8):
        first.write(IMAGE, number * 40_000_000, 0)
    first.close()
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert len(list(container.decode(video=0))) == 8
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_a_video_that_is_finished_or_left_by_a_killed_run_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".a.mp4.part").write_bytes(b"left")
    for count in (3, 4):
        file = video(tmp_path / "a.mp4")
        for number in range(count):
            file.write(IMAGE, number * 40_000_000, 0)
        file.close()
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert len(list(container.decode(video=0))) == 4


def test_json_lines_that_another_run_writes_are_refused_and_stay(tmp_path: Path) -> None:
    first, second = JsonlWriter(tmp_path / "a.jsonl"), JsonlWriter(tmp_path / "a.jsonl")
    first.open(Run("e", 1))
    first.write(packet(0))
    first.tick()
    with pytest.raises(SinkError, match=r"another run is writing it: give each run a file of its own"):
        second.open(Run("e", 2))
    first.close()
    assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == 1
    second.open(Run("e", 2))
    second.close()
    assert not (tmp_path / "a.jsonl").read_bytes()


def test_devices_may_have_several_writers() -> None:
    handles = [claim(Path("/dev/null")) for _ in range(2)]
    for handle in handles:
        os.close(handle)
