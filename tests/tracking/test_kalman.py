from __future__ import annotations

import numpy as np
import pytest

from engine.tracking import kalman, motion

MODELS = [
    pytest.param(motion.CentreWidthHeight(), id="centre, width, height"),
    pytest.param(motion.CentreAreaRatio(), id="centre, area, ratio"),
]


def full(cov: np.ndarray) -> np.ndarray:
    """The 8 x 8 covariance that the 12 numbers stand for."""
    matrix = np.diag(np.concatenate((cov[:4], cov[8:])))
    matrix[range(4), range(4, 8)] = matrix[range(4, 8), range(4)] = cov[4:8]
    return matrix


@pytest.mark.parametrize("model", MODELS)
def test_it_equals_the_textbook_filter(model: kalman.MotionModel) -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([[100.0, 50, 140, 150], [10, 10, 90, 40]])
    mean, cov = kalman.start(model, model.encode(boxes))
    x, p = mean.copy(), [full(c) for c in cov]
    observe = np.eye(4, 8)
    for seconds in (0.04, 0.1, 0.5):
        process = model.process(mean)
        kalman.predict(mean, cov, process, seconds)
        move = np.eye(8) + np.diag([seconds] * 4, 4)
        noise = model.measurement(mean)
        z = model.encode(boxes + rng.normal(0, 2, (2, 1)))
        predicted = mean.copy()
        kalman.correct(mean, cov, z, noise)
        for i in range(2):
            x[i] = move @ x[i]
            np.testing.assert_allclose(x[i], predicted[i])
            p[i] = move @ p[i] @ move.T + np.diag(process[i]) * seconds
            gain = p[i] @ observe.T @ np.linalg.inv(observe @ p[i] @ observe.T + np.diag(noise[i]))
            x[i] = x[i] + gain @ (z[i] - observe @ x[i])
            p[i] = (np.eye(8) - gain @ observe) @ p[i]
            np.testing.assert_allclose(mean[i], x[i])
            np.testing.assert_allclose(full(cov[i]), p[i], atol=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_boxes_survive_coding(model: kalman.MotionModel) -> None:
    boxes = np.array([[100.0, 50, 140, 150], [-10, -10, 90, 40]])
    np.testing.assert_allclose(model.decode(kalman.start(model, model.encode(boxes))[0]), boxes)


@pytest.mark.parametrize("model", MODELS)
def test_a_shrinking_box_never_turns_inside_out(model: kalman.MotionModel) -> None:
    mean, cov = kalman.start(model, model.encode(np.array([[0.0, 0, 20, 40]])))
    mean[:, 6:] = -1000
    kalman.predict(mean, cov, model.process(mean), 1.0)
    box = model.decode(mean)[0]
    assert box[2] > box[0]
    assert box[3] > box[1]


def test_two_half_steps_move_as_far_as_a_whole_one() -> None:
    model = motion.CentreWidthHeight()
    mean, cov = kalman.start(model, model.encode(np.array([[0.0, 0, 20, 40]])))
    mean[0, 4] = 30
    half, half_cov = mean.copy(), cov.copy()
    kalman.predict(mean, cov, model.process(mean), 1.0)
    for _ in range(2):
        kalman.predict(half, half_cov, model.process(half), 0.5)
    np.testing.assert_allclose(half, mean)
