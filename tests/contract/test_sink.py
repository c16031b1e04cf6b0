"""What every sink must do, whatever it writes to."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.imaging.overlay import Overlay
from engine.protocols import Sink
from engine.sinks.camera_video.recordings import Recordings, record_plan
from engine.sinks.jsonl import JsonlWriter
from engine.sinks.video import VideoWriter
from engine.sinks.zmq import ZmqPublisher
from engine.testing import SINK_CHECKS, name_of
from engine.video.options import SourceOptions
from tests.patience import AT_ONCE_S
from tests.wire.samples import RUN, packet, status

MakeSink = Callable[[Path], Sink]


def recordings(folder: Path) -> Sink:
    """Return recordings of the samples' cameras, at an address where nothing listens."""
    options = SourceOptions()
    plans = {name: record_plan("rtsp://127.0.0.1:9/x", name, folder, options) for name in ("gate", "silent")}
    return Recordings(plans)


SINKS = [
    pytest.param(recordings, id="recordings"),
    pytest.param(lambda folder: ZmqPublisher("tcp://127.0.0.1:*"), id="zmq"),
    pytest.param(lambda folder: JsonlWriter(folder / "out.jsonl"), id="jsonl"),
    pytest.param(lambda folder: VideoWriter(folder / "out.mp4", draw=Overlay().draw), id="video"),
]
every_sink = pytest.mark.parametrize("make", SINKS)


@every_sink
@pytest.mark.parametrize("check", SINK_CHECKS, ids=name_of)
def test_it_keeps_the_public_contract(
    make: MakeSink, check: Callable[[Callable[[], Sink]], None], tmp_path: Path
) -> None:
    check(lambda: make(tmp_path))


@every_sink
def test_nothing_is_touched_before_it_is_opened(make: MakeSink, tmp_path: Path) -> None:
    make(tmp_path)
    assert list(tmp_path.iterdir()) == []


@every_sink
def test_a_whole_run_passes_and_shared_arrays_stay_as_they_are(make: MakeSink, tmp_path: Path) -> None:
    sink = make(tmp_path)
    sink.open(RUN)
    sink.status(status("connecting"))
    sink.status(status("live"))
    for seq, count in enumerate([0, 1, 3, 50]):
        given = packet(count, seq=seq)
        image, boxes = given.frame.image.copy(), given.tracks.xyxy.copy()
        sink.write(given)
        np.testing.assert_array_equal(given.frame.image, image)
        np.testing.assert_array_equal(given.tracks.xyxy, boxes)
        sink.tick()
    sink.status(status("ended"))
    sink.close()


@every_sink
def test_closing_in_mid_run_waits_for_nobody(make: MakeSink, tmp_path: Path) -> None:
    sink = make(tmp_path)
    sink.open(RUN)
    for seq in range(20):
        sink.write(packet(5, seq=seq))
    started = time.monotonic()
    sink.close()
    assert time.monotonic() - started < AT_ONCE_S
