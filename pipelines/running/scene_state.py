"""Saves the totals of zones, lines and rules to a file, so that they survive a restart, even after `kill -9`."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.analytics.analyser import SceneAnalyser

logger = logging.getLogger(__name__)
EVERY_S = 0.25


class SceneState:
    """Writes the totals of a run to a file, atomically and at most a few times a second.

    Args:
        path: the file.
        scene: the analyser that counts.
        now_s: clock; tests replace it.
    """

    def __init__(self, path: str, scene: SceneAnalyser, now_s: Callable[[], float] = time.monotonic) -> None:
        self._path = Path(path)
        self._scene = scene
        self._now_s = now_s
        self._due_s = 0.0
        self._written: dict[str, Any] = {}
        self._is_failing = False

    def poll(self) -> None:
        """Write the file if the totals have changed and a write is due."""
        if self._now_s() >= self._due_s:
            self._due_s = self._now_s() + EVERY_S
            self.write()

    def write(self) -> None:
        """Write the file if the totals have changed; a full disk is logged once and does not end the run."""
        states = self._scene.states()
        if all(states.get(name) is state for name, state in self._written.items()) and len(states) == len(
            self._written
        ):
            return
        beside = self._path.with_name(f".{self._path.name}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(states), encoding="utf-8")
            os.replace(beside, self._path)
        except OSError as error:
            if not self._is_failing:
                logger.error(
                    "the totals cannot be written to %s (%s): a restart would restore older ones", self._path, error
                )
            self._is_failing = True
            return
        self._is_failing, self._written = False, states
