"""The model that suggests boxes during labelling."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from engine.data import Frame
from engine.detection.detector import ModelDetector
from engine.detection.load import load_detector
from pipelines.build.detector import model_path
from pipelines.learning.dataset.project import Project, read_picture


class Assist:
    """Suggests boxes of the project's classes; loads the model on first use. Callable from any thread.

    Args:
        project: whose classes count.
        model: file or name; None: no suggestions.
    """

    def __init__(self, project: Project, model: str | None) -> None:
        self._project, self._model = project, model
        self._lock = threading.Lock()
        self._detector: ModelDetector | None = None

    @property
    def is_there(self) -> bool:
        """Whether there is a model."""
        return self._model is not None

    def check(self) -> list[str]:
        """Load the model and return the project's classes that it has. Raises `ModelError`."""
        with self._lock:
            detector = self._loaded()
        return [] if detector is None else [name for name in detector.class_names if name in self._project.classes]

    def suggest(self, image: Path) -> list[dict[str, Any]]:
        """Return the model's detections on an image. Nothing is written."""
        picture = read_picture(image)[1]
        with self._lock:
            detector = self._loaded()
            if detector is None:
                return []
            found = detector.detect([Frame(picture, "label", 0, 0, 0)])[0]
        height, width = picture.shape[:2]
        size = (width, height, width, height)
        rows = zip(found.class_id.tolist(), found.score.tolist(), found.xyxy.tolist(), strict=True)
        return [
            {
                "class_name": detector.class_names[class_id],
                "score": score,
                "xyxy": [min(max(value / side, 0.0), 1.0) for value, side in zip(xyxy, size, strict=True)],
                "from": "model",
            }
            for class_id, score, xyxy in rows
            if detector.class_names[class_id] in self._project.classes
        ]

    def _loaded(self) -> ModelDetector | None:
        if self._detector is None and self._model is not None:
            self._detector = load_detector(model_path(self._model), performance="latency", try_first=True)
            self._detector.open()
        return self._detector

    def close(self) -> None:
        """Free the model."""
        with self._lock:
            if self._detector is not None:
                self._detector.close()
                self._detector = None
