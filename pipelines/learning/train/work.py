"""The child process of `framewire train`: one run, or a search over short ones."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.optional import require
from pipelines.learning.child import Fields, Tell
from pipelines.learning.train.classifiers import train_classifier
from pipelines.learning.train.loop import train_detector
from pipelines.learning.train.options import ULTRALYTICS, TrainOptions, options_from
from pipelines.learning.train.ultralytics import train_ultralytics

SEARCH_SHARE = 0.5
"""Share of the budget that all trials of a search may use together."""
LEAST_MINUTES = 0.02


def train_here(request: Fields, tell: Tell) -> Fields:
    """Train in this process; with `trials` in the request, search first."""
    options = options_from(request["options"])
    listing = json.loads(Path(request["listing"]).read_text(encoding="utf-8"))
    if request.get("trials"):
        options = _searched(request, listing, options, tell)
    result = _train(request, listing, options, tell)
    return {**result, "options": options.as_dict()}


def _train(request: Fields, listing: Fields, options: TrainOptions, tell: Tell) -> Fields:
    if options.arch in ULTRALYTICS:
        return train_ultralytics(request, listing, options, tell)
    return (train_detector if options.is_detector else train_classifier)(request, listing, options, tell)


def _searched(request: Fields, listing: Fields, options: TrainOptions, tell: Tell) -> TrainOptions:
    """Return the options whose short run scored best.

    The study stays in the run's folder, and continues when resumed.
    """
    optuna = require("optuna", extra="train")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder, trials = Path(request["folder"]), int(request["trials"])
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'search.sqlite'}",
        study_name="framewire",
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=options.seed),
    )
    part = _short(options, trials)

    def objective(trial: Any) -> float:
        chosen = _suggested(trial, part)
        place = folder / "search" / str(trial.number)
        place.mkdir(parents=True, exist_ok=True)
        try:
            result = _train({**request, "folder": str(place), "resume": False}, listing, chosen, lambda fields: None)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        score = float(result["val"].get("map50_95", result["val"].get("accuracy", 0.0)))
        tell({"note": f"trial {trial.number + 1} of {trials}: {trial.params} scores {score:.3f}"})
        return score

    done = sum(trial.state.is_finished() for trial in study.trials)
    study.optimize(objective, n_trials=max(0, trials - done))
    minutes = None if options.minutes is None else options.minutes * (1 - SEARCH_SHARE)
    return replace(_suggested(optuna.trial.FixedTrial(study.best_params), options), minutes=minutes)


def _short(options: TrainOptions, trials: int) -> TrainOptions:
    if options.minutes is not None:
        return replace(options, minutes=max(LEAST_MINUTES, options.minutes * SEARCH_SHARE / trials))
    return replace(options, epochs=max(1.0, (options.epochs or 1.0) / 4))


def _suggested(trial: Any, options: TrainOptions) -> TrainOptions:
    """Return the options with the learning rate, zoom and frozen part that a trial suggests."""
    lr = trial.suggest_float("lr", 1e-4, 2e-3, log=True)
    if not options.is_detector:
        return replace(options, lr=lr)
    zoom = trial.suggest_float("zoom", 1.0, 1.6)
    freeze = trial.suggest_categorical("freeze", ["none", "backbone"])
    augment = replace(options.augment, scale=(1 / zoom, zoom))
    return replace(options, lr=lr, freeze=freeze, augment=augment)
