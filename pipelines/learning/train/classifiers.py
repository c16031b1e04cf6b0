"""The training loop of classifiers, plain, with noise, or against an attacker."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.learning.child import Fields, Tell, torch_for_training
from pipelines.learning.testing.attack import pgd
from pipelines.learning.train.augment import read_square
from pipelines.learning.train.checkpoint import LAST, Checkpoint, Progress
from pipelines.learning.train.loop import EVALUATIONS, LEAST_RATE, TELL_EVERY_S, WARM_STEPS, add_row
from pipelines.learning.train.models import make_classifier
from pipelines.learning.train.options import TrainOptions
from pipelines.learning.train.restore import export

ATTACK_STEPS = 5
VAL_BATCH = 64
NEW_RATE = 7.0
RATE_FROM_SCRATCH = 2e-3


def train_classifier(request: Fields, listing: Fields, options: TrainOptions, tell: Tell) -> Fields:
    """Train a classifier in this process and write `weights.pt`, `curves.csv` and `model.onnx`.

    Returns:
        steps, seconds, and the best accuracy on the validation part.
    """
    torch = torch_for_training()
    torch.manual_seed(options.seed)
    rng, folder = np.random.default_rng(options.seed), Path(request["folder"])
    model, size = make_classifier(torch, options, len(listing["class_names"]))
    parts = [_pictures(torch, listing[part], size) for part in ("train", "val")]
    run = _Run(torch, model, options, parts, rng, folder)
    if request.get("resume") and (folder / LAST).is_file():
        run.resume()
    run.go(tell)
    model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    wrapped = torch.nn.Sequential(model, torch.nn.Softmax(dim=1)).eval()
    export(torch, wrapped, folder / "model.onnx", size, ("probabilities",), open_batch=True)
    return {"steps": run.progress.step, "seconds": round(run.progress.spent_s, 1), "size": size, "val": run.best}


class _Run:
    """One training run: its state is the content of `last.pt`."""

    def __init__(
        self, torch: Any, model: Any, options: TrainOptions, parts: list[tuple[Any, Any]], rng: Any, folder: Path
    ) -> None:
        self._torch, self._model, self._options, self._parts = torch, model, options, parts
        self._rng, self._folder = rng, folder
        self.progress = Progress(options, len(parts[0][1]) / options.batch)
        self.best: dict[str, float] = {"accuracy": -1.0}
        self._optimizer = torch.optim.AdamW(_groups(model, options), weight_decay=1e-4)
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._checkpoint = Checkpoint(torch, folder, model, self._optimizer, self.progress, rng)
        self._losses: list[float] = []

    def resume(self) -> None:
        """Continue from `last.pt`. Raises `ConfigError` if it does not fit."""
        self.best, _ = self._checkpoint.load()

    def go(self, tell: Tell) -> None:
        """Train until the budget is used."""
        self.progress.pause()
        share = self.progress.share()
        evaluated, told = math.floor(share * EVALUATIONS), 0.0
        while share < 1:
            self._step(share)
            share = self.progress.share()
            news: dict[str, Any] = {}
            if share >= 1 or math.floor(share * EVALUATIONS) > evaluated:
                evaluated = math.floor(share * EVALUATIONS)
                news = self._evaluate()
            if news or time.monotonic() - told > TELL_EVERY_S:
                told = time.monotonic()
                tell({"done": min(share, 1.0), "step": self.progress.step, **news})

    def _step(self, share: float) -> None:
        images, truth = self._parts[0]
        count = min(self._options.batch, len(truth))
        rows = self._torch.from_numpy(self._rng.choice(len(truth), count, replace=False))
        rate = min(1.0, (self.progress.step + 1) / WARM_STEPS) * max(LEAST_RATE, 1 - share)
        for group, base in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = base * rate
        pixels = _changed(self._torch, images[rows], self._options)
        self._losses.append(_step(self._torch, self._model, self._optimizer, pixels, truth[rows], self._options))
        self.progress.step += 1

    def _evaluate(self) -> dict[str, float]:
        """Score the validation part, keep the best weights, save the state, and add a row to the curves."""
        scores = {"accuracy": _accuracy(self._torch, self._model, *self._parts[1])}
        if scores["accuracy"] >= self.best["accuracy"]:
            self.best = dict(scores)
            self._torch.save(self._model.state_dict(), self._folder / "weights.pt")
        self._checkpoint.save(self.best, [])
        add_row(self._folder, self.progress, {"loss": round(float(np.mean(self._losses)), 4), **scores})
        self._losses = []
        self.progress.pause()
        return scores


def _pictures(torch: Any, entries: list[dict[str, Any]], size: int) -> tuple[Any, Any]:
    images = np.stack([read_square(entry["image"], size)[0] for entry in entries])
    return torch.from_numpy(images), torch.tensor([entry["class_id"] for entry in entries])


def _groups(model: Any, options: TrainOptions) -> list[dict[str, Any]]:
    """Return the parameters with their learning rates: a new last layer learns faster; a fresh model uses one rate."""
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    if options.base is None:
        return [{"params": [value for _, value in named], "lr": max(options.lr, RATE_FROM_SCRATCH)}]
    fresh = [value for name, value in named if ".fc." in f".{name}"]
    rest = [value for name, value in named if ".fc." not in f".{name}" and options.freeze == "none"]
    groups = [{"params": fresh, "lr": options.lr * NEW_RATE}]
    return groups + ([{"params": rest, "lr": options.lr}] if rest else [])


def _changed(torch: Any, images: Any, options: TrainOptions) -> Any:
    """Return images from 0 to 1, shifted, and mirrored where allowed."""
    pixels = images.float() / 255
    shift = max(1, round(options.augment.translate * pixels.shape[-1]))
    if options.augment.translate:
        down, right = (int(value) for value in torch.randint(-shift, shift + 1, (2,)))
        padded = torch.nn.functional.pad(pixels, (shift,) * 4, mode="replicate")
        height, width = pixels.shape[2:]
        pixels = padded[:, :, shift + down : shift + down + height, shift + right : shift + right + width]
    mirrored = torch.rand(len(pixels)) < options.augment.flip
    return torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)


def _step(torch: Any, model: Any, optimizer: Any, pixels: Any, truth: Any, options: TrainOptions) -> float:
    if options.robust == "noise":
        pixels = pixels + torch.randn_like(pixels) * options.epsilon
    elif options.robust == "adversarial":
        model.eval()
        attacked = pgd(torch, model, pixels, truth, options.epsilon, ATTACK_STEPS)
        pixels, truth = torch.cat((pixels, attacked)), torch.cat((truth, truth))
    model.train()
    loss = torch.nn.functional.cross_entropy(model(pixels), truth)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def _accuracy(torch: Any, model: Any, images: Any, truth: Any) -> float:
    model.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, len(truth), VAL_BATCH):
            found = model(images[start : start + VAL_BATCH].float() / 255).argmax(1)
            right += int((found == truth[start : start + VAL_BATCH]).sum())
    return round(right / len(truth), 4)
