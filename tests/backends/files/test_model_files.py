"""Readers of model files: right values from valid files, a `ModelError` for everything else."""

from __future__ import annotations

import contextlib
import random
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engine.backends.base import TensorSpec
from engine.backends.files.base import find_model, read_model_file
from engine.backends.files.openvino_ir import read_metadata_yaml
from engine.detection.metadata import class_names
from engine.detection.model import inspect_model
from engine.errors import ModelError
from tests.onnx_models import save_constant_model, save_pixel_model


def test_an_onnx_file_tells_what_the_onnx_package_reads(tmp_path: Path) -> None:
    path = save_pixel_model(tmp_path / "m.onnx", metadata={"names": "{0: 'a'}", "stride": "32"})
    facts = read_model_file(path)
    assert facts.inputs == (TensorSpec("images", (None, 3, 8, 8), "float32"),)
    assert facts.outputs == (
        TensorSpec("doubled", (None, 3, 8, 8), "float32"),
        TensorSpec("means", (None, 3), "float32"),
    )
    assert facts.metadata == {"names": "{0: 'a'}", "stride": "32", "producer": "tests"}
    assert (facts.format, facts.precision, facts.size_bytes) == ("onnx", "float32", path.stat().st_size)
    assert facts.operators == {"Mul": 1, "ReduceMean": 1}


