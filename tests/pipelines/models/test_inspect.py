from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.backends.select import why_not
from pipelines.models.inspect import describe
from tests.detection.test_shapes import SIDE, save_cells


@pytest.mark.parametrize(
    ("extra", "given", "message"),
    [
        pytest.param(None, {"size": SIDE}, "64 x 32 for frames of 16:9", id="can"),
        pytest.param(None, {"letterbox": "stretch"}, "stays 64 x 64: frames are stretched", id="stretched"),
        pytest.param(np.random.default_rng(1).random((1, 3, SIDE, SIDE)), {}, "stays 64 x 64: ", id="of one size"),
    ],
)
def test_it_is_said_at_which_size_frames_of_a_camera_run_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: np.ndarray | None, given: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("pipelines.models.inspect.USUAL_ASPECT", (64, 20))  # 16:9 of 64 pixels needs all rows
    model = save_cells(tmp_path / "m.onnx", extra=None if extra is None else extra.astype(np.float32))
    told = describe(str(model), given)["rectangle"]
    if isinstance(told, str):
        assert message in told
        return
    usable = [name for name in ("openvino", "onnxruntime") if why_not(name) is None]
    assert [name for name in told if name in usable] == usable
    for name in usable:
        assert message in told[name]
