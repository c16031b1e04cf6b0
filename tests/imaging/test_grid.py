"""Several cameras in one image, captions, and heat maps."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import av
import numpy as np
import pytest

from engine.analytics.analytics import Analytics
from engine.analytics.places import Zone
from engine.data import Frame, Packet, SourceInfo, SourceStatus, Tracks
from engine.errors import ConfigError
from engine.imaging.caption import clock_text
from engine.imaging.grid import EMPTY, Grid
from engine.imaging.heat import draw_heat
from engine.imaging.overlay import Overlay
from engine.sinks.grid_video import MAX_WAITING, GridVideo
from pipelines.build.sinks import build_sinks
from pipelines.config.file import load_config
from tests.wire.samples import RUN, packet

COLOURS = {"a": 60, "b": 110, "c": 160, "d": 210}


def flat(value: int, size_wh: tuple[int, int] = (160, 120)) -> np.ndarray:
    return np.full((size_wh[1], size_wh[0], 3), value, np.uint8)


def test_each_source_has_its_place_and_keeps_its_aspect() -> None:
    grid = Grid(list(COLOURS), (640, 360))
    assert grid.tile_wh == (320, 180)
    for name, value in COLOURS.items():
        grid.put(name, flat(value, (100, 200)))
    whole = grid.picture()
    assert whole.shape == (360, 640, 3)
    for (x, y), value in zip([(160, 90), (480, 90), (160, 270), (480, 270)], COLOURS.values(), strict=True):
        assert (whole[y, x] == value).all()
        assert (whole[y, x - 100] == EMPTY).all()  # beside an upright image


@pytest.mark.parametrize(("count", "tile_wh"), [(1, (640, 360)), (2, (320, 360)), (3, (320, 180)), (5, (213, 180))])
def test_any_number_of_sources_fits(count: int, tile_wh: tuple[int, int]) -> None:
    grid = Grid([str(n) for n in range(count)], (640, 360))
    assert grid.tile_wh == tile_wh
    assert grid.picture().shape == (360, 640, 3)
    grid.put("another", flat(9))
    assert grid.picture().shape == (360, 640, 3)


def test_a_source_that_is_gone_is_dimmed_until_it_returns() -> None:
    grid = Grid(["a"], (320, 240))
    grid.put("a", flat(200))
    grid.note("a", "offline")
    assert grid.picture()[20, 20].tolist() == [100] * 3
    grid.put("a", flat(200))
    assert grid.picture()[20, 20].tolist() == [200] * 3


def test_the_clock_is_wall_clock_for_cameras_and_stream_time_for_files() -> None:
    utc = datetime.datetime(2026, 7, 1, 22, 30, 5, tzinfo=datetime.timezone.utc)
    frame = Frame(flat(0), captured_utc_ns=int(utc.timestamp()) * 10**9)
    assert clock_text(frame) == "2026-07-01 22:30:05"
    assert clock_text(frame, ZoneInfo("Europe/Vienna")) == "2026-07-02 00:30:05"
    assert clock_text(dataclasses.replace(frame, captured_source="file", pts_ns=3_725_040_000_000)) == "1:02:05.0"


def test_heat_is_warm_where_objects_were_and_nothing_elsewhere() -> None:
    image, seconds = flat(100, (640, 360)), np.zeros((36, 64))
    seconds[18, 32] = 10
    draw_heat(image, seconds)
    assert (image[:100] == 100).all()
    assert image[185, 325, 2] > image[185, 325, 0] + 30  # red
    before = flat(100)
    draw_heat(before, np.zeros((36, 64)))
    assert (before == 100).all()


def test_the_overlay_draws_heat_and_caption_only_where_they_are_asked_for() -> None:
    watch = Analytics(zones=[Zone("all", [(0, 0), (1, 0), (1, 1), (0, 1)])])
    for n in range(60):
        tracks = Tracks([[300, 100, 340, 200]], [0.9], [0], [1], None, [0])
        view = watch.update(tracks, n * 100_000_000, size_wh=(640, 360))
    assert view.heat is not None
    assert view.heat.sum() == pytest.approx(5.9, abs=1.1)
    made = packet(0, size_wh=(640, 360)).with_analysis("analytics", view)
    plain = Overlay(places=False, labels=False, trace=False).draw(made)
    hot = Overlay(places=False, labels=False, trace=False, heat=True).draw(made)
    named = Overlay(places=False, labels=False, trace=False, caption=True).draw(made)
    assert (hot[180:210, 300:340] != plain[180:210, 300:340]).any()
    assert (named[:25, :150] != plain[:25, :150]).any()
    assert (named[100:] == plain[100:]).all()


def of(source_id: str, at_s: float, value: int, *, live: bool = False) -> Packet:
    kind = "arrival" if live else "file"
    frame = Frame(flat(value), source_id, 0, int(at_s * 1e9), int(at_s * 1e9), int(at_s * 1e9), kind)
    return dataclasses.replace(packet(0), frame=frame, tracks=Tracks.empty())


def written(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="bgr24") for frame in video.decode(video=0)]


def video(path: Path, names: list[str], fps: float = 10) -> GridVideo:
    made = GridVideo(path, lambda each: each.frame.image, names, fps=fps, size_wh=(320, 120))
    made.open(RUN)
    return made


def test_files_of_different_rates_are_shown_at_the_same_time(tmp_path: Path) -> None:
    grid = video(tmp_path / "grid.mp4", ["slow", "fast"])
    for n in range(40):  # frame by frame in turn: the slow one is read four times as fast as it plays
        grid.write(of("slow", n / 5, n * 6))
        grid.write(of("fast", n / 20, n * 6))
    grid.close()
    [output] = grid.outputs()
    pictures = written(tmp_path / "grid.mp4")
    assert output.frames == len(pictures) == 79
    for at in (0, 5, 10, 19):  # tenths of a second
        left, right = pictures[at][60, 80, 0], pictures[at][60, 240, 0]
        assert abs(int(left) - at // 2 * 6) <= 6
        assert abs(int(right) - min(at * 2, 39) * 6) <= 6


def test_nobody_waits_for_a_camera_that_is_gone(tmp_path: Path) -> None:
    grid = video(tmp_path / "grid.mp4", ["a", "b"])
    grid.write(of("a", 5.0, 100, live=True))
    grid.write(of("b", 5.0, 200, live=True))
    for n in range(1, 3 * MAX_WAITING):
        grid.write(of("a", 5 + n / 10, 100, live=True))
    assert grid._written >= MAX_WAITING
    assert len(grid._sources["a"].waiting) <= MAX_WAITING
    grid.status(SourceStatus(SourceInfo("b", "rtsp://b", True), "offline"))
    grid.write(of("a", 40, 100, live=True))
    assert len(grid._sources["a"].waiting) == 0
    grid.close()
    last = written(tmp_path / "grid.mp4")[-1]
    assert last[20, 180, 0] < 120 < 180 < 200  # dimmed
    assert abs(int(last[20, 20, 0]) - 100) < 6


def test_a_name_that_is_no_video_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a video file name"):
        GridVideo("grid.txt", lambda each: each.frame.image)


def test_a_configuration_makes_a_grid_with_captions() -> None:
    sources = [{"uri": f"synthetic://?seed={n}", "source_id": n} for n in "ab"]
    values = {"sources": sources, "publish.address": "none", "output.save": "x.mp4", "output.grid": True}
    config = load_config(None, {**values, "output.show": True})
    saved, window = build_sinks(config, 2, None)
    assert isinstance(saved, GridVideo)
    assert window._grid is not None  # type: ignore[attr-defined]
    assert window._grid.has("a")  # type: ignore[attr-defined]