@pytest.mark.parametrize(
    "name", ["yolov8n_fp32_dequantised.onnx", "yolov8n_int8.onnx", "nanodet_320.onnx", "yolox_nano"]
)
def test_real_onnx_files_read_like_the_onnx_package_reads_them(data_dir: Path, name: str) -> None:
    facts = read_model_file(data_dir / "models" / name)
    graph = onnx.load(str(facts.path), load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    for specs, infos in ((facts.inputs, graph.input), (facts.outputs, graph.output)):
        infos = [info for info in infos if info.name not in weights]
        assert [spec.name for spec in specs] == [info.name for info in infos]
        sizes = [[size.dim_value or None for size in info.type.tensor_type.shape.dim] for info in infos]
        assert [list(spec.shape) for spec in specs] == sizes


def test_an_openvino_folder_tells_tensors_and_metadata(data_dir: Path) -> None:
    facts = read_model_file(data_dir / "models" / "yolo11n_int8_openvino_model")
    assert facts.inputs == (TensorSpec("x", (1, 3, 640, 640), "float32"),)
    assert [spec.shape for spec in facts.outputs] == [(1, 84, 8400)]
    assert (facts.format, facts.precision) == ("openvino", "int8")
    assert facts.metadata["names"][0] == "person"


def test_a_bare_openvino_file_has_its_names_from_the_graph(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "models" / "yolo11n_int8_openvino_model"
    for name in ("yolo11n.xml", "yolo11n.bin"):
        shutil.copy(source / name, tmp_path)
    facts = inspect_model(tmp_path / "yolo11n.xml")
    assert facts.class_names[:3] == ("person", "bicycle", "car")
    assert len(facts.class_names) == 80


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


BROKEN = {
    "empty.onnx": b"",
    "text.onnx": b"this is not a model at all",
    "zeros.onnx": bytes(1000),
    "ones.onnx": b"\xff" * 1000,
    "endless_number.onnx": b"\x3a" + b"\xff" * 20,
    "beyond_its_end.onnx": b"\x3a\xff\xff\xff\xff\x0f" + b"x" * 10,
    "empty.xml": b"",
    "text.xml": b"not xml",
    "other.xml": b"<html></html>",
    "bomb.xml": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bb">]><net>&b;</net>',
    "hollow.xml": b"<net><layers></layers></net>",
    "weights.pt": b"PK\x03\x04",
    "model.weights": b"1234",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_a_model_error_that_names_it(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, BROKEN[name])
    write(path.with_suffix(".bin"), b"")
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        inspect_model(path)


def test_what_is_not_there_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        find_model(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="holds no model"):
        find_model(tmp_path)


def test_a_folder_of_two_models_is_not_guessed_at(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        write(tmp_path / name, b"x")
    with pytest.raises(ModelError, match=r"2 models \(a.onnx, b.onnx\): name one"):
        find_model(tmp_path)


def test_a_pytorch_file_is_told_how_to_be_exported(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="yolo export"):
        find_model(write(tmp_path / "yolo.pt", b"x"))


def test_an_ir_without_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"weights m\.bin are missing"):
        read_model_file(write(tmp_path / "m.xml", "<net/>"))


@pytest.mark.parametrize("place", ["../outside.bin", "/etc/passwd", "missing.bin"])
def test_weights_outside_the_folder_or_missing_are_refused(tmp_path: Path, place: str) -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    weights.ClearField("float_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=place)
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", info[:1], info[1:], [weights])
    path = write(tmp_path / "m.onnx", helper.make_model(graph).SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder|missing beside it"):
        read_model_file(path)


ALIAS_BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))


@pytest.mark.parametrize(
    "yaml",
    [
        pytest.param(ALIAS_BOMB, id="aliases that multiply"),
        pytest.param("a: &x [*x]", id="a value in itself"),
        pytest.param("names: {0: a}\nnames: {0: b}", id="a key twice"),
        pytest.param("!!python/object/apply:os.system ['true']", id="a call"),
        pytest.param("[" * 3000, id="deep"),
        pytest.param("- " * 3000, id="deep without brackets"),
        pytest.param("- a\n- b", id="a list"),
        pytest.param("a: [", id="cut short"),
        pytest.param("names: {0: " + "x" * 300 + "}", id="huge name"),
        pytest.param("names: {0: a}\nstride: .nan", id="NaN stride"),
        pytest.param("x: " + "y" * (2 << 20), id="two megabytes"),
    ],
)
def test_hostile_metadata_beside_an_ir_are_a_model_error(data_dir: Path, tmp_path: Path, yaml: str) -> None:
    source = data_dir / "models" / "yolo11n_int8_openvino_model"
    shutil.copy(source / "yolo11n.xml", tmp_path)
    write(tmp_path / "yolo11n.bin", b"x")
    write(tmp_path / "metadata.yaml", yaml)
    with pytest.raises(ModelError):
        inspect_model(tmp_path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        pytest.param((1 << 20, 3), "fit no known head", id="absurd"),
        pytest.param((3,), "fit no known head|classification", id="flat"),
        pytest.param((7, 83), "fit no known head", id="one anchor less"),
    ],
)
def test_outputs_of_no_known_kind_list_the_known_ones(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    path = save_constant_model(tmp_path / "m.onnx", [np.zeros(shape, np.float32)])
    with pytest.raises(ModelError, match=message):
        inspect_model(path)


@pytest.mark.parametrize("metadata", [{}, {"task": "classify"}])
def test_a_classifier_is_told_to_be_one(tmp_path: Path, metadata: dict[str, str]) -> None:
    path = save_constant_model(tmp_path / "m.onnx", [np.zeros(1000, np.float32)], metadata=metadata)
    with pytest.raises(ModelError, match="classification model .* cannot detect objects"):
        inspect_model(path)


def test_names_that_do_not_count_the_classes_are_refused(tmp_path: Path) -> None:
    path = save_constant_model(tmp_path / "m.onnx", [np.zeros((7, 84), np.float32)], metadata={"names": "['a', 'b']"})
    with pytest.raises(ModelError, match="2 class names for 3 classes"):
        inspect_model(path)


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    path = save_constant_model(tmp_path / "m.onnx", [np.zeros((7, 84), np.float32)])
    assert inspect_model(path).class_names == ("class_0", "class_1", "class_2")


def test_no_flipped_or_missing_bytes_crash_the_onnx_reader(tmp_path: Path) -> None:
    content = save_constant_model(tmp_path / "m.onnx", [np.zeros((7, 84), np.float32)]).read_bytes()
    chance = random.Random(0)
    path = tmp_path / "hurt.onnx"
    for _ in range(400):
        hurt = bytearray(content[: chance.choice([len(content), chance.randrange(1, len(content))])])
        for _ in range(chance.randrange(4)):
            hurt[chance.randrange(min(len(hurt), 400))] = chance.randrange(256)
        path.write_bytes(bytes(hurt))
        with contextlib.suppress(ModelError):
            inspect_model(path)


def test_words_in_metadata_beside_an_ir_stay_words(tmp_path: Path) -> None:
    names = "names: {0: no, 1: on, 2: Off, 3: y, 4: 1:30, 5: 0x1F, 6: 1_000}"
    write(tmp_path / "metadata.yaml", f"date: 2026-12-01\n{names}\n")
    metadata = read_metadata_yaml(tmp_path / "metadata.yaml")
    assert class_names(metadata) == ("no", "on", "Off", "y", "1:30", "0x1F", "1_000")
    assert metadata["date"] == "2026-12-01"


def test_numbers_in_metadata_beside_an_ir_are_plain(tmp_path: Path) -> None:
    """Heads ask for whole numbers by their type: a pose model was refused for its `kpt_shape`."""
    write(
        tmp_path / "metadata.yaml", "kpt_shape: [17, 3]\nstride: 32\nscale: 1.0\nend2end: false\nnames: {0: person}\n"
    )
    metadata = read_metadata_yaml(tmp_path / "metadata.yaml")
    kinds = [type(metadata[key]) for key in ("stride", "scale", "end2end")]
    assert kinds == [int, float, bool]
    assert [type(size) for size in metadata["kpt_shape"]] == [int, int]
    assert [type(number) for number in metadata["names"]] == [int]
