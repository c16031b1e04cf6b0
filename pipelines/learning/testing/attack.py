"""Projected gradient descent (Madry et al. 2018): finds the worst small change of the pixels by following gradients."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.detection.classify import centre_crop, inspect_classifier
from engine.errors import ConfigError, ModelError
from pipelines.learning.child import Fields, Tell, run_in_child, torch_for_training

STEPS = 10
MAX_PICTURES = 500
BATCH = 50
Image = NDArray[np.uint8]


def parse_share(text: str) -> float:
    """Return the largest change of a pixel as a share of its range, from `4/255` or `0.016`.

    Raises:
        ConfigError: it is not above 0 and at most 1.

    >>> round(parse_share("4/255"), 4)
    0.0157
    """
    above, _, below = text.partition("/")
    try:
        share = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        share = 0.0
    if not 0 < share <= 1:
        raise ConfigError(f"{text!r}: expected the largest change of a pixel, such as 4/255")
    return share


def attack(
    model: Path, images: Sequence[Image], truth: NDArray[np.int64], epsilon: float, *, whole: bool = False
) -> dict[str, Any]:
    """Return the accuracy of an ONNX classifier before and under attack; at most 500 images, evenly chosen.

    Args:
        model: the ONNX file.
        images: (H, W, 3) uint8 BGR each.
        truth: (N,) class ids.
        epsilon: largest change of a pixel, as a share of its range.
        whole: crop the middle as for whole frames, instead of scaling.

    Raises:
        ModelError: the file is not ONNX, or has operators without gradients.
        MissingDependencyError: torch is not installed.
    """
    if model.suffix.lower() != ".onnx":
        raise ModelError(f"{model}: an attack needs the gradients of an ONNX file: this file has none")
    size_hw = inspect_classifier(model).image.size_hw
    rows = np.unique(np.linspace(0, len(images) - 1, min(len(images), MAX_PICTURES)).round().astype(int)).tolist()

    def fed(image: Image) -> Image:
        return centre_crop(image, size_hw) if whole else np.asarray(cv2.resize(image, size_hw[::-1]), np.uint8)

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "pictures.npz"
        np.savez(data, images=np.stack([fed(images[row]) for row in rows]), truth=truth[rows])
        return run_in_child("attack", {"model": str(model), "data": str(data), "epsilon": epsilon})


def attack_here(request: Fields, tell: Tell) -> Fields:
    """Run the attack in this process, which has torch."""
    torch = torch_for_training()
    from pipelines.learning.testing.torch_graph import TorchGraph

    torch.manual_seed(0)
    path, epsilon = Path(request["model"]), float(request["epsilon"])
    facts, graph = inspect_classifier(path), TorchGraph(path)
    with np.load(request["data"], allow_pickle=False) as data:
        images, truth = torch.from_numpy(data["images"]), torch.from_numpy(data["truth"])
    shape = (1, 3, 1, 1)
    mean, std = (torch.tensor(values).reshape(shape) / 255 for values in (facts.image.mean, facts.image.std))

    def answer(pixels: Any) -> Any:
        """Return log probabilities for (b, 3, h, w) BGR from 0 to 1."""
        ordered = pixels.flip(1) if facts.image.color == "rgb" else pixels
        fed = (ordered - mean) / std
        output = graph(fed if facts.image.layout == "nchw" else fed.permute(0, 2, 3, 1))
        return (output + 1e-12).log() if facts.is_probability else output.log_softmax(1)

    clean = attacked = 0
    step = facts.batch or BATCH
    for start in range(0, len(truth) - len(truth) % step if facts.batch else len(truth), step):
        pixels = images[start : start + step].permute(0, 3, 1, 2).float() / 255
        wanted = truth[start : start + step]
        clean += int((answer(pixels).argmax(1) == wanted).sum())
        changed = pgd(torch, answer, pixels, wanted, epsilon)
        attacked += int((answer(changed).argmax(1) == wanted).sum())
        tell({"done": start + len(wanted), "of": len(truth)})
    count = len(truth)
    figures = {"accuracy": round(clean / count, 4), "attacked": round(attacked / count, 4)}
    return {"epsilon": round(epsilon, 5), "steps": STEPS, "pictures": count, **figures}


def pgd(torch: Any, answer: Any, pixels: Any, truth: Any, epsilon: float, steps: int = STEPS) -> Any:
    """Return pixels from 0 to 1, within `epsilon` of the given ones, for which the true class is least likely.

    Args:
        torch: the module.
        answer: maps (b, 3, h, w) from 0 to 1 to (b, classes) log probabilities or logits.
        pixels: to change.
        truth: (b,) classes.
        epsilon: largest change.
        steps: of the ascent.
    """
    changed = (pixels + torch.empty_like(pixels).uniform_(-epsilon, epsilon)).clamp(0, 1)
    for _ in range(steps):
        changed.requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(answer(changed), truth)
        (slope,) = torch.autograd.grad(loss, changed)
        moved = changed.detach() + 2.5 * epsilon / steps * slope.sign()
        changed = torch.minimum(torch.maximum(moved, pixels - epsilon), pixels + epsilon).clamp(0, 1)
    return changed.detach()
