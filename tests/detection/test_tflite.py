"""TensorFlow Lite files: a real one against TensorFlow's interpreter, and what its converters change."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.backends.base import TensorSpec
from engine.backends.files.base import read_model_file
from engine.backends.files.flatbuffer import root
from engine.backends.files.tflite import _specs
from engine.data import Detections, Frame
from engine.detection.heads.families import choose_family
from engine.detection.heads.family import Layout
from engine.detection.heads.tflite import standard_family, standard_layout
from engine.detection.letterbox import fit
from engine.detection.load import load_detector
from engine.detection.model import inspect_model
from engine.errors import ModelError
from tests.detection.heads.reference import greedy_nms
from tests.detection.heads.test_heads import assert_rows

pytest.importorskip("openvino", reason="OpenVINO reads and runs TensorFlow Lite files: pip install openvino")

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "tflite"
FRACTIONS = GOLDEN / "fractions.tflite"
SIDE = 64
ANCHORS = 64 + 16 + 4


def detect(path: Path) -> Detections:
    image = np.load(GOLDEN / "fractions.npz")["image"]
    with load_detector(path, score_threshold=0.8, iou_threshold=0.5) as detector:
        return detector.detect([Frame(image, "a", 0, 0, 0)])[0]


def assert_as_tensorflow_says(found: Detections) -> None:
    """Boxes of the interpreter's own output, by the plain NMS."""
    cx, cy, w, h = np.load(GOLDEN / "fractions.npz")["output"][0, :4] * SIDE
    scores = np.load(GOLDEN / "fractions.npz")["output"][0, 4:]
    passed = np.flatnonzero(scores.max(axis=0) > 0.8)
    boxes = np.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), axis=1)[passed]
    score, label = scores.max(axis=0)[passed], scores.argmax(axis=0)[passed]
    kept = greedy_nms(boxes.tolist(), score.tolist(), label.tolist(), 0.5)
    assert len(kept) >= 10
    np.testing.assert_array_equal(found.class_id, label[kept])
    np.testing.assert_allclose(found.score, score[kept], atol=1e-4)
    np.testing.assert_allclose(found.xyxy, boxes[kept].clip(0, SIDE), atol=0.02)


def test_a_file_with_channels_last_and_fractions_gives_the_boxes_of_tensorflow() -> None:
    facts = inspect_model(FRACTIONS)
    assert facts.class_names == tuple(f"thing {index}" for index in range(5))
    assert (facts.family.name, facts.image.layout, facts.stride) == ("yolo", "nhwc", 32)
    assert_as_tensorflow_says(detect(FRACTIONS))


def test_without_its_metadata_the_boxes_are_the_same(tmp_path: Path) -> None:
    content = FRACTIONS.read_bytes()
    bare = tmp_path / "bare.tflite"
    bare.write_bytes(content[: content.rindex(b"PK\x03\x04")])
    assert inspect_model(bare).class_names[0] == "class_0"
    assert_as_tensorflow_says(detect(bare))


def test_whole_numbers_at_the_ends_are_refused_with_the_remedy() -> None:
    with pytest.raises(ModelError, match="quantised: only float or byte inputs"):
        inspect_model(GOLDEN / "whole.tflite")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a model at all", id="text"),
        pytest.param(b"\x1c\0\0\0TFL3" + b"\xff" * 2000, id="ones behind the mark"),
        pytest.param(FRACTIONS.read_bytes()[:9000], id="cut short"),
        pytest.param(FRACTIONS.read_bytes()[:8], id="the mark alone"),
    ],
)
def test_what_is_no_model_is_a_model_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hurt.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="hurt.tflite"):
        inspect_model(path)


def test_flipped_and_missing_bytes_are_model_errors_of_the_reader(tmp_path: Path) -> None:
    content = FRACTIONS.read_bytes()
    chance = random.Random(0)
    path = tmp_path / "hurt.tflite"
    refused = 0
    for _ in range(2000):
        hurt = bytearray(content[: chance.choice([len(content), chance.randrange(1, len(content))])])
        for _ in range(chance.randrange(1, 12)):
            hurt[chance.randrange(len(hurt))] = chance.randrange(256)
        path.write_bytes(bytes(hurt))
        try:
            read_model_file(path)
        except ModelError:
            refused += 1
    assert 400 <= refused < 2000


@pytest.mark.parametrize("name", ["fractions", "whole"])
def test_the_reader_finds_the_tensors_that_openvino_finds(name: str) -> None:
    import openvino

    path = GOLDEN / f"{name}.tflite"
    model = openvino.Core().read_model(str(path))
    found = _specs(root(memoryview(path.read_bytes())))
    for specs, ports in zip(found, (model.inputs, model.outputs), strict=True):
        for spec, port in zip(specs, ports, strict=True):
            assert {spec.name} == port.get_names()
            assert list(spec.shape) == list(port.get_shape())
            assert spec.dtype == np.dtype(port.element_type.to_dtype()).name


