"""Heads against the exporter's own postprocess, on golden tensors made by `tools/compare/compare_with_exporter.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.backends.base import TensorSpec
from engine.detection.heads.families import choose_family
from engine.detection.heads.family import Layout
from engine.detection.letterbox import fit, source_from_target

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "heads"
AUTHORS = GOLDEN.parent / "authors"
TASKS = {"yolo_pose": "pose", "yolo_obb": "obb"}


def outputs_of(golden: Any) -> np.ndarray:
    """The exporter's output: the rows that matter in their place, the others far below every threshold."""
    shape = tuple(golden["shape"])
    output = np.zeros(shape, np.float32)
    if shape[1] < 100:
        output[golden["rows"]] = golden["kept"]
    else:
        output[:, golden["rows"]] = golden["kept"]
    return output[None]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.npz")), ids=lambda path: path.stem)
def test_boxes_are_those_of_the_exporter(path: Path) -> None:
    golden = np.load(path)
    output = outputs_of(golden)
    name, size = str(golden["family"]), int(golden["size"])
    layout = Layout(
        (TensorSpec("output0", output.shape, "float32"),),
        (size, size),
        {"kpt_shape": [17, 3], "head": "RTDETRDecoder" if name.startswith("rtdetr") else ""},
        TASKS.get(name, "detect"),
        int(golden["classes"]),
    )
    family = choose_family(layout)
    assert family.name == name
    head = family.build(layout)
    height, width = golden["image_hw"].tolist()
    box = fit((width, height), (size, size), family.anchor)
    found = head.find([output], 0, float(golden["score_threshold"]))
    kept = found.rows(head.suppress(found, 0.7))

    ours = {"xyxy": source_from_target(kept.xyxy, box), "score": kept.score, "class_id": kept.class_id}
    ours |= {f"extra_{key}": column for key, column in head.extra(kept, [output], 0, box).items()}
    assert len(kept) == len(golden["score"])
    order, theirs_order = sort(ours), sort(golden)
    for column in [*ours]:
        if column in golden:
            np.testing.assert_allclose(ours[column][order], golden[column][theirs_order], atol=2e-2)


def sort(columns: Any) -> np.ndarray:
    """An order that rounding does not change: class, then position."""
    return np.lexsort((columns["xyxy"][:, 1].round(), columns["xyxy"][:, 0].round(), columns["class_id"]))


@pytest.mark.parametrize("path", sorted(AUTHORS.glob("*.npz")), ids=lambda path: path.stem)
def test_boxes_are_those_of_the_authors_postprocess(path: Path) -> None:
    """Made by `tools/compare/compare_with_authors.py`."""
    golden = np.load(path)
    outputs = [golden[f"output_{index}"] for index in range(len(golden["names"]))]
    specs = [
        TensorSpec(str(name), tuple(output.shape), output.dtype.name)
        for name, output in zip(golden["names"], outputs, strict=True)
    ]
    rows, columns = golden["size_hw"].tolist()
    layout = Layout(tuple(specs), (rows, columns), {}, "", int(golden["classes"]))
    family = choose_family(layout)
    assert family.name == str(golden["family"])
    head = family.build(layout)
    height, width = golden["image_hw"].tolist()
    box = fit((width, height), (columns, rows), family.anchor)
    found = head.find(outputs, 0, float(golden["score_threshold"]))
    found = found.rows(found.class_id >= 0)
    kept = found.rows(head.suppress(found, family.iou_threshold))
    ours = {"xyxy": source_from_target(kept.xyxy, box), "score": kept.score, "class_id": kept.class_id}
    assert len(kept) == len(golden["score"]) >= 50
    order, theirs_order = sort(ours), sort(golden)
    for column in ours:
        np.testing.assert_allclose(
            ours[column][order], golden[column][theirs_order], atol=2e-2 if column == "xyxy" else 1e-4
        )
