"""What every source must do, run against each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest

from engine.protocols import Source
from engine.sources.open import open_source
from engine.testing import SOURCE_CHECKS, name_of
from tests.media import Recorder, encode_clip, file_server, mjpeg_camera, numbered_images

COUNT = 12
KINDS = ["file", "images", "synthetic", "synthetic live", "played file", "file by http", "camera", "camera on thread"]
ENDLESS = {"camera", "camera on thread"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    images = numbered_images(COUNT)
    encode_clip(folder / "clip.mp4", images)
    encode_clip(folder / "long.mp4", images * 10)  # played at its own speed, a busy machine drops most of it
    (folder / "shots").mkdir()
    for number, image in enumerate(images):
        assert cv2.imwrite(str(folder / "shots" / f"{number}.png"), image)
    return folder


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(kind: str, folder: Path) -> Iterator[Callable[[], Source]]:
    clip = folder / "clip.mp4"
    local: dict[str, Callable[[], Source]] = {
        "file": lambda: open_source(clip),
        "images": lambda: open_source(folder / "shots"),
        "synthetic": lambda: open_source(f"synthetic://?count={COUNT}"),
        "synthetic live": lambda: open_source(f"synthetic://?count={COUNT}&realtime=1&fps=100"),
        "played file": lambda: open_source(folder / "long.mp4", realtime=True),
    }
    if kind in local:
        yield local[kind]
    elif kind == "file by http":
        with file_server(folder) as base:
            yield lambda: open_source(f"{base}/clip.mp4")
    else:
        reader = "thread" if kind.endswith("thread") else "process"
        with mjpeg_camera(numbered_images(COUNT)) as camera:
            yield lambda: open_source(camera.url, reader=reader)


@pytest.mark.parametrize("check", SOURCE_CHECKS, ids=name_of)
def test_it_keeps_the_public_contract(
    make: Callable[[], Source], check: Callable[[Callable[[], Source]], None]
) -> None:
    check(make)


def test_recorded_sources_deliver_every_frame_with_its_stream_time(make: Callable[[], Source], kind: str) -> None:
    frames = []
    for frame in make():
        frames.append((frame.frame_id, frame.captured_ns, frame.pts_ns))
        assert frame.captured_source == ("arrival" if frame.source_id and _is_live(kind) else "file")
        if len(frames) == COUNT:
            break
    ids = [frame_id for frame_id, _, _ in frames]
    assert _is_live(kind) or ids == list(range(COUNT))
    assert _is_live(kind) or kind == "images" or all(pts is not None for *_, pts in frames)


def test_states_begin_with_connecting_go_live_and_end_once(make: Callable[[], Source]) -> None:
    source, recorder = make(), Recorder()
    source.attach(recorder)
    for frame in source:
        if frame.frame_id >= 5:
            source.interrupt()
    assert recorder.states == ["connecting", "live", "ended"]
    assert recorder.statuses[-1].info.width == (640 if "synthetic" in source.info.uri else 320)


def test_leaving_the_iteration_closes_the_source(make: Callable[[], Source]) -> None:
    source, recorder = make(), Recorder()
    source.attach(recorder)
    frames = iter(source)
    frame = next(frames)
    frames.close()  # type: ignore[attr-defined]
    assert recorder.states[-1] == "ended"
    assert frame.image.max() > 0, "a frame outlives its source"


def test_a_source_can_be_iterated_again_and_numbers_on(make: Callable[[], Source]) -> None:
    source = make()
    first = next(iter(source))
    again = next(iter(source))
    assert again.frame_id > first.frame_id


def _is_live(kind: str) -> bool:
    return kind in ENDLESS or kind in ("synthetic live", "played file")