def test_a_file_that_crashes_openvino_is_described_and_refused_where_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by fuzzing: a division by zero while OpenVINO reads the file, once in the process of the engine itself."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hurt = bytearray(FRACTIONS.read_bytes())
    hurt[17495] = 192
    path = tmp_path / "hurt.tflite"
    path.write_bytes(hurt)
    program = f"from pipelines.models.inspect import describe; print(describe({str(path)!r}, {{}})['format'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=110, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "tflite"), done.stderr
    with pytest.raises(ModelError, match="crashes the process that loads it"):
        load_detector(path, try_first=True).open()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        pytest.param("metadata.json", "{" * 3000, "nested deeper", id="deep"),
        pytest.param("metadata.json", '{"a": "' + "x" * (1 << 20) + '"}', "longer than", id="one megabyte, packed"),
        pytest.param("metadata.json", '{"stride": "nan"}', "stride", id="NaN stride"),
        pytest.param("metadata.json", '{"names": {"0": "' + "x" * 300 + '"}}', "300 characters", id="huge name"),
        pytest.param("metadata.json", "{'a': !!python/object/apply:os.system ['true']}", "YAML", id="a call"),
    ],
)
def test_hostile_metadata_in_the_archive_are_a_model_error(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / "hostile.tflite"
    content = FRACTIONS.read_bytes()
    path.write_bytes(content[: content.rindex(b"PK\x03\x04")])
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    with pytest.raises(ModelError, match=message):
        inspect_model(path)


def test_a_list_of_labels_in_the_archive_tells_nothing(tmp_path: Path) -> None:
    path = shutil.copy(FRACTIONS, tmp_path / "m.tflite")
    content = FRACTIONS.read_bytes()
    path.write_bytes(content[: content.rindex(b"PK\x03\x04")])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labelmap.txt", "person\nbicycle\n")
    assert inspect_model(path).class_names[0] == "class_0"


def head_of(outputs: list[np.ndarray], family: str, **layout: Any) -> Any:
    specs = tuple(TensorSpec(f"output{i}", output.shape, "float32") for i, output in enumerate(outputs))
    given = Layout(specs, (SIDE, SIDE), **{"metadata": {}, **layout})
    standard = standard_layout(given)
    chosen = choose_family(standard)
    assert chosen.name == family
    return standard_family(chosen, given).build(standard)


def test_columns_of_classic_yolov5_are_fractions() -> None:
    output = np.zeros((1, 3 * ANCHORS, 7), np.float32)
    output[0, 9] = [0.5, 0.25, 0.25, 0.125, 0.9, 0.1, 1.0]
    assert_rows(head_of([output], "yolov5").find([output], 0, 0.25), [(1, 0.9, [24, 12, 40, 20])])


def test_end_to_end_rows_are_fractions() -> None:
    output = np.zeros((1, 20, 6), np.float32)
    output[0, 0] = [0.25, 0.5, 0.75, 1.0, 0.8, 3]
    assert_rows(head_of([output], "end_to_end").find([output], 0, 0.25), [(3, 0.8, [16, 32, 48, 64])])


def test_pixels_stay_what_they_are() -> None:
    output = np.zeros((1, 6, ANCHORS), np.float32)
    output[0, :, 5] = [32, 16, 16, 8, 0, 0.7]
    assert_rows(head_of([output], "yolo").find([output], 0, 0.25), [(1, 0.7, [24, 12, 40, 20])])


def test_anchors_in_front_of_their_columns_are_turned() -> None:
    output = np.zeros((1, ANCHORS, 84), np.float32)
    output[0, 5, :5] = [0.5, 0.25, 0.25, 0.125, 0.7]
    assert_rows(head_of([output], "yolo").find([output], 0, 0.25), [(0, 0.7, [24, 12, 40, 20])])


@pytest.mark.parametrize("rows", [True, False], ids=["raw", "end-to-end"])
def test_keypoints_are_fractions_too(rows: bool) -> None:
    row = [0.5, 0.5, 0.5, 0.5, 0.9, *([] if rows else [0]), 0.25, 0.75, 0.6, 0.5, 0.5, 0.4]
    output = np.zeros((1, len(row), ANCHORS) if rows else (1, 10, len(row)), np.float32)
    if rows:
        output[0, :, 3] = row
    else:
        output[0, 3] = row
    head = head_of([output], "yolo_pose", task="pose", metadata={"kpt_shape": [2, 3]})
    found = head.find([output], 0, 0.25)
    points = head.extra(found, [output], 0, fit((SIDE, SIDE), (SIDE, SIDE)))["keypoints"]
    np.testing.assert_allclose(points, [[[16, 48, 0.6], [32, 32, 0.4]]], atol=1e-5)


def test_prototypes_may_come_first_with_channels_last() -> None:
    prototypes = np.full((1, 16, 16, 32), -1.0, np.float32)
    prototypes[0, 4:8, 8:12, 0] = 1  # rows 16 to 32, columns 32 to 48
    output = np.zeros((1, 4 + 3 + 32, ANCHORS), np.float32)
    output[0, :4, 7], output[0, 5, 7], output[0, 7, 7] = [0.5, 0.5, 1, 1], 0.9, 4
    outputs = [prototypes, output]
    head = head_of(outputs, "yolo_segment", task="segment", class_count=3)
    found = head.find(outputs, 0, 0.25)
    [mask] = head.extra(found, outputs, 0, fit((SIDE, SIDE), (SIDE, SIDE)))["mask"]
    inside = np.zeros((SIDE, SIDE), bool)
    inside[16:32, 32:48] = True
    assert (mask == inside).mean() > 0.99
