"""An error that no retry can fix ends a source; what a reader process logs is in the engine's log."""

from __future__ import annotations

import logging

import pytest

from engine.errors import SourceError
from engine.sources.open import open_source
from tests.media import Recorder, mjpeg_camera, numbered_images


@pytest.mark.parametrize("reader", ["process", "thread"])
def test_a_programming_error_ends_the_source_instead_of_reconnecting(reader: str) -> None:
    """PyAV takes texts as options of FFmpeg only, and raises a TypeError for a number."""
    with mjpeg_camera(numbered_images(2)) as camera:
        source, recorder = open_source(camera.url, reader=reader, ffmpeg={"probesize": 5000}), Recorder()
        source.attach(recorder)
        with pytest.raises(SourceError, match=r"the reader failed \(\w+Error"):
            list(source)
    assert recorder.states == ["connecting", "ended"]


@pytest.mark.parametrize("reader", ["process", "thread"])
def test_the_log_lines_of_a_reader_are_in_the_engines_log(reader: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "engine"), mjpeg_camera(numbered_images(2)) as camera:
        source = open_source(camera.url, source_id="gate", reader=reader, decoder="jetson")
        next(iter(source))
    lines = [record.getMessage() for record in caplog.records if "decoding on the CPU" in record.getMessage()]
    assert len(lines) == 1
    assert caplog.records[0].name.startswith("engine.video")
    assert lines[0].startswith("gate: ") == (reader == "process")


def test_a_reader_process_prints_nothing_itself(capfd: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("engine").setLevel(logging.ERROR)
    try:
        with mjpeg_camera(numbered_images(2)) as camera:
            next(iter(open_source(camera.url, decoder="jetson")))
    finally:
        logging.getLogger("engine").setLevel(logging.NOTSET)
    assert capfd.readouterr().err == ""
