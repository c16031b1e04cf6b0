"""The training loop of detectors: short, with the batch norms of a pretrained base frozen, and resumable."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from engine.data import Detections
from pipelines.learning.child import Fields, Tell, torch_for_training
from pipelines.learning.testing.matching import Objects, match, mean_average_precision
from pipelines.learning.train.augment import Samples
from pipelines.learning.train.checkpoint import LAST, Checkpoint, Progress
from pipelines.learning.train.models import make_detector
from pipelines.learning.train.options import TrainOptions

WARM_STEPS = 10
LEAST_RATE = 0.05
CLIP = 0.1
EVALUATIONS = 6
VAL_PICTURES = 64
PROBES = 24
TELL_EVERY_S = 2.0


def train_detector(request: Fields, listing: Fields, options: TrainOptions, tell: Tell) -> Fields:
    """Train a detector in this process and write `weights.pt`, `last.pt`, `curves.csv` and `model.onnx`.

    Returns:
        steps, seconds, and the best scores on the validation part.

    Raises:
        ConfigError: an image cannot be read.
        ModelError: the base does not fit.
    """
    torch = torch_for_training()
    torch.manual_seed(options.seed)
    rng, folder = np.random.default_rng(options.seed), Path(request["folder"])
    arch = make_detector(torch, options, listing["class_names"])
    train = Samples(torch, listing["train"], arch.size, options.augment, rng, arch.anchor)
    val = Samples(torch, listing["val"][:VAL_PICTURES], arch.size, None, rng, arch.anchor)
    resumes = bool(request.get("resume")) and (folder / LAST).is_file()
    if options.base is not None and not resumes:
        rows = rng.permutation(len(train))[:PROBES].tolist()
        tell({"note": arch.load_base(Path(options.base), [train.plain(row) for row in rows])})
    run = _Run(torch, arch, options, train, val, rng, folder)
    if resumes:
        run.resume()
    run.go(tell)
    arch.model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    arch.model.eval()
    arch.export(folder / "model.onnx")
    return {"steps": run.progress.step, "seconds": round(run.progress.spent_s, 1), "size": arch.size, "val": run.best}


class _Run:
    """One training run: its state is the content of `last.pt`."""

    def __init__(
        self, torch: Any, arch: Any, options: TrainOptions, train: Samples, val: Samples, rng: Any, folder: Path
    ) -> None:
        self._torch, self._arch, self._options = torch, arch, options
        self._train, self._val, self._rng, self._folder = train, val, rng, folder
        self.progress = Progress(options, len(train) / options.batch)
        self.best: dict[str, float] = {"map50": -1.0, "map50_95": -1.0}
        self._optimizer = torch.optim.AdamW(arch.groups(options.lr), weight_decay=1e-4)
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._checkpoint = Checkpoint(torch, folder, arch.model, self._optimizer, self.progress, rng)
        self._order: list[int] = []
        self._losses: list[float] = []

    def resume(self) -> None:
        """Continue from `last.pt`. Raises `ConfigError` if it does not fit."""
        self.best, self._order = self._checkpoint.load()

    def go(self, tell: Tell) -> None:
        """Train until the budget is used."""
        if self._options.base is not None and not self.progress.step:
            tell({"note": f"before training: {self._evaluate()}"})  # what training has to beat
        self.progress.pause()
        share = self.progress.share()
        evaluated = math.floor(share * EVALUATIONS)
        told = 0.0
        while share < 1:
            loss = self._step(share)
            self._losses.append(loss)
            share = self.progress.share()
            if time.monotonic() - told > TELL_EVERY_S:
                told = time.monotonic()
                tell({"done": min(share, 1.0), "step": self.progress.step, "loss": round(loss, 3)})
            if math.floor(min(share, 1.0) * EVALUATIONS) > evaluated:
                evaluated = math.floor(share * EVALUATIONS)
                tell({"done": min(share, 1.0), "step": self.progress.step, "loss": round(loss, 3), **self._evaluate()})
        if self.best["map50_95"] < 0:
            self._evaluate()

    def _step(self, share: float) -> float:
        torch, model = self._torch, self._arch.model
        model.train()
        if self._arch.freezes_norms:
            for module in model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()
        rate = min(1.0, (self.progress.step + 1) / WARM_STEPS) * max(LEAST_RATE, 1 - share)
        for group, base in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = base * rate
        samples = [self._train[row] for row in self._rows()]
        loss = self._arch.loss(torch.stack([image for image, _ in samples]), [boxes for _, boxes in samples])
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        self._optimizer.step()
        self.progress.step += 1
        return float(loss.detach())

    def _rows(self) -> list[int]:
        while len(self._order) < self._options.batch:
            self._order += self._rng.permutation(len(self._train)).tolist()
        rows, self._order = self._order[: self._options.batch], self._order[self._options.batch :]
        return rows

    def _evaluate(self) -> dict[str, float]:
        """Score the validation part, keep the best weights, save the state, and add a row to the curves."""
        torch, model = self._torch, self._arch.model
        model.eval()
        found, truth, classes = [], [], 1
        with torch.no_grad():
            for row in range(len(self._val)):
                image, boxes = self._val.plain(row)
                [(xyxy, score, class_id)] = self._arch.find(image[None])
                size = self._arch.size
                found.append(Detections(xyxy.numpy() * size, score.numpy(), class_id.numpy()))
                centre, half = boxes[:, 1:3].numpy(), boxes[:, 3:].numpy() / 2
                wanted = np.concatenate((centre - half, centre + half), axis=1) * size
                ids = boxes[:, 0].numpy().astype(np.int32)
                truth.append(Objects(wanted, ids, np.zeros(len(ids), bool)))
                classes = max(classes, 1 + max(ids.max(initial=0), int(class_id.max()) if len(class_id) else 0))
        map50, map50_95 = mean_average_precision(match(found, truth, classes))
        scores = {"map50": round(float(np.nan_to_num(map50)), 4), "map50_95": round(float(np.nan_to_num(map50_95)), 4)}
        if scores["map50_95"] >= self.best["map50_95"]:
            self.best = scores
            torch.save(model.state_dict(), self._folder / "weights.pt")
        self._checkpoint.save(self.best, self._order)
        loss = float(np.mean(self._losses)) if self._losses else float("nan")
        self._losses = []
        add_row(self._folder, self.progress, {"loss": round(loss, 4), **scores})
        self.progress.pause()
        return scores


def add_row(folder: Path, progress: Progress, values: dict[str, float]) -> None:
    """Add a row to `curves.csv`."""
    path = folder / "curves.csv"
    row = {"step": progress.step, "epoch": round(progress.epoch, 3), "seconds": round(progress.spent_s, 1), **values}
    is_new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)
