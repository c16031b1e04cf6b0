"""Where the detector looks on the frames of one camera, and what is known of the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from engine.boxes import iou_matrix
from engine.clock import NS_PER_S
from engine.data import Detections
from engine.errors import ConfigError
from engine.flow.attention.cover import MAX_WINDOWS, Grid, cover
from engine.flow.attention.planner import Plan, Planner, RegionWindows
from engine.tracking.steady import SteadyTrack
from tests.flow.attention.scenes import FPS, GRID, PLACEMENT, found, picture, seen

Boxes = Sequence[tuple[float, float, float, float]]
PERSON = (100.0, 100.0, 130.0, 170.0)


class Camera:
    """Plays frames through a planner, the seeing detector and a tracker, as the stages do."""

    def __init__(self, options: RegionWindows | None = None) -> None:
        self.planner = Planner(PLACEMENT, GRID, options or RegionWindows())
        self._tracker = SteadyTrack()
        self._last: Detections | None = None
        self.number = 0

    def show(self, boxes: Boxes, light: float = 1.0) -> tuple[Plan, Detections | None]:
        """Return the plan for the next frame, and all boxes that are then known."""
        self.number += 1
        image, now_s = picture(boxes, self.number, light), self.number / FPS
        plan = self.planner.plan(image, now_s)
        if plan.action in ("whole", "windows"):
            self._last = self.planner.merge([found(image, window) for window in plan.windows or [None]])
        known = None if plan.action == "predicted" else self._last
        self.planner.note(known, self._tracker.update(known, int(now_s * NS_PER_S)))
        return plan, known

    def settle(self, boxes: Boxes, frames: int = 15) -> None:
        """Show the same until every box has its track."""
        for _ in range(frames):
            self.show(boxes)


def test_the_first_frame_is_looked_at_as_a_whole_and_a_still_one_not_at_all() -> None:
    camera = Camera()
    plan, known = camera.show([PERSON])
    assert plan == Plan("whole", reason="first")
    assert known is not None
    assert len(known) == 1
    camera.settle([PERSON])
    plan, known = camera.show([PERSON])
    assert plan == Plan("held")
    assert known is not None
    assert len(known) == 1


def test_a_moving_object_is_looked_at_in_a_window_around_it_and_its_box_is_always_fresh() -> None:
    camera = Camera(RegionWindows(whole_s=100))
    camera.settle([PERSON, (500.0, 250.0, 540.0, 340.0)])
    for step in range(1, 60):
        x1, y1, x2, y2 = PERSON
        moved = (x1 + 5 * step, y1, x2 + 5 * step, y2)
        plan, known = camera.show([moved, (500.0, 250.0, 540.0, 340.0)])
        assert plan.action == "windows"
        assert len(plan.windows) == 1
        assert known is not None
        assert len(known) == 2
        assert iou_matrix(np.array([moved], np.float32), known.xyxy).max() > 0.99
        is_moved = iou_matrix(np.array([moved], np.float32), known.xyxy)[0] > 0.99
        assert not known.extra["held"][is_moved].any()
        if step > 3 and moved[2] < 430:
            assert known.extra["held"][~is_moved].all()  # nothing changed at the other one's place


def test_an_object_that_appears_or_vanishes_is_noticed_on_that_frame() -> None:
    camera = Camera(RegionWindows(whole_s=100))
    camera.settle([PERSON])
    second = (400.0, 60.0, 430.0, 130.0)
    plan, known = camera.show([PERSON, second])
    assert plan.action == "windows"
    assert known is not None
    assert len(known) == 2
    camera.settle([PERSON, second])
    _, known = camera.show([second])
    assert known is not None
    np.testing.assert_array_equal(known.xyxy, np.array([second], np.float32))


def test_a_box_confirms_a_track_by_fresh_looks_only() -> None:
    camera = Camera(RegionWindows(whole_s=100))
    camera.show([])
    looked = []
    for _ in range(6):
        plan, known = camera.show([PERSON])
        looked.append(plan.action)
        if len(camera._tracker.update(None, int(camera.number / FPS * NS_PER_S) + 1)):
            break
        assert known is not None
        assert not known.extra["held"].any()
    assert "held" not in looked[:-1]


def test_a_weak_place_is_looked_at_again() -> None:
    camera = Camera(RegionWindows(whole_s=100))
    camera.settle([PERSON])
    image = picture([PERSON], 99)
    camera.number += 1
    camera.planner.forget()
    camera.planner.plan(image, camera.number / FPS)
    weak = np.array([[400, 60, 430, 130]], np.float32)
    known = camera.planner.merge([found(image, None, weak)])
    camera.planner.note(known, camera._tracker.update(known, int(camera.number / FPS * NS_PER_S)))
    plans = [camera.show([PERSON])[0] for _ in range(12)]
    looks = [plan for plan in plans for window in plan.windows if window[0] <= 400 and window[2] >= 430]
    assert 2 <= len(looks) <= 4  # every half second, in 1.2 s


@pytest.mark.parametrize(("options", "known", "seconds"), [({}, 1, 5.0), ({}, 0, 10.0), ({"whole_s": 2}, 1, 2.0)])
def test_the_whole_frame_is_looked_at_from_time_to_time(options: dict[str, float], known: int, seconds: float) -> None:
    camera = Camera(RegionWindows(**options))  # type: ignore[arg-type]
    plans = [camera.show([PERSON] * known)[0] for _ in range(int(seconds * FPS) + 1)]
    wholes = [number for number, plan in enumerate(plans) if plan.action == "whole"]
    assert wholes == [0, int(seconds * FPS)]
    assert plans[-1].reason == "timer"


def test_another_light_is_one_look_at_the_whole() -> None:
    camera = Camera()
    camera.settle([PERSON])
    plan, _ = camera.show([PERSON], light=0.7)
    assert plan == Plan("whole", reason="light")
    plan, _ = camera.show([PERSON], light=0.7)
    assert plan.action == "held"


def test_slow_changes_add_up() -> None:
    camera = Camera(RegionWindows(whole_s=100, whole_quiet_s=100))
    camera.settle([])
    noticed = None
    for step in range(60):  # one grey level per frame
        image = picture([], 7)
        image[100:160, 100:140] += np.uint8(step)
        camera.number += 1
        plan = camera.planner.plan(image, camera.number / FPS)
        if plan.action == "windows":
            noticed = step
            break
    assert noticed is not None
    assert noticed < 30


def test_a_crowd_is_looked_at_as_a_whole_at_a_bounded_rate() -> None:
    camera = Camera(RegionWindows(max_hz=5))
    plans = []
    for step in range(40):
        moved = [
            (40.0 * n + step % 8, 40.0 + 60 * (n % 5), 40.0 * n + 20 + step % 8, 90.0 + 60 * (n % 5)) for n in range(15)
        ]
        plans.append(camera.show(moved)[0])
    assert {plan.action for plan in plans[2:]} == {"whole", "predicted"}
    assert 0.4 <= sum(plan.action == "whole" for plan in plans[2:]) / len(plans[2:]) <= 0.6


def test_shake_costs_no_comparison_for_a_while_and_ends() -> None:
    camera = Camera(RegionWindows(max_hz=None))
    blocks = np.random.default_rng(1).integers(0, 255, (12, 20, 1)).astype(np.uint8)
    texture = np.repeat(blocks.repeat(32, axis=0).repeat(32, axis=1), 3, axis=2)
    for step in range(80):
        camera.number += 1
        camera.planner.plan(np.roll(texture, 5 * (step % 4), axis=1), camera.number / FPS)
        camera.planner.merge([found(picture([]), None)])
    assert camera.planner.counts["whole_shake"] > 10
    camera.settle([PERSON], 80)
    assert camera.show([PERSON])[0].action == "held"


def test_a_box_cut_by_its_window_is_looked_at_again_as_a_whole() -> None:
    camera = Camera(RegionWindows(whole_s=100))
    camera.settle([])
    long = (40.0, 200.0, 600.0, 230.0)
    known = None
    for _ in range(3):
        _, known = camera.show([long])
    assert known is not None
    np.testing.assert_array_equal(known.xyxy, np.array([long], np.float32))


def test_what_is_ignored_moves_unseen() -> None:
    corner = [(0.0, 0.0), (640.0, 0.0), (640.0, 60.0), (0.0, 60.0)]
    camera = Camera(RegionWindows(whole_s=100, whole_quiet_s=100, ignore=[corner]))
    camera.settle([])
    assert camera.show([(50.0, 5.0, 90.0, 50.0)])[0].action == "held"
    assert camera.show([(50.0, 5.0, 90.0, 50.0), PERSON])[0].action == "windows"


def test_a_step_back_in_time_and_lost_results_begin_with_a_whole_frame() -> None:
    camera = Camera()
    camera.settle([PERSON])
    camera.number -= 10
    assert camera.show([PERSON])[0].reason == "first"
    camera.settle([PERSON])
    camera.planner.forget()
    assert camera.show([PERSON])[0].reason == "first"


def walks(seed: int) -> list[Callable[[int], tuple[float, float, float, float]]]:
    generator = np.random.default_rng(seed)

    def walk(x: float, y: float, dx: float, dy: float, w: float, h: float) -> Callable[[int], tuple[float, ...]]:
        return lambda n: (x + dx * n, y + dy * n, x + dx * n + w, y + dy * n + h)

    return [  # type: ignore[return-value]
        walk(
            *generator.uniform([0, 0], [560, 280]), *generator.uniform(-4, 4, 2), *generator.uniform([16, 30], [50, 90])
        )
        for _ in range(3)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_few_walkers_are_known_as_well_as_by_whole_frames(seed: int) -> None:
    camera = Camera()
    missed = area = frames = 0
    for number in range(80):
        boxes = [walk(number) for walk in walks(seed)]
        plan, known = camera.show(boxes)
        truth = seen(picture(boxes, camera.number), None)
        if known is not None and len(truth):
            overlap = iou_matrix(truth, known.xyxy).max(axis=1) if len(known) else np.zeros(len(truth))
            missed += int((overlap < 0.5).sum())
        frames += len(truth)
        area += sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in plan.windows) if plan.action == "windows" else 640 * 384
    assert missed <= 0.05 * frames
    assert area < 0.8 * 80 * 640 * 384


@pytest.mark.parametrize("seed", range(20))
def test_windows_cover_every_marked_cell_and_cost_less_than_the_whole(seed: int) -> None:
    generator = np.random.default_rng(seed)
    needed = GRID.nothing()
    for _ in range(int(generator.integers(1, 6))):
        x, y = generator.uniform([0, 0], [600, 350])
        GRID.mark(needed, (x, y, x + 30, y + 60), 16)
    windows = cover(needed, GRID)
    if windows is None:
        return
    assert len(windows) <= MAX_WINDOWS
    for x1, y1, x2, y2 in windows:
        assert (x2 - x1, y2 - y1) in [(32 * w, 32 * h) for w, h in GRID.sizes]
        assert 0 <= x1 < x2 <= 640
        assert 0 <= y1 < y2 <= 384
        needed[y1 // 32 : y2 // 32, x1 // 32 : x2 // 32] = 0
    assert not needed.any()
    assert sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in windows) < 640 * 384


def test_a_grid_without_windows_that_fit_means_the_whole() -> None:
    grid = Grid.of((160, 96), 32, [(192, 192)])
    needed = grid.nothing()
    grid.mark(needed, (10, 10, 20, 20), 0)
    assert cover(needed, grid) is None


@pytest.mark.parametrize("wrong", [{"whole_s": 0}, {"min_difference": 0}, {"margin": -1}, {"max_hz": 0}])
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="windows"):
        RegionWindows(**wrong)  # type: ignore[arg-type]
