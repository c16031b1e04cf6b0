"""Recordings keep the sound: copied, in every file together with its video, and never delaying the video."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from engine.sinks.camera_video.packet_ring import detached
from engine.sinks.camera_video.segments import FORMATS, SegmentFolder, SegmentWriter, SoundLine, Timeline
from engine.video.network import record_address
from engine.video.options import SourceOptions

FPS, SECONDS, RATE = 10, 4, 48000


def clip_with_sound(path: Path, begins_s: float = 0.0) -> Path:
    """Write a clip with a keyframe each second and a tone, whose times begin somewhere."""
    with av.open(str(path), "w", format="matroska") as output:
        video = output.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "tune": "zerolatency"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.gop_size = FPS
        sound = output.add_stream("aac", rate=RATE)
        sound.layout = "mono"
        for number in range(FPS * SECONDS):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 6 * number, np.uint8), format="bgr24")
            frame.pts, frame.time_base = round(begins_s * FPS) + number, Fraction(1, FPS)
            output.mux(video.encode(frame))
        for at in range(0, RATE * SECONDS, 1024):
            tone = np.sin(np.arange(at, at + 1024) / 20).astype(np.float32)[None]
            samples = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = RATE, round(begins_s * RATE) + at, Fraction(1, RATE)
            output.mux(sound.encode(samples))
        output.mux(video.encode(None))
        output.mux(sound.encode(None))
    return path


def recorded(clip: Path, folder: Path, container: str, segment_s: float = 60.0) -> list[Path]:
    """Copy a clip as the recording process does, and return the files."""
    writer = SegmentWriter(SegmentFolder(str(folder), container=container, segment_s=segment_s))
    with av.open(str(clip)) as source:
        video, sound = source.streams.video[0], source.streams.audio[0]
        writer.sound = detached(sound, FORMATS[container])
        for packet in source.demux(video, sound):
            if packet.stream is sound:
                writer.write_sound(packet)
            elif packet.size:
                writer.write(packet, video)
    writer.close()
    assert writer.packets == FPS * SECONDS
    return sorted(folder.iterdir(), key=lambda path: path.name)


def spans(path: Path) -> tuple[float, float, float, float]:
    """Return begin and end of the video and of the sound, in seconds."""
    with av.open(str(path)) as file:
        times: dict[str, list[float]] = {"video": [], "audio": []}
        for packet in file.demux():
            if packet.pts is not None:
                times[packet.stream.type].append(float(packet.pts * packet.time_base))
        assert sum(1 for _ in times["audio"]) > RATE * SECONDS / 1024 * 0.8
        return min(times["video"]), max(times["video"]), min(times["audio"]), max(times["audio"])


@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize("begins_s", [0.0, 1000.0], ids=["from 0", "a camera that has run for a while"])
def test_the_sound_lies_beside_its_video(tmp_path: Path, container: str, begins_s: float) -> None:
    folder = tmp_path / "out"
    files = recorded(clip_with_sound(tmp_path / "clip.mkv", begins_s), folder, container)
    (path,) = [file for file in files if file.suffix == f".{container}"]
    video_from, video_to, sound_from, sound_to = spans(path)
    assert video_from == pytest.approx(sound_from, abs=0.1)
    assert video_to == pytest.approx(sound_to, abs=0.2)
    with av.open(str(path)) as file:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    assert np.abs(heard[RATE : 2 * RATE]).max() > 0.5


@pytest.mark.parametrize(
    ("audio_s", "expected"),
    [(5.0, 0.0), (5.5, 0.5), (4.9, None), (500.0, None), (None, None)],
    ids=["with the first frame", "later", "before the first frame", "of another clock", "without a time"],
)
def test_sound_that_does_not_belong_beside_the_video_is_left_out(audio_s: float | None, expected: float | None) -> None:
    video = Timeline(Fraction(1, 1000))
    video.place(SimpleNamespace(pts=5000, dts=5000, duration=100))
    pts = None if audio_s is None else round(audio_s * RATE)
    packet: Any = SimpleNamespace(pts=pts, dts=pts, size=10, time_base=Fraction(1, RATE))
    line = SoundLine()
    assert line.place(packet, video) is (expected is not None)
    if expected is not None:
        assert packet.pts == packet.dts == round(expected * RATE)
        again: Any = SimpleNamespace(pts=pts, dts=pts, size=10, time_base=Fraction(1, RATE))
        assert line.place(again, video)
        assert again.pts == packet.pts + 1


def test_there_is_no_sound_before_the_first_frame() -> None:
    packet: Any = SimpleNamespace(pts=1, dts=1, size=10, time_base=Fraction(1, RATE))
    assert not SoundLine().place(packet, Timeline(Fraction(1, 1000)))


def test_a_camera_is_asked_for_its_sound_only_for_a_recording_with_sound() -> None:
    options = SourceOptions()
    assert record_address("rtsp://192.0.2.1/x", options).ffmpeg["allowed_media_types"] == "video+audio"
    assert record_address("rtsp://192.0.2.1/x", options, sound=False).ffmpeg["allowed_media_types"] == "video"
