"""Recordings listed and played, by the process that the page starts for it; read by decoding."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.clock import NS_PER_S
from pipelines.history.recorded import recorded_between
from tests.events.media.recorded import FPS, UTC_NS, numbered_clip, record, shown
from tests.media import encode_clip, numbered_images
from tests.test_layout import CHECKOUT

COUNT = 250


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_clip(tmp_path_factory.mktemp("numbered"))


@pytest.fixture(scope="module")
def b_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = numbered_images(COUNT, width=160, height=120)
    options = {"g": "50", "sc_threshold": "0", "preset": "ultrafast", "bf": "3", "b_strategy": "0"}
    return encode_clip(tmp_path_factory.mktemp("b") / "b.mp4", images, options=options)


def ask(kind: str, folder: Path, begin_s: float, end_s: float) -> tuple[dict[str, Any], bytes]:
    """Return the first line of the process's answer, and the rest."""
    span = {"from_utc_ns": UTC_NS + round(begin_s * NS_PER_S), "to_utc_ns": UTC_NS + round(end_s * NS_PER_S)}
    job = json.dumps({kind: {"folder": str(folder), **span}}).encode() + b"\n"
    command = [sys.executable, "-m", "pipelines.history.jobs"]
    done = subprocess.run(command, input=job, capture_output=True, check=True, cwd=CHECKOUT, timeout=60)
    head, _, rest = done.stdout.partition(b"\n")
    return json.loads(head), rest


@pytest.mark.parametrize("clip", ["numbered", "b_frames"])
def test_playing_begins_at_the_keyframe_and_each_frame_has_its_time(
    request: pytest.FixtureRequest, tmp_path: Path, clip: str
) -> None:
    record(request.getfixturevalue(clip), tmp_path / "cam")
    head, film = ask("play", tmp_path / "cam", 3.0, 5.0)
    assert head["codec"].startswith("avc1.")
    (tmp_path / "film.mp4").write_bytes(film)
    frames = shown(tmp_path / "film.mp4")
    numbers = [number for number, _ in frames]
    assert numbers[0] == 50  # the keyframe before frame 75
    assert numbers[:75] == list(range(50, 125))
    assert numbers[-1] <= 128  # a few more, where frames are decoded before they are shown
    times = [head["t0_ns"] + at * NS_PER_S for _, at in frames]
    assert times == pytest.approx([UTC_NS + number * NS_PER_S / FPS for number in numbers], abs=2e6)


def test_gaps_stay_gaps_and_pieces_are_joined(numbered: Path, tmp_path: Path) -> None:
    record(numbered, tmp_path / "cam", segment=slice(0, 50))
    record(numbered, tmp_path / "cam", segment=slice(50, 100))
    record(numbered, tmp_path / "cam", after_s=4.0, segment=slice(100, None))
    pieces = recorded_between(tmp_path / "cam", UTC_NS - NS_PER_S, UTC_NS + 60 * NS_PER_S)
    assert [[round((at - UTC_NS) / NS_PER_S, 2) for at in piece] for piece in pieces] == [[0, 4], [8, 14]]
    assert ask("recordings", tmp_path / "cam", 1, 3)[0]["pieces"] == [[UTC_NS + NS_PER_S, UTC_NS + 3 * NS_PER_S]]
    head, film = ask("play", tmp_path / "cam", 3.0, 9.0)
    (tmp_path / "film.mp4").write_bytes(film)
    frames = shown(tmp_path / "film.mp4")
    by_number = {number: head["t0_ns"] + at * NS_PER_S - UTC_NS for number, at in frames}
    assert by_number[99] == pytest.approx(99 / FPS * NS_PER_S, abs=2e6)
    assert by_number[100] == pytest.approx((4 + 100 / FPS) * NS_PER_S, abs=2e6)


def test_another_format_ends_the_piece(numbered: Path, tmp_path: Path) -> None:
    record(numbered, tmp_path / "cam", segment=slice(0, 100))
    images = numbered_images(100, width=320, height=240)
    other = encode_clip(tmp_path / "other.mp4", images, options={"g": "50", "preset": "ultrafast", "bf": "0"})
    record(other, tmp_path / "cam", after_s=4.0)
    head, film = ask("play", tmp_path / "cam", 0.0, 8.0)
    (tmp_path / "film.mp4").write_bytes(film)
    assert (head["width"], len(shown(tmp_path / "film.mp4"))) == (160, 100)
    assert ask("play", tmp_path / "cam", 4.0, 8.0)[0]["width"] == 320


def test_what_cannot_be_played_is_said(tmp_path: Path, numbered: Path) -> None:
    assert "no recording" in ask("play", tmp_path / "cam", 0, 1)[0]["refused"]
    record(numbered, tmp_path / "cam")
    assert "no recording" in ask("play", tmp_path / "cam", 100, 101)[0]["refused"]
    vp8 = encode_clip(tmp_path / "v.mkv", numbered_images(50), codec="libvpx", options={"g": "50"})
    record(vp8, tmp_path / "other", container="mkv")
    assert "vp8, which browsers cannot play" in ask("play", tmp_path / "other", 0, 1)[0]["refused"]
