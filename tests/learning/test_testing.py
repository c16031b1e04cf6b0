"""Tests of models: corruptions, matching, comparison, certificates, attacks, reports."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.data import Detections
from engine.errors import ConfigError
from pipelines.learning.testing.attack import parse_share
from pipelines.learning.testing.certify import certify
from pipelines.learning.testing.classifiers import ClassifierTest, run_classifier_test
from pipelines.learning.testing.compare import compare_answers, compare_detectors
from pipelines.learning.testing.context import try_context
from pipelines.learning.testing.corruptions import CORRUPTIONS, corrupt, parse_strengths
from pipelines.learning.testing.detectors import DetectorTest, run_detector_test
from pipelines.learning.testing.matching import Matches, Objects, confusion, match, mean_average_precision
from pipelines.learning.testing.pictures import curves
from pipelines.learning.testing.report import Report
from pipelines.scoring.detect import evaluate_detect, score
from pipelines.scoring.labels import Truth

pytest.importorskip("sklearn", reason='scikit-learn is missing: pip install "framewire[classic]"')
SIZE = (200, 160)


def invented(seed: int, noise: float, images: int = 30) -> tuple[list[Detections], list[Objects], list[Truth]]:
    """Objects of three classes, and detections that miss, move and invent some of them."""
    rng = np.random.default_rng(seed)
    found, objects, truths = [], [], []
    for number in range(images):
        corner = rng.uniform(0, 100, (4, 2))
        boxes = np.concatenate((corner, corner + rng.uniform(20, 60, (4, 2))), axis=1).astype(np.float32)
        classes, crowd = rng.integers(0, 3, 4).astype(np.int32), np.array([False, False, False, number % 5 == 0])
        seen = rng.random(4) > noise
        moved = boxes[seen] + rng.normal(0, 20 * noise, (seen.sum(), 4))
        extra = np.array([[5, 5, 40, 40]]) + rng.uniform(0, 100, (1, 1))
        score = np.concatenate((rng.uniform(0.3, 1, seen.sum()), rng.uniform(0, 0.7, 1)))
        found.append(Detections(np.concatenate((moved, extra)), score, np.append(classes[seen], 0)))
        objects.append(Objects(boxes, classes, crowd))
        truths.append(Truth(Path(f"{number}.jpg"), boxes, classes, crowd))
    return found, objects, truths


@pytest.mark.parametrize("noise", [0.1, 0.4])
def test_average_precision_equals_that_of_supervision(noise: float) -> None:
    found, objects, truths = invented(1, noise)
    ours = mean_average_precision(match(found, objects, 3))
    theirs = score(found, truths, [SIZE] * len(found), ["a", "b", "c"])
    assert ours == pytest.approx((theirs.map50, theirs.map50_95), abs=5e-3)


def test_weights_count_an_image_as_often_as_copies_of_it() -> None:
    found, objects, _ = invented(2, 0.3, images=4)
    rows = [0, 0, 0, 2, 3]
    weighted = mean_average_precision(match(found, objects, 3), np.bincount(rows, minlength=4))
    copied = mean_average_precision(match([found[row] for row in rows], [objects[row] for row in rows], 3))
    assert weighted == pytest.approx(copied)


def test_a_clearly_better_model_is_found_and_equal_ones_are_not() -> None:
    objects = invented(3, 0.1)[1]
    good, bad = (match(invented(3, noise)[0], objects, 3) for noise in (0.05, 0.6))
    assert compare_detectors(good, bad).verdict == "better"
    assert compare_detectors(bad, good).verdict == "worse"
    same = compare_detectors(good, good)
    assert (same.low, same.difference, same.high, same.verdict) == (0, 0, 0, "no clear difference")


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(60):
        this, other = rng.random(80) < 0.8, rng.random(80) < 0.7
        found = compare_answers(this, other)
        covered += found.low <= 0.1 <= found.high
    assert covered >= 51


def test_the_confusion_counts_each_object_and_detection_once() -> None:
    boxes = np.float32([[0, 0, 50, 50], [60, 0, 110, 50], [0, 60, 50, 110]])
    wanted = Objects(boxes, np.int32([0, 1, 1]), np.zeros(3, bool))
    found = Detections([*boxes[[0, 1]].tolist(), [120, 120, 150, 150]], [0.9, 0.9, 0.9], [0, 0, 1])
    weak = Detections([[0, 60, 50, 110]], [0.1], [1])
    assert confusion([found], [wanted], 2).tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
    assert confusion([weak], [wanted], 2)[:, 2].tolist() == [1, 2, 0]


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_corruption_is_stronger_from_step_to_step_and_repeatable(kind: str) -> None:
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (90, 120, 3)).astype(np.uint8), (0, 0), 3)
    image = cv2.normalize(image, None, 30, 220, cv2.NORM_MINMAX)
    before = image.copy()
    steps = [corrupt(image, kind, strength, name="a") for strength in range(1, 6)]
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(steps[2], corrupt(image, kind, 3, name="a"))
    assert {step.shape for step in steps} == {image.shape}
    away = [float(np.abs(step.astype(float) - image).mean()) for step in steps]
    assert away == sorted(away)
    assert away[0] > 1


def test_strengths_and_shares_are_read_and_checked() -> None:
    assert parse_strengths("5,1") == (1, 5)
    assert parse_share("4/255") == pytest.approx(4 / 255)
    for wrong in ("0", "6", "a", ""):
        with pytest.raises(ConfigError, match="1,2,3,4,5"):
            parse_strengths(wrong)
    for wrong in ("0", "4/0", "a/b", "2"):
        with pytest.raises(ConfigError, match="4/255"):
            parse_share(wrong)
    with pytest.raises(ConfigError, match="gaussian_noise"):
        corrupt(np.zeros((4, 4, 3), np.uint8), "snow", 1)


def test_context_is_kept_where_it_helps_and_only_there() -> None:
    """Class 1 is real only beside class 0, which the scores of class 1 do not show."""
    rng = np.random.default_rng(0)

    def images(helps: bool) -> tuple[list[Detections], list[Objects]]:
        found, objects = [], []
        for _ in range(120):
            has_first = rng.random() < 0.5
            is_real = has_first if helps else rng.random() < 0.5
            boxes = np.float32([[10, 10, 60, 60], [80, 80, 120, 120]])
            rows = [0, 1] if has_first else [1]
            noise = 0.95 if has_first else 0.0
            score = np.array([noise, rng.uniform(0.3, 0.6)])[rows]
            found.append(Detections(boxes[rows], score, np.array([0, 1])[rows]))
            real = [0] * has_first + [1] * is_real
            objects.append(Objects(boxes[real], np.int32(real), np.zeros(len(real), bool)))
        return found, objects

    helped = try_context(*images(True), [SIZE] * 120, 2)
    useless = try_context(*images(False), [SIZE] * 120, 2)
    assert helped is not None
    assert useless is not None
    assert helped.kept
    assert helped.with_context > helped.map50 + 0.1
    assert not useless.kept
    assert try_context(*[part[:3] for part in images(True)], [SIZE] * 3, 2) is None


def brightness(images: Sequence[np.ndarray]) -> np.ndarray:
    """Class 1 is bright."""
    share = np.array([image.mean() / 255 for image in images], np.float32)
    return np.stack((1 - share, share), axis=1)


def test_certified_answers_are_never_more_than_right_ones_and_fall_with_the_radius() -> None:
    rng = np.random.default_rng(0)
    images = [np.full((8, 8, 3), int(level), np.uint8) for level in rng.uniform(100, 156, 40)]
    truth = np.array([int(image.mean() > 127.5) for image in images])
    truth[:4] = 1 - truth[:4]
    found = certify(brightness, images, truth, 2, 0.25)["certified_at_l2"]
    right = float((brightness(images).argmax(axis=1) == truth).mean())
    assert right >= found["0"] >= found["0.25"] >= found["0.5"]
    assert found["0"] > 0.5
    for radius in (0.25, 0.5):  # the certificate is sound: brightness must change by that much to cross the middle
        margin = np.array([abs(image.mean() / 255 - 0.5) * np.sqrt(192) for image in images])
        assert found[f"{radius:g}"] <= (margin >= radius * 0.5).mean()
    with pytest.raises(ConfigError, match="sigma"):
        certify(brightness, images, truth, 2, 0)


def test_the_report_of_a_classifier_is_one_page_that_loads_nothing(textures: Path, tmp_path: Path) -> None:
    from pipelines.learning.classic.train import ClassicOptions, train_classic

    model, page = tmp_path / "t.onnx", tmp_path / "r.html"
    small = tmp_path / "pictures"
    for place in textures.iterdir():
        (small / place.name).mkdir(parents=True)
        for path in sorted(place.iterdir())[:14]:
            (small / place.name / path.name).write_bytes(path.read_bytes())
    train_classic(small, model, ClassicOptions("hog-svm", size=16))
    wanted = ClassifierTest(model, small, strengths=(5,), compare=model, sigma=None, report=page)
    result = run_classifier_test(wanted)
    assert result["comparison"]["verdict"] == "no clear difference"
    assert set(result["corruptions"]["accuracy"]) == set(CORRUPTIONS)
    assert result["corruptions"]["mean"] < result["accuracy"]
    text = page.read_text()
    assert len(result["report"]) == 4
    assert all(Path(file).is_file() for file in result["report"])
    assert text.count("<svg") == 3
    assert re.findall(r'(?:src|href)="', text) == []
    assert "<script" not in text
    (small / "stripes").rename(small / "other")
    with pytest.raises(ConfigError, match="no class 'other'"):
        run_classifier_test(wanted)


def test_a_report_without_a_folder_is_refused_before_the_test(tmp_path: Path) -> None:
    for place, why in ((tmp_path / "no" / "r.html", "create it first"), (tmp_path, "is a folder")):
        with pytest.raises(ConfigError, match=why):
            run_detector_test(DetectorTest("no model", tmp_path, None, report=place))
        with pytest.raises(ConfigError, match=why):
            run_classifier_test(ClassifierTest(tmp_path / "no model", tmp_path, report=place))


def test_values_by_radius_are_rows_of_a_report() -> None:
    report = Report("Test")
    report.figures("Certified answers", {"sigma": 0.1, "certified_at_l2": {"0": 0.79, "0.1": 0.72}})
    assert "<th>certified_at_l2 0.1</th>" in report.sections[0]
    assert "{" not in report.sections[0]


def test_lines_and_their_keys_are_dashed_alike() -> None:
    drawn = curves({str(number): ([0, 1], [0, 1]) for number in range(10)}, "x", "y")
    assert drawn.count('stroke-dasharray="6 3"') == 4


def test_plain_scores_are_unchanged_and_bad_pictures_lower_them(data_dir: Path, tmp_path: Path) -> None:
    """On four photographs, with the embedded model."""
    from engine.assets import demo_model

    source = data_dir / "images" / "coco128_train"
    for path in sorted((source / "images").rglob("*.jpg"))[:4]:
        for part, suffix in (("images", ".jpg"), ("labels", ".txt")):
            (tmp_path / part).mkdir(exist_ok=True)
            [found] = (source / part).rglob(f"{path.stem}{suffix}")
            (tmp_path / part / found.name).write_bytes(found.read_bytes())
    plain = evaluate_detect(demo_model(), tmp_path).as_dict()
    page = tmp_path / "r.html"
    result = run_detector_test(DetectorTest("demo", tmp_path, strengths=(5,), report=page))
    assert {key: result[key] for key in plain if key != "ms_per_image"} == {
        key: value for key, value in plain.items() if key != "ms_per_image"
    }
    assert max(result["corruptions"]["mean_by_kind"].values()) < result["map50_95"]
    assert page.read_text().count("<svg") == 3


def test_matches_of_no_detection_at_all() -> None:
    matches = match(
        [Detections.empty()], [Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool))], 2
    )
    assert isinstance(matches, Matches)
    assert len(matches.score) == 0
