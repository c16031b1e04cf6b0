"""The window: without a display a clear error, no crash; with one it shows and can be closed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import SinkError
from engine.sinks.window import MAX_WINDOW_WH, Window, tiles
from tests.wire.samples import RUN, packet


class FakeCv2:
    """The few functions of OpenCV that the window calls, with a simulated person at the keyboard."""

    error = RuntimeError
    WND_PROP_VISIBLE = WINDOW_NORMAL = WINDOW_KEEPRATIO = 0

    def __init__(self) -> None:
        self.shown: list[tuple[str, tuple[int, ...]]] = []
        self.sizes: list[tuple[int, int]] = []
        self.places: dict[str, tuple[int, int]] = {}
        self.key = -1
        self.visible = 1.0

    def namedWindow(self, title: str, flags: int) -> None: ...

    def resizeWindow(self, title: str, width: int, height: int) -> None:
        self.sizes.append((width, height))

    def moveWindow(self, title: str, left: int, top: int) -> None:
        self.places[title] = (left, top)

    def getWindowProperty(self, title: str, prop: int) -> float:
        return self.visible

    def imshow(self, title: str, image: Any) -> None:
        self.shown.append((title, image.shape))

    def waitKey(self, delay_ms: int) -> int:
        return self.key

    def destroyAllWindows(self) -> None:
        self.shown.clear()


@pytest.fixture
def cv2(monkeypatch: pytest.MonkeyPatch) -> FakeCv2:
    fake = FakeCv2()
    monkeypatch.setattr("engine.sinks.window.require", lambda name: fake)
    monkeypatch.setattr("engine.sinks.window._refusal", lambda: None)
    monkeypatch.setenv("DISPLAY", ":99")
    return fake


def test_without_a_display_opening_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(SinkError, match=r"no display.*--save OUT\.mp4"):
        Window().open(RUN)


def test_a_display_that_does_not_exist_is_an_error_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":7777")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(SinkError, match=r"cannot show a window: .*check the display"):
        Window().open(RUN)


def test_each_source_has_a_window_that_fits_a_screen(cv2: FakeCv2) -> None:
    window = Window()
    window.open(RUN)
    window.write(packet(0, source_id="gate"))
    window.write(packet(0, source_id="yard", size_wh=(3200, 1800)))
    window.write(packet(0, source_id="gate"))
    assert [title for title, _ in cv2.shown] == ["framewire gate", "framewire yard", "framewire gate"]
    assert cv2.sizes == [(768, 576), (768, 576), (800, 450)]
    window.close()
    window.close()


def test_what_draw_returns_is_shown(cv2: FakeCv2) -> None:
    window = Window(lambda p: np.zeros((2, 2, 3), np.uint8))
    window.open(RUN)
    window.write(packet(0))
    assert cv2.shown[0][1] == (2, 2, 3)


@pytest.mark.parametrize("how", ["q", "escape", "closed"])
def test_a_person_can_ask_to_end_the_run_and_is_heard_once(cv2: FakeCv2, how: str) -> None:
    asked: list[str] = []
    window = Window(on_quit=lambda: asked.append(how))
    window.open(RUN)
    window.write(packet(0))
    assert asked == []
    cv2.key = {"q": ord("q"), "escape": 27, "closed": -1}[how]
    cv2.visible = 0.0 if how == "closed" else 1.0
    for _ in range(3):
        window.write(packet(0))
    assert asked == [how]


def test_a_display_that_refuses_is_an_error(cv2: FakeCv2, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(title: str, image: Any) -> None:
        raise RuntimeError("cannot connect to X server")

    window = Window()
    window.open(RUN)
    monkeypatch.setattr(cv2, "imshow", fail)
    with pytest.raises(SinkError, match="cannot connect to X server"):
        window.write(packet(0))


def test_windows_of_several_sources_stand_side_by_side(cv2: FakeCv2) -> None:
    window = Window()
    window.open(RUN)
    window.write(packet(1, source_id="a"))
    assert cv2.places == {}
    for source_id in "bcde":
        window.write(packet(1, source_id=source_id))
    assert len(set(cv2.places.values())) == 5
    placed = zip(cv2.places.values(), cv2.sizes[-5:], strict=True)
    assert all(left + width <= MAX_WINDOW_WH[0] for (left, _), (width, _) in placed)


@pytest.mark.parametrize("count", range(1, 40))
def test_tiles_do_not_overlap_and_fit_the_screen(count: int) -> None:
    places = tiles(count)
    assert len({(left, top) for left, top, _ in places}) == len(places) >= count
    assert all(left + wide <= MAX_WINDOW_WH[0] and top + high <= MAX_WINDOW_WH[1] for left, top, (wide, high) in places)
