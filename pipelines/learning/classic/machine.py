"""Support vector machines and logistic regression by scikit-learn, returned as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.optional import require

FOLDS = 3
Floats = NDArray[np.float32]
STRENGTHS = [0.001, 0.01, 0.1, 1.0]
GRID = {"C": [1, 10, 30], "gamma": ["scale", 0.05]}
SCALES = np.geomspace(0.5, 32, 25)
"""Factors from distances to logits to try; the one that makes held-out answers most likely is kept."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine per class against the others.

    Attributes:
        support: (S, D) float32.
        weights: (S, classes) float32.
        bias: (classes,) float32.
        gamma: of the Gaussian kernel.
        scale: from distances to logits.
        chosen: parameters of scikit-learn.
    """

    support: Floats
    weights: Floats
    bias: Floats
    gamma: float
    scale: float
    chosen: dict[str, Any]

    def arrays(self) -> dict[str, Any]:
        """Return the numbers by name, for a graph."""
        names = ("support", "weights", "bias", "gamma", "scale")
        return {name: np.asarray(getattr(self, name), np.float32) for name in names}


def fit_machine(features: Floats, class_id: NDArray[np.int64], seed: int) -> Machine:
    """Return machines for (N, D) features and (N,) classes; cross-validation chooses their parameters."""
    selection = require("sklearn.model_selection", extra="classic")
    svm = require("sklearn.svm", extra="classic")
    folds = selection.StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    search = selection.GridSearchCV(svm.SVC(class_weight="balanced"), GRID, cv=folds).fit(features, class_id)
    values = dict(search.best_params_)
    if values["gamma"] == "scale":
        values["gamma"] = float(1 / (features.shape[1] * features.var()))

    def of_class(number: int) -> Any:
        return svm.SVC(class_weight="balanced", **values).fit(features, class_id == number)

    machines = [of_class(number) for number in range(int(class_id.max()) + 1)]
    used = np.unique(np.concatenate([one.support_ for one in machines]))
    weights = np.zeros((len(used), len(machines)), np.float32)
    for column, one in enumerate(machines):
        weights[np.searchsorted(used, one.support_), column] = one.dual_coef_[0]
    bias = np.array([one.intercept_[0] for one in machines], np.float32)
    scale = _scale(svm.SVC(decision_function_shape="ovr", class_weight="balanced", **values), features, class_id, folds)
    return Machine(features[used].astype(np.float32), weights, bias, float(values["gamma"]), scale, values)


def _scale(machine: Any, features: Floats, class_id: NDArray[np.int64], folds: Any) -> float:
    """Return the factor under which the answers on held-out folds are most likely (temperature scaling)."""
    multiclass = require("sklearn.multiclass", extra="classic")
    selection = require("sklearn.model_selection", extra="classic")
    decisions = selection.cross_val_predict(
        multiclass.OneVsRestClassifier(machine), features, class_id, cv=folds, method="decision_function"
    )
    if decisions.ndim == 1:
        decisions = np.stack((-decisions, decisions), axis=1)
    return float(min(SCALES, key=lambda scale: _surprise(decisions * scale, class_id)))


def _surprise(logits: NDArray[np.float64], class_id: NDArray[np.int64]) -> float:
    """Return the mean negative log likelihood of the true classes."""
    logits = logits - logits.max(axis=1, keepdims=True)
    likely = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return float(-likely[np.arange(len(class_id)), class_id].mean())


@dataclass(frozen=True, slots=True)
class Linear:
    """A logistic regression.

    Attributes:
        weights: (D, classes) float32.
        bias: (classes,) float32.
        accuracy: of cross-validation, the mean over the folds.
        chosen: parameters of scikit-learn.
    """

    weights: Floats
    bias: Floats
    accuracy: float
    chosen: dict[str, Any]


def fit_linear(features: Floats, class_id: NDArray[np.int64], seed: int) -> Linear:
    """Return a logistic regression on (N, D) features, its strength chosen by cross-validation."""
    linear = require("sklearn.linear_model", extra="classic")
    selection = require("sklearn.model_selection", extra="classic")
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    folds = selection.StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    model = linear.LogisticRegression(max_iter=2000, class_weight="balanced")
    search = selection.GridSearchCV(model, {"C": STRENGTHS}, cv=folds).fit((features - mean) / spread, class_id)
    weights, bias = search.best_estimator_.coef_, search.best_estimator_.intercept_
    if len(weights) == 1:  # for two classes, scikit-learn stores only the second
        weights, bias = np.concatenate((-weights, weights)) / 2, np.concatenate((-bias, bias)) / 2
    scaled = (weights / spread).T.astype(np.float32)
    shifted = (bias - mean @ scaled).astype(np.float32)
    return Linear(scaled, shifted, float(search.best_score_), dict(search.best_params_))
