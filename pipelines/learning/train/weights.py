"""Weights from checkpoints, and initial values for the new classes of a detector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.errors import ModelError


def load_state(torch: Any, path: Path) -> dict[str, Any]:
    """Return the weights of a checkpoint, without running anything in it.

    Raises:
        ModelError: it is damaged, or contains more than weights.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds of errors
        raise ModelError(f"{path}: not a checkpoint of weights ({type(error).__name__}): give a state dict") from error
    for key in ("model", "state_dict"):
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        raise ModelError(f"{path}: not a checkpoint of weights: expected tensors by name")
    return state


def fill(torch: Any, model: Any, state: dict[str, Any], path: Path) -> int:
    """Load the weights that match in name and shape; return the number of values. Raises `ModelError` below half."""
    own = model.state_dict()
    fits = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    share = sum(v.numel() for v in fits.values()) / max(sum(v.numel() for v in own.values()), 1)
    if share < 0.5:
        raise ModelError(
            f"{path}: {share:.0%} of the weights fit this architecture: the checkpoint belongs to another one"
        )
    model.load_state_dict({**own, **fits})
    return sum(value.numel() for value in fits.values())


def own_rows(total: Any) -> list[int]:
    """Return, for each new class, the base's best-fitting class; each is used once.

    Args:
        total: (new, base): how well each class of the base scores where the objects of each new class are.
    """
    rows = [-1] * total.shape[0]
    for flat in total.flatten().argsort(descending=True).tolist():
        row, column = divmod(flat, total.shape[1])
        if rows[row] < 0 and column not in rows:
            rows[row] = column
    return [max(row, 0) for row in rows]


def fill_from(model: Any, base: Any, is_class_row: Callable[[str], bool], rows: list[int]) -> None:
    """Copy a base's weights whose shapes fit, and the given rows of weights that represent classes.

    Args:
        model: to fill.
        base: the same architecture with other classes.
        is_class_row: returns, for the name of a weight, whether its first dimension is the classes.
        rows: of the base, by new class.
    """
    own = model.state_dict()
    for key, value in base.state_dict().items():
        if key in own and own[key].shape == value.shape:
            own[key] = value
        elif key in own and is_class_row(key):
            own[key] = value[rows].clone()
    model.load_state_dict(own)
