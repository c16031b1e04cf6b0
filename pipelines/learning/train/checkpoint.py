"""The state of a training run in `last.pt`: everything needed to continue after an interruption."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from pipelines.learning.train.options import S_PER_MIN, TrainOptions

LAST = "last.pt"


class Progress:
    """Tracks how much of the budget is used; a resumed run continues where it stopped.

    Args:
        options: with the budget.
        steps_per_epoch: images by batch.
    """

    def __init__(self, options: TrainOptions, steps_per_epoch: float) -> None:
        self._options, self._per_epoch = options, steps_per_epoch
        self.step, self.spent_s = 0, 0.0
        self._last = time.monotonic()

    def share(self) -> float:
        """Return the used share of the budget, counting the time since the last call."""
        now = time.monotonic()
        self.spent_s, self._last = self.spent_s + now - self._last, now
        if self._options.minutes is not None:
            return self.spent_s / (self._options.minutes * S_PER_MIN)
        return self.step / max(1.0, (self._options.epochs or 1.0) * self._per_epoch)

    def pause(self) -> None:
        """Do not count the time since the last call, such as that of an evaluation, or before the start."""
        self._last = time.monotonic()

    @property
    def epoch(self) -> float:
        """Epochs done."""
        return self.step / self._per_epoch


class Checkpoint:
    """Saves and restores everything that changes in a run.

    Args:
        torch: the module.
        folder: of the run.
        model: being trained.
        optimizer: of its parameters.
        progress: of the run.
        rng: numpy's generator of its choices.
    """

    def __init__(self, torch: Any, folder: Path, model: Any, optimizer: Any, progress: Progress, rng: Any) -> None:
        self._torch, self._path, self._model = torch, folder / LAST, model
        self._optimizer, self._progress, self._rng = optimizer, progress, rng

    def save(self, best: dict[str, float], order: list[int]) -> None:
        """Write the state atomically: an interruption leaves the previous one.

        Args:
            best: scores of the weights kept.
            order: the remaining images of the epoch.
        """
        state = {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self._progress.step,
            "spent_s": self._progress.spent_s,
            "best": best,
            "order": order,
            "rng": self._rng.bit_generator.state,
            "torch_rng": self._torch.get_rng_state(),
        }
        part = self._path.with_name(f"{LAST}.part")
        self._torch.save(state, part)
        part.replace(self._path)

    def load(self) -> tuple[dict[str, float], list[int]]:
        """Restore the state, and return the best scores and the rest of the epoch.

        Raises:
            ConfigError: the file is damaged, or belongs to another architecture.
        """
        try:
            state = self._torch.load(self._path, weights_only=True)
            self._model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._rng.bit_generator.state = state["rng"]
            self._torch.set_rng_state(state["torch_rng"])
            self._progress.step, self._progress.spent_s = int(state["step"]), float(state["spent_s"])
            return dict(state["best"]), [int(row) for row in state["order"]]
        except Exception as error:  # torch raises many kinds of errors
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(f"{self._path}: the run cannot be resumed ({reason}): begin a new one") from error
