"""Coded images as fragmented MP4: FFmpeg reads back every image, at its time."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

from engine.sources.synthetic import Scene, SyntheticSource, number_in_image
from engine.video.coded.fmp4 import TIMESCALE, fragment, init_segment
from engine.video.coded.nal import ParameterSets, sets_in_header, units_of

SCENE = SyntheticSource(Scene(width=320, height=240, objects=2, seed=3))
COUNT = 25


def encoded(codec: str, options: dict[str, str]) -> tuple[Any, list[Any]]:
    """Return the encoder and the packets of a clip that shows its frame numbers."""
    try:
        context: Any = av.CodecContext.create(codec, "w")
    except ValueError:
        pytest.skip(f"this FFmpeg has no {codec}: install PyAV from its wheels")
    context.width, context.height, context.pix_fmt = 320, 240, "yuv420p"
    context.time_base, context.framerate, context.options = Fraction(1, 25), Fraction(25), options
    packets = []
    for number in range(COUNT):
        frame = av.VideoFrame.from_ndarray(SCENE.image(number), format="bgr24")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        packets += context.encode(frame)
    return context, packets + context.encode(None)


def film(sets: ParameterSets, packets: list[Any]) -> bytes:
    first = packets[0].dts
    film = b""
    for number, packet in enumerate(packets, 1):
        units = units_of(bytes(packet))
        sets = sets.with_units(units)
        film = film or init_segment(sets, 320, 240)
        unit = TIMESCALE // 25
        times = {"dts": (packet.dts - first) * unit, "shift": (packet.pts - packet.dts) * unit, "duration": unit}
        film += fragment(number, sets.shown(units), is_key=packet.is_keyframe, **times)
    return film


def played(data: bytes) -> list[tuple[int, int]]:
    """Return number and time of each image."""
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(video=0))
    numbers = [number_in_image(np.asarray(frame.to_ndarray(format="bgr24"))) for frame in frames]
    return [(n, round(float((f.pts or 0) * f.time_base) * 25)) for n, f in zip(numbers, frames, strict=True)]


@pytest.mark.parametrize(
    ("codec", "kind", "options", "name"),
    [
        ("libx264", "h264", {"tune": "zerolatency", "profile": "baseline"}, "avc1.42"),
        ("libx264", "h264", {"bf": "2", "g": "10"}, "avc1.64"),
        ("libx265", "hevc", {"x265-params": "bframes=0:log-level=none", "preset": "ultrafast"}, "hvc1.1.6.L"),
    ],
    ids=["H.264 of a camera", "H.264 with B-frames", "H.265"],
)
def test_every_picture_is_played_at_its_time(codec: str, kind: str, options: dict[str, str], name: str) -> None:
    context, packets = encoded(codec, options)
    sets = sets_in_header(kind, bytes(context.extradata or b"")).with_units(units_of(bytes(packets[0])))
    assert sets.is_complete
    assert sets.name.startswith(name)
    shown = played(film(ParameterSets(kind).with_units(units_of(bytes(packets[0]))), packets))
    start = shown[0][1]
    assert shown == [(number, start + number) for number in range(COUNT)]


def test_the_sets_of_an_mp4_are_those_of_its_stream() -> None:
    """A header in the form of MP4 gives the same sets as the units of a stream."""
    _, packets = encoded("libx264", {"tune": "zerolatency"})
    sets = ParameterSets("h264").with_units(units_of(bytes(packets[0])))
    assert sets_in_header("h264", sets.configuration) == sets
    broken = (b"", b"\x01", b"\x01" * 6, b"\x01\x64\x00\x1f\xff\xe1\xff\xff", b"\x00" * 40)
    assert [sets_in_header("h264", header).is_complete for header in broken] == [False] * 5
    assert [sets_in_header("hevc", header).is_complete for header in broken] == [False] * 5


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x00\x00\x01", b"\xff" * 9, b"\x00\x00\x00\xffab", b"\x00\x00\x00\x00"]
)
def test_what_is_no_picture_has_no_units(data: bytes) -> None:
    assert units_of(data) == []


def test_the_aspect_of_pixels_is_in_the_container() -> None:
    """Browsers ignore what the video itself says."""
    _, packets = encoded("libx264", {"preset": "ultrafast"})
    sets = sets_in_header("h264", b"").with_units(units_of(bytes(packets[0])))
    shown = sets.shown(units_of(bytes(packets[0])))
    data = init_segment(sets, 320, 240, Fraction(64, 45)) + fragment(1, shown, dts=0, shift=0, duration=1, is_key=True)
    with av.open(io.BytesIO(data)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(64, 45)
