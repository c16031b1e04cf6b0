from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.analytics.geometry import Polygons, crosses_itself, cuts, is_flat, signed_distances

SQUARE = [(10.0, 10.0), (30.0, 10.0), (30.0, 30.0), (10.0, 30.0)]


@pytest.mark.parametrize("seed", range(20))
def test_points_are_located_as_by_opencv(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 12)))
    star = np.stack((np.cos(angles), np.sin(angles)), 1) * rng.uniform(20, 90, (len(angles), 1)) + 100
    triangle = rng.uniform(0, 200, (3, 2))
    points = rng.uniform(-20, 220, (50, 2))
    polygons = Polygons.of([star, triangle])
    inside = polygons.inside(np.column_stack((points, np.ones(50))).T)
    for number, polygon in enumerate((star, triangle)):
        contour = polygon.astype(np.float32)
        truth = [cv2.pointPolygonTest(contour, point.tolist(), True) for point in points]
        assert inside[number].tolist() == [distance >= 0 for distance in truth]
        for (x, y), distance in zip(points.tolist(), np.abs(truth).tolist(), strict=True):
            assert polygons.is_beyond(number, x, y, distance - 1e-3)
            assert not polygons.is_beyond(number, x, y, distance + 1e-3)


@pytest.mark.parametrize("corners", [SQUARE, SQUARE[::-1], [SQUARE[0], *SQUARE]], ids=["", "reversed", "twice"])
@pytest.mark.parametrize("point", [(10, 10), (20, 10), (30, 17), (10, 30), (22.5, 30)])
def test_the_border_of_a_polygon_is_inside(corners: list[tuple[float, float]], point: tuple[float, float]) -> None:
    polygons = Polygons.of([np.array(corners)])
    assert polygons.inside(np.array([[*point, 1.0]]).T).all()
    assert not polygons.is_beyond(0, *point, 1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_points_on_any_edge_are_inside_and_those_beside_it_are_not_both(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
    star = np.stack((np.cos(angles), np.sin(angles)), 1) * rng.uniform(100, 900, (7, 1)) + 1000
    share, end = rng.uniform(0, 1, (7, 1)), np.roll(star, -1, axis=0)
    on_edge = star + share * (end - star)
    aside = np.stack((star[:, 1] - end[:, 1], end[:, 0] - star[:, 0]), 1)
    aside *= 1e-3 / np.hypot(aside[:, 0], aside[:, 1])[:, None]

    def inside(points: np.ndarray) -> np.ndarray:
        return Polygons.of([star]).inside(np.column_stack((points, np.ones(len(points)))).T)[0]

    assert inside(np.concatenate((on_edge, star))).all()
    assert (inside(on_edge + aside) != inside(on_edge - aside)).all()


def test_covered_shares_equal_counted_pixels() -> None:
    rng = np.random.default_rng(3)
    star = np.array([(20, 20), (180, 40), (90, 90), (170, 190), (30, 150)], float)
    boxes = [(x, y, x + w, y + h) for x, y, w, h in rng.integers((0, 0, 5, 5), (150, 150, 60, 60), (30, 4))]
    shares = Polygons.of([star]).covered_shares(np.array(boxes, float).T)[0]
    scale = 8
    mask = np.zeros((220 * scale, 220 * scale), np.uint8)
    cv2.fillPoly(mask, [(star * scale).astype(np.int32)], 1)
    truth = [mask[y1 * scale : y2 * scale, x1 * scale : x2 * scale].mean() for x1, y1, x2, y2 in boxes]
    assert shares == pytest.approx(truth, abs=0.02)


def test_the_right_of_a_line_that_goes_up_is_the_right_of_the_picture() -> None:
    upwards = np.array([(100.0, 200.0), (100.0, 0.0)])
    assert signed_distances(upwards, np.array([90.0, 130.0]), np.array([50.0, 50.0])) == pytest.approx([-10, 30])


@pytest.mark.parametrize(
    ("point", "distance"),
    [
        pytest.param((50, 10), 10, id="beside the first segment"),
        pytest.param((90, 50), 10, id="beside the second segment"),
        pytest.param((110, -10), -np.hypot(10, 10), id="outside of the bend"),
        pytest.param((97, 3), 3, id="inside of the bend"),
        pytest.param((-30, 7), 7, id="beyond the first end, where the line goes on straight"),
    ],
)
def test_distance_from_a_bent_line(point: tuple[float, float], distance: float) -> None:
    bent = np.array([(0.0, 0.0), (100.0, 0.0), (100.0, 100.0)])
    assert signed_distances(bent, np.array([point[0]]), np.array([point[1]]))[0] == pytest.approx(distance)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param([(50, -5), (50, 5)], [(0, 0.5)], id="across"),
        pytest.param([(50, -5), (50, -1)], [], id="not across"),
        pytest.param([(0, -5), (0, 5)], [(0, 0.5)], id="through the first end"),
        pytest.param([(200, -5), (200, 5)], [], id="through the last end"),
        pytest.param([(100, -5), (100, 15)], [(0, 0.25)], id="through the bend"),
        pytest.param([(300, -5), (300, 5)], [], id="beyond the end"),
        pytest.param([(50, -5), (50, 0), (50, 5)], [(1, 0.0)], id="a point on the line is passed once"),
        pytest.param([(50, -5), (50, 5), (60, -5), (60, 5)], [(0, 0.5), (1, 0.5), (2, 0.5)], id="there and back"),
    ],
)
def test_cuts_of_a_path(path: list[tuple[float, float]], expected: list[tuple[int, float]]) -> None:
    line = np.array([(0.0, 0.0), (100.0, 0.0), (200.0, 0.0)])
    assert cuts(np.array(path, float), line) == [(chord, pytest.approx(share)) for chord, share in expected]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        pytest.param(SQUARE, False, id="square"),
        pytest.param([(0, 0), (10, 0), (5, 8)], False, id="triangle"),
        pytest.param([(0, 0), (10, 10), (10, 0), (0, 10)], True, id="bow tie"),
        pytest.param([(0, 0), (10, 0), (10, 10), (5, 0), (0, 10)], True, id="a corner on another edge"),
        pytest.param([(0, 0), (10, 0), (4, 0), (4, 8)], True, id="an edge that folds back"),
        pytest.param([(0, 0), (10, 0), (10, 10), (6, 3), (0, 10)], False, id="hollow"),
    ],
)
def test_a_polygon_crosses_itself(points: list[tuple[float, float]], expected: bool) -> None:
    assert crosses_itself(points) is expected


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (SQUARE, False),
        ([(0, 0), (5, 5), (9, 9)], True),
        ([(0, 0), (9, 9), (0, 9), (9, 0)], False),
        ([(3, 3)] * 3, True),
    ],
)
def test_corners_on_one_line_are_flat(points: list[tuple[float, float]], expected: bool) -> None:
    assert is_flat(points, 1e-6) is expected
