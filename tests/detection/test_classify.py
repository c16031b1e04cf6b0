from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from engine.data import Detections, Frame, Tracks
from engine.detection.classify import Classifier, centre_crop, inspect_classifier, load_classifier, probabilities_of
from engine.detection.second_stage import SecondStage
from engine.errors import ConfigError, ModelError
from tests.onnx_models import save_constant_model, save_model

ULTRALYTICS = {"task": "classify", "names": "{0: 'blue', 1: 'green', 2: 'red'}"}


def colour_model(path: Path, metadata: dict[str, str] | None = None) -> Path:
    """A model whose three logits are ten times the means of the red, green and blue plane, in the order b, g, r."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Gather", ["means", "order"], ["swapped"], axis=1),
        helper.make_node("Mul", ["swapped", "ten"], ["logits"]),
    ]
    weights = {"order": np.array([2, 1, 0]), "ten": np.float32(10)}
    return save_model(path, nodes, {"images": ("b", 3, 32, 32)}, {"logits": ("b", 3)}, weights, metadata)


@pytest.fixture
def classifier(tmp_path: Path) -> Classifier:
    path = colour_model(tmp_path / "colours.onnx")
    return load_classifier(path, backend="onnxruntime", names=["blue", "green", "red"], max_batch=2)


def plain(colour: int, height: int = 40, width: int = 60) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[..., colour] = 255
    return image


def test_the_colour_of_an_image_is_named(classifier: Classifier) -> None:
    with classifier:
        assert [classifier.top(plain(colour))[0][0] for colour in range(3)] == ["blue", "green", "red"]
        name, probability = classifier.top(plain(2), count=1)[0]
    assert (name, round(probability, 3)) == ("red", 1.0)


def test_any_number_of_images_is_classified_in_order(classifier: Classifier) -> None:
    probability = classifier.probabilities([plain(colour) for colour in (0, 1, 2, 1, 0)])
    assert probability.argmax(axis=1).tolist() == [0, 1, 2, 1, 0]
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-5)
    assert classifier.probabilities([]).shape == (0, 3)
    classifier.close()


def test_imagenet_models_and_ultralytics_models_are_fed_differently(tmp_path: Path) -> None:
    foreign = inspect_classifier(colour_model(tmp_path / "a.onnx"))
    own = inspect_classifier(colour_model(tmp_path / "b.onnx", ULTRALYTICS))
    assert foreign.image.mean == (123.675, 116.28, 103.53)
    assert own.image.mean == (0, 0, 0)
    assert (foreign.is_probability, own.is_probability) == (False, True)
    assert own.class_names == ("blue", "green", "red")
    assert foreign.class_names == ("class_0", "class_1", "class_2")


def test_a_detector_is_no_classifier(tmp_path: Path) -> None:
    path = save_constant_model(tmp_path / "m.onnx", [np.zeros((7, 84), np.float32)])
    with pytest.raises(ModelError, match="not a classification model"):
        load_classifier(path)


@pytest.mark.parametrize(("height", "width"), [(100, 200), (200, 100), (32, 32), (10, 7), (33, 32)])
def test_the_middle_of_an_image_is_cut_out(height: int, width: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    image[height // 3 : -(height // 3), width // 3 : -(width // 3)] = 200
    crop = centre_crop(image, (32, 32))
    assert crop.shape == (32, 32, 3)
    assert crop[16, 16, 0] == 200


def test_probabilities_of_leaves_probabilities_alone() -> None:
    rows = np.float32([[0.2, 0.8], [1.0, 0.0]])
    np.testing.assert_array_equal(probabilities_of(rows), rows)
    np.testing.assert_allclose(probabilities_of(np.float32([[1000.0, 0.0]])), [[1, 0]])


def scene(captured_ns: int = 0) -> Frame:
    image = np.concatenate((plain(0), plain(1), plain(2)), axis=1)
    return Frame(image, "a", 0, captured_ns, 0)


BOXES = np.float32([[0, 0, 60, 40], [60, 0, 120, 40], [120, 0, 180, 40]])


def test_boxes_are_classified_where_asked(classifier: Classifier) -> None:
    stage = SecondStage(classifier, class_ids=frozenset({7}), top=2)
    found = stage.classify(scene(), Detections(BOXES, [0.9, 0.8, 0.7], [7, 5, 7]))
    classes = found.extra["classes"]
    assert classes.shape == (3, 2, 2)
    assert classes[[0, 2], 0, 0].tolist() == [0, 2]
    assert np.isnan(classes[1]).all()


def tracks(boxes: np.ndarray = BOXES) -> Tracks:
    return Tracks(boxes, [0.9] * len(boxes), [0] * len(boxes), np.arange(1, len(boxes) + 1))


def count_images(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts: list[int] = []
    ask = classifier.probabilities

    def counted(images: list[np.ndarray], *, crop: bool = True) -> np.ndarray:
        counts.append(len(images))
        return ask(images, crop=crop)

    monkeypatch.setattr(classifier, "probabilities", counted)
    return counts


def test_a_track_is_asked_once_and_again_when_it_is_due(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = count_images(classifier, monkeypatch)
    stage = SecondStage(classifier, top=1, refresh_s=10)
    answers = stage.update(scene(), tracks())
    assert {track_id: int(row[0, 0]) for track_id, row in answers.items()} == {1: 0, 2: 1, 3: 2}
    stage.update(scene(1_000_000_000), tracks())
    stage.update(scene(20_000_000_000), tracks())
    assert counts == [3, 0, 3]


def test_a_track_that_came_nearer_is_asked_again(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = count_images(classifier, monkeypatch)
    stage = SecondStage(classifier, top=1)
    small = np.float32([[0, 0, 30, 20]])
    stage.update(scene(), tracks(small))
    stage.update(scene(1), tracks(BOXES[:1]))
    assert counts == [1, 1]


def test_tracks_that_are_gone_are_forgotten(classifier: Classifier) -> None:
    stage = SecondStage(classifier, top=1)
    stage.update(scene(), tracks())
    assert set(stage.update(scene(), tracks(BOXES[:1]))) == {1}


def test_a_box_too_small_to_show_anything_is_not_asked(classifier: Classifier) -> None:
    answers = SecondStage(classifier, top=1).update(scene(), tracks(np.float32([[0, 0, 3, 40]])))
    assert np.isnan(answers[1]).all()


def test_arguments_that_cannot_work_are_refused(classifier: Classifier) -> None:
    with pytest.raises(ConfigError, match="top 0"):
        SecondStage(classifier, top=0)
