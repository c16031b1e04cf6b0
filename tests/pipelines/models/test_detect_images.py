from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engine.assets import demo_model
from engine.data import Detections, Frame
from engine.detection.classic import MotionDetector
from engine.detection.load import load_detector
from engine.errors import ConfigError, ModelError, SinkError
from pipelines.models import detect_images
from pipelines.models.detect_images import expand_images
from pipelines.scoring.detect import detect_all, evaluate_detect, score
from pipelines.scoring.labels import Truth
from tests.patience import AT_ONCE_S


def detector(**options: object):  # type: ignore[no-untyped-def]
    return load_detector(demo_model(), backend="onnxruntime", **options)  # type: ignore[arg-type]


def detect_to_files(*args: Any, **options: Any) -> list[dict[str, Any]]:
    return list(detect_images.detect_to_files(*args, **options))


def test_results_come_one_by_one(tmp_path: Path) -> None:
    images = [gray(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    results = detect_images.detect_to_files(MotionDetector(), images, jsonl=tmp_path / "out.jsonl")
    assert next(results)["image"] == str(images[0])
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1


def test_each_image_gives_a_line_and_a_picture(data_dir: Path, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    results = detect_to_files(
        detector(),
        [data_dir / "images" / "assets"],
        save=tmp_path / "pictures",
        jsonl=tmp_path / "out.jsonl",
        progress=lambda *counts: done.append(counts),
    )
    assert [Path(result["image"]).name for result in results] == ["bus.jpg", "zidane.jpg"]
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == results
    assert done == [(1, 2), (2, 2)]
    assert all("person" in {entry["class_name"] for entry in result["objects"]} for result in results)
    for name in ("bus.jpg", "zidane.jpg"):
        picture = cv2.imread(str(tmp_path / "pictures" / name))
        original = cv2.imread(str(data_dir / "images" / "assets" / name))
        assert picture.shape == original.shape
        assert (np.abs(picture.astype(int) - original) > 50).any()


def test_files_and_folders_are_expanded_in_order(data_dir: Path) -> None:
    assets = data_dir / "images" / "assets"
    names = [path.name for path in expand_images([assets / "zidane.jpg", assets])]
    assert names == ["zidane.jpg", "bus.jpg", "zidane.jpg"]


def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not an image")
    with pytest.raises(ConfigError, match=r"broken\.jpg: not readable as an image"):
        detect_to_files(detector(), [broken])
    with pytest.raises(ConfigError, match="no such image"):
        detect_to_files(detector(), [tmp_path / "missing.jpg"])


def test_an_output_that_cannot_be_written_is_a_sink_error(data_dir: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(SinkError, match="cannot be created|cannot be written"):
        detect_to_files(detector(), [data_dir / "images" / "assets" / "bus.jpg"], save=blocked / "pictures")


def gray(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(cv2.imencode(".jpg", np.full((40, 60, 3), 90, np.uint8))[1].tobytes())
    return path


def test_no_picture_overwrites_an_image_or_another_picture(tmp_path: Path) -> None:
    first, second = gray(tmp_path / "a" / "x.jpg"), gray(tmp_path / "b" / "x.jpg")
    content = first.read_bytes()
    with pytest.raises(ConfigError, match="would overwrite the image"):
        detect_to_files(MotionDetector(), [tmp_path / "a"], save=tmp_path / "b" / ".." / "a")
    with pytest.raises(ConfigError, match="the image of both"):
        detect_to_files(MotionDetector(), [first, second], save=tmp_path / "out")
    assert first.read_bytes() == content
    assert not (tmp_path / "out").exists()
    detect_to_files(MotionDetector(), [first, first], save=tmp_path / "out")  # the same image twice


def test_an_unreadable_image_does_not_lose_the_lines_before_it(tmp_path: Path) -> None:
    broken, out = tmp_path / "b.jpg", tmp_path / "out.jsonl"
    broken.write_bytes(b"not an image")
    with pytest.raises(ConfigError, match="not readable as an image"):
        detect_to_files(MotionDetector(), [gray(tmp_path / "a.jpg"), broken], jsonl=out)
    assert [Path(json.loads(line)["image"]).name for line in out.read_text().splitlines()] == ["a.jpg"]
    with pytest.raises(SinkError, match="cannot be written"):
        detect_to_files(MotionDetector(), [tmp_path / "a.jpg"], jsonl=tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full: run on Linux")
def test_a_full_disk_is_told_by_the_line_that_did_not_fit(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="/dev/full: cannot be written: No space left"):
        detect_to_files(MotionDetector(), [gray(tmp_path / "a.jpg")], jsonl="/dev/full")


def test_lines_go_through_a_pipe_one_by_one(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    images = [gray(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    read: list[str] = []

    def reader() -> None:
        with pipe.open() as file:
            read.extend(file)

    thread = threading.Thread(target=reader)
    thread.start()
    detect_to_files(MotionDetector(), images, jsonl=pipe)
    thread.join(AT_ONCE_S)
    assert [Path(json.loads(line)["image"]).name for line in read] == ["a.jpg", "b.jpg"]


def test_pictures_of_a_kind_that_cannot_be_written_are_jpeg(tmp_path: Path) -> None:
    images = [gray(tmp_path / "photo"), gray(tmp_path / "scan.jfif"), gray(tmp_path / "own.png")]
    detect_to_files(MotionDetector(), images, save=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["own.png", "photo.jpg", "scan.jpg"]


def truth(*rows: tuple[float, float, float, float, int]) -> Truth:
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Truth(Path("a.png"), table[:, :4], table[:, 4].astype(np.int32), np.zeros(len(table), bool))


def test_perfect_boxes_score_one_and_misses_nothing() -> None:
    labels = [truth((0, 0, 50, 50, 0), (60, 0, 90, 30, 1)), truth((10, 10, 40, 60, 0))]
    found = [Detections(one.xyxy, np.full(len(one.class_id), 0.9), one.class_id) for one in labels]
    sizes = [(100, 100)] * 2
    perfect = score(found, labels, sizes, ["person", "car"])
    assert (perfect.map50, perfect.map50_95, perfect.objects) == (pytest.approx(1), pytest.approx(1), 3)
    assert {name: one.objects for name, one in perfect.per_class.items()} == {"person": 2, "car": 1}
    half = score([found[0], Detections.empty()], labels, sizes, ["person", "car"])
    assert half.per_class["person"].ap50 == pytest.approx(51 / 101)  # recall 0.5: 51 of the 101 points
    assert half.per_class["car"].ap50 == pytest.approx(1)
    assert json.loads(json.dumps(half.as_dict()))["images"] == 2


class MaskDetector(MotionDetector):
    """Finds one object with a mask in each frame."""

    def find(self, frame: Frame) -> Detections:
        mask = np.ones((1, frame.height, frame.width), bool)
        return Detections(np.float32([[1, 2, 30, 40]]), np.float32([0.9]), np.int32([0]), {"mask": mask})


def test_scoring_keeps_boxes_and_lets_masks_go(tmp_path: Path) -> None:
    one = truth((1, 2, 30, 40, 0))
    labels = [replace(one, image=gray(tmp_path / name)) for name in ("a.jpg", "b.jpg")]
    found, sizes, _ = detect_all(MaskDetector(), labels, None)
    assert [(len(each), each.extra) for each in found] == [(1, {})] * 2
    assert sizes == [(60, 40)] * 2


def test_a_broken_model_is_a_model_error(data_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError):
        evaluate_detect(path, data_dir / "images" / "coco128_train")
