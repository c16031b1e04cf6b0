"""The training loop of classifiers, plain, with noise, or against an attacker."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.learning.child import Fields, Tell, torch_on_one_thread
from pipelines.learning.testing.attack import pgd
from pipelines.learning.train.augment import read_square
from pipelines.learning.train.loop import EVALUATIONS, LEAST_RATE, TELL_EVERY_S, WARM_STEPS, Progress, add_row
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
    torch = torch_on_one_thread()
    torch.manual_seed(options.seed)
    rng, folder = np.random.default_rng(options.seed), Path(request["folder"])
    model, size = make_classifier(torch, options, len(listing["class_names"]))
    parts = [_pictures(torch, listing[part], size) for part in ("train", "val")]
    progress = Progress(options, len(parts[0][1]) / options.batch)
    optimizer = torch.optim.AdamW(_groups(model, options), weight_decay=1e-4)
    rates = [group["lr"] for group in optimizer.param_groups]
    best, losses, evaluated, told, share = {"accuracy": -1.0}, [], 0, 0.0, 0.0
    progress.pause()
    while share < 1:
        rows = torch.from_numpy(rng.choice(len(parts[0][1]), min(options.batch, len(parts[0][1])), replace=False))
        rate = min(1.0, (progress.step + 1) / WARM_STEPS) * max(LEAST_RATE, 1 - share)
        for group, base in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = base * rate
        losses.append(
            _step(torch, model, optimizer, _changed(torch, parts[0][0][rows], options), parts[0][1][rows], options)
        )
        progress.step += 1
        share = progress.share()
        news: dict[str, Any] = {}
        if share >= 1 or math.floor(share * EVALUATIONS) > evaluated:
            evaluated = math.floor(share * EVALUATIONS)
            news = {"accuracy": _accuracy(torch, model, *parts[1])}
            if news["accuracy"] >= best["accuracy"]:
                best = dict(news)
                torch.save(model.state_dict(), folder / "weights.pt")
            add_row(folder, progress, {"loss": round(float(np.mean(losses)), 4), **news})
            losses = []
            progress.pause()
        if news or time.monotonic() - told > TELL_EVERY_S:
            told = time.monotonic()
            tell({"done": min(share, 1.0), "step": progress.step, **news})
    model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    wrapped = torch.nn.Sequential(model, torch.nn.Softmax(dim=1)).eval()
    export(torch, wrapped, folder / "model.onnx", size, ("probabilities",), open_batch=True)
    return {"steps": progress.step, "seconds": round(progress.spent_s, 1), "size": size, "val": best}


def _pictures(torch: Any, entries: list[dict[str, Any]], size: int) -> tuple[Any, Any]:
    images = np.stack([read_square(entry["image"], size)[0] for entry in entries])
    return torch.from_numpy(images), torch.tensor([entry["class_id"] for entry in entries])


def _groups(model: Any, options: TrainOptions) -> list[dict[str, Any]]:
    """Return the parameters with their rates: a new last layer learns faster, all of a fresh model alike."""
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    if options.base is None:
        return [{"params": [value for _, value in named], "lr": max(options.lr, RATE_FROM_SCRATCH)}]
    fresh = [value for name, value in named if ".fc." in f".{name}"]
    rest = [value for name, value in named if ".fc." not in f".{name}" and options.freeze == "none"]
    groups = [{"params": fresh, "lr": options.lr * NEW_RATE}]
    return groups + ([{"params": rest, "lr": options.lr}] if rest else [])


def _changed(torch: Any, images: Any, options: TrainOptions) -> Any:
    """Return pictures from 0 to 1: shifted, and mirrored where that is allowed."""
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
