from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.backends.select import why_not
from engine.data import Detections, Frame
from engine.errors import ModelError
from engine.tracking.appearance import Embedder
from engine.tracking.steady import SteadyTrack

FRAME_NS = 33_333_333
SIZE_HW = (720, 1280)


@pytest.fixture(scope="module")
def embedder(data_dir: Path) -> Embedder:
    return Embedder(data_dir / "models" / "reid_osnet" / "osnet_x0_25_msmt17.onnx")


@pytest.fixture(scope="module")
def people(data_dir: Path) -> list[np.ndarray]:
    """Two people cut out of one photo."""
    image = cv2.imread(str(data_dir / "images" / "assets" / "bus.jpg"))
    return [image[400:900, 50:245], image[405:860, 222:345]]


def picture(person: np.ndarray, x: int) -> np.ndarray:
    canvas = np.full((*SIZE_HW, 3), 127, np.uint8)
    canvas[200:440, x : x + 100] = cv2.resize(person, (100, 240))
    return canvas


def test_a_person_is_more_like_himself_than_like_another(embedder: Embedder, people: list[np.ndarray]) -> None:
    boxes = np.array([[100.0, 200, 200, 440]])
    same, moved, other = (
        embedder.embed(picture(person, x), boxes + np.array([x - 100, 0, x - 100, 0]))[0]
        for person, x in ((people[0], 100), (people[0], 600), (people[1], 100))
    )
    assert same @ moved > 0.99
    assert same @ other < 0.85


def test_a_box_outside_the_picture_is_like_nothing(embedder: Embedder) -> None:
    boxes = np.array([[-90.0, -90, -10, -10], [0, 0, 50, 90]])
    features = embedder.embed(np.zeros((*SIZE_HW, 3), np.uint8), boxes)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), [0, 1], atol=1e-5)


def test_something_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "reid.onnx").write_text("no model", encoding="utf-8")
    with pytest.raises(ModelError, match=r"reid.onnx cannot be loaded"):
        Embedder(tmp_path / "reid.onnx")


@pytest.mark.parametrize(
    ("comes_back", "expected"), [pytest.param(0, {1}, id="the same person"), pytest.param(1, {1, 2}, id="another")]
)
def test_who_comes_back_elsewhere_is_known_by_appearance(
    embedder: Embedder, people: list[np.ndarray], comes_back: int, expected: set[int]
) -> None:
    tracker, ids = SteadyTrack(appearance=embedder, lost_s=5.0), set()
    assert tracker.wants_frames
    for i in range(60):
        x, person = (100, people[0]) if i < 20 else (420, people[comes_back])
        here = not 20 <= i < 50
        tracker.observe(Frame(picture(person, x), "cam", i, i * FRAME_NS, 0))
        found = Detections([[x, 200, x + 100, 440]], [0.9], [0]) if here else Detections.empty()
        ids |= set(tracker.update(found, i * FRAME_NS).track_id.tolist())
    assert ids == expected


def test_a_clone_shares_the_network(embedder: Embedder) -> None:
    assert SteadyTrack(appearance=embedder).clone().appearance is embedder


def test_vectors_are_the_same_on_every_backend(data_dir: Path, people: list[np.ndarray]) -> None:
    if obstacle := why_not("openvino"):
        pytest.skip(f"backend openvino: {obstacle}")
    path = data_dir / "models" / "reid_osnet" / "osnet_x0_25_msmt17.onnx"
    boxes = np.array([[100.0, 200, 200, 440], [600, 200, 700, 440]])
    image = picture(people[0], 100)
    one, other = (Embedder(path, backend).embed(image, boxes) for backend in ("onnxruntime", "openvino"))
    assert (one * other).sum(axis=1).min() > 0.99


def test_a_model_with_channels_last_takes_the_pixels_as_they_are(data_dir: Path, people: list[np.ndarray]) -> None:
    """Intel's person-reidentification-retail-0288, `person-reid-0288` in the catalogue."""
    embedder = Embedder(data_dir / "models" / "more" / "person-reidentification-retail-0288.onnx")
    box = np.array([[100.0, 200, 200, 440]])
    same = embedder.embed(picture(people[0], 100), box)[0]
    moved = embedder.embed(picture(people[0], 400), box + np.array([300, 0, 300, 0]))[0]
    other = embedder.embed(picture(people[1], 100), box)[0]
    assert (embedder.length, np.linalg.norm(same)) == (256, pytest.approx(1, abs=1e-5))
    assert same @ moved > 0.99 > same @ other
