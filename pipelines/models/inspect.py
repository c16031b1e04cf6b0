"""The contents of a model file, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.backends.base import BackendOptions
from engine.backends.resize import SizeChange
from engine.backends.select import BACKENDS, why_not, why_not_size, why_slow
from engine.backends.trial import why_not_tried
from engine.detection.classify import inspect_classifier
from engine.detection.input_size.shapes import USUAL_ASPECT, is_size_open, rectangle, why_not_rectangular
from engine.detection.model import ModelFacts, inspect_model
from engine.detection.words.file import SUFFIX, read_words
from engine.errors import ModelError
from engine.paths import path_from_text
from pipelines.build.detector import NOT_OF_CLASSIFIERS, model_path

MADE = "framewire_"


def describe(model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return tensors, head, classes, precision and usable backends of a model file.

    Args:
        model: file or folder, or `demo`.
        given: facts that the file does not state, as for `engine.detection.model.inspect_model`.

    Raises:
        ModelError: the model is broken, or not a detector of a known kind.
    """
    if model.lower().endswith(SUFFIX):
        return _words(path_from_text(model))
    try:
        facts = inspect_model(model_path(model), **given)
    except ModelError as error:
        return _classifier(model, given, error)
    file = facts.file
    reasons = {name: why_not(name, file.path) for name in BACKENDS}
    return {
        "model": facts.name,
        "format": file.format,
        "size_mb": round(file.size_bytes / 1e6, 2),
        "precision": file.precision,
        "task": facts.task,
        "head": facts.family.name,
        "inputs": [str(spec) for spec in file.inputs],
        "outputs": [str(spec) for spec in file.outputs],
        "image_size": _size(facts.size_hw),
        "batch": facts.batch or "any",
        "stride": facts.stride,
        "classes": len(facts.class_names),
        "class_names": list(facts.class_names),
        **_made(file.metadata),
        "backends": {name: reason or _usable(name, file.path) for name, reason in reasons.items()},
        "rectangle": _rectangle(facts, [name for name, reason in reasons.items() if reason is None]),
    }


def _usable(backend: str, path: Path) -> str:
    drawback = why_slow(backend, path)
    return "usable" if drawback is None else f"usable, but {drawback}"


def _rectangle(facts: ModelFacts, usable: Sequence[str]) -> str | dict[str, str]:
    """Return the model's size with `size: auto` for 16:9 frames, or why it stays at its own size, by backend."""
    if (reason := why_not_rectangular(facts)) is not None:
        return f"stays {_size(facts.size_hw)}: {reason}"
    size_hw = rectangle(USUAL_ASPECT, facts)
    fits = f"{_size(size_hw)} for frames of 16:9"
    if is_size_open(facts):
        return fits
    change = SizeChange(facts.size_hw, size_hw)
    options = BackendOptions(image=facts.image)
    reasons = {
        name: why_not_tried(name, facts.path, options) or why_not_size(name, facts.path, change) for name in usable
    }
    stays = f"stays {_size(facts.size_hw)}"
    return {name: fits if reason is None else f"{stays}: {reason}" for name, reason in reasons.items()}


def _size(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]} x {size_hw[0]}"


def _classifier(model: str, given: Mapping[str, Any], refusal: ModelError) -> dict[str, Any]:
    """Return the facts of a classification model, or raise the reason why the model is not a detector."""
    if not given.keys().isdisjoint(NOT_OF_CLASSIFIERS):
        raise refusal
    try:
        facts = inspect_classifier(model_path(model), **given)
    except ModelError:
        raise refusal from None
    file = facts.file
    return {
        "model": file.path.name,
        "format": file.format,
        "size_mb": round(file.size_bytes / 1e6, 2),
        "precision": file.precision,
        "task": "classify (for second_stage.model)",
        "inputs": [str(spec) for spec in file.inputs],
        "outputs": [str(spec) for spec in file.outputs],
        "classes": len(facts.class_names),
        "class_names": list(facts.class_names),
        **_made(file.metadata),
    }


def _made(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that training and release stored in the file, under `made`; empty for other files."""
    made = {key.removeprefix(MADE): str(value) for key, value in metadata.items() if key.startswith(MADE)}
    return {"made": made} if made else {}


def _words(path: Path) -> dict[str, Any]:
    """Return the facts of a bag-of-words classifier."""
    model = read_words(path)
    return {
        "model": path.name,
        "format": "npz",
        "size_mb": round(path.stat().st_size / 1e6, 2),
        "task": "classify (for second_stage.model)",
        "words": len(model.words),
        "classes": len(model.class_names),
        "class_names": list(model.class_names),
        "trained": dict(model.metadata),
    }
