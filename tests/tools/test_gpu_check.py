"""The GPU check without a GPU: it says why it cannot run; its report and comparisons work on their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_check import Report, frames, full_hd, main, overlap

from engine.backends.tensorrt import unusable_reason
from engine.data import Detections


def test_without_a_gpu_it_says_why_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    reason = unusable_reason()
    if reason is None:
        pytest.skip("TensorRT is usable here")
    assert main(["--model", "yolov8n.onnx", "--output", str(tmp_path)]) == 1
    assert f"TensorRT cannot run here: {reason}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_one_failed_check_does_not_hide_the_others():
    report = Report()
    report.run("breaks", lambda: {}["missing"])
    report.run("misses its aim", lambda: {"failed": True, "value": 3})
    report.run("holds", lambda: {"table": [{"batch": 1, "fps": 100.0}, {"batch": 8, "fps": 700.0}], "note": "n"})
    assert [finding.verdict for finding in report.findings] == ["failed", "failed", "ok"]
    assert not report.held
    page = report.markdown()
    assert "## breaks: failed" in page
    assert "KeyError" in page
    assert "| batch | fps |" in page
    assert "| 8 | 700.0 |" in page


def test_the_overlap_is_of_confident_boxes_of_one_class():
    reference = Detections([[0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 5, 5]], [0.9, 0.9, 0.3], [0, 1, 0])
    found = Detections([[0, 0, 10, 5], [20, 0, 30, 10]], [0.9, 0.9], [0, 0])
    assert overlap(reference, found) == [0.5, 0.0]
    assert overlap(reference, Detections.empty()) == [0.0, 0.0]


def test_frames_are_full_hd_or_pictures_of_a_folder(tmp_path: Path):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), full_hd(1)[0].image[:48, :64])
    (tmp_path / "notes.txt").write_text("no picture")
    assert [(frame.width, frame.height) for frame in (*full_hd(1), *frames(tmp_path))] == [(1920, 1080), (64, 48)]
