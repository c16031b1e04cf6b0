"""The file of a bag-of-words classifier: arrays in an `.npz`, read without pickle and within limits."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError

SUFFIX = ".npz"
FORMAT = "framewire-words-1"
MAX_BYTES = 256 << 20
MAX_CLASSES = 1000
MAX_SIDE = 2048
DESCRIPTOR = 128
"""Numbers of a SIFT descriptor."""
ARRAYS = ("words", "support", "weights", "bias")
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WordsModel:
    """A vocabulary and a support vector machine with a Gaussian kernel over its histograms.

    Attributes:
        class_names: by class id.
        words: (K, 128) float32, the vocabulary.
        support: (S, K) float32, histograms of the support vectors.
        weights: (S, classes) float32, one machine per class against the others.
        bias: (classes,) float32.
        gamma: of the kernel, exp(-gamma * distance²).
        scale: from distances to logits.
        longest_side: pixels to which an image is scaled before descriptors are computed.
        metadata: what training stored: data hash, scores, licence.
    """

    class_names: tuple[str, ...]
    words: Floats
    support: Floats
    weights: Floats
    bias: Floats
    gamma: float
    scale: float
    longest_side: int
    metadata: Mapping[str, str] = field(default_factory=dict)

    def probabilities(self, histograms: Floats) -> Floats:
        """Return (N, classes) float32 for (N, K) histograms."""
        squares = (histograms**2).sum(1)[:, None] + (self.support**2).sum(1)[None] - 2 * histograms @ self.support.T
        logits = (np.exp(-self.gamma * np.maximum(squares, 0)) @ self.weights + self.bias) * self.scale
        logits = np.exp(logits - logits.max(axis=1, keepdims=True))
        result: Floats = (logits / logits.sum(axis=1, keepdims=True)).astype(np.float32)
        return result


def write_words(path: Path, model: WordsModel) -> None:
    """Write the model. Raises `OSError`."""
    facts = {
        "format": FORMAT,
        "class_names": list(model.class_names),
        "gamma": model.gamma,
        "scale": model.scale,
        "longest_side": model.longest_side,
        "metadata": dict(model.metadata),
    }
    text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    np.savez_compressed(path, facts=text, **{name: getattr(model, name) for name in ARRAYS})


def read_words(path: Path) -> WordsModel:
    """Read a model; nothing in the file is executed.

    Raises:
        ModelError: the file is missing, damaged, too large, or not such a model.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise ModelError(f"{path}: {size} bytes unpacked: expected at most {MAX_BYTES}")
        with np.load(path, allow_pickle=False) as arrays:
            facts = json.loads(arrays["facts"].astype(np.uint8).tobytes())
            values = {name: arrays[name].astype(np.float32) for name in ARRAYS}
        return _checked(facts, values)
    except ModelError:
        raise
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such model file") from error
    except Exception as error:  # zipfile, zlib, tokenize and numpy fail in many ways on damaged files
        raise ModelError(f"{path}: not a bag-of-words model ({error}): train it again") from error


def _checked(facts: Any, values: Mapping[str, Floats]) -> WordsModel:
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ValueError(f"expected the format {FORMAT}")
    names = facts["class_names"]
    if not isinstance(names, list) or not 2 <= len(names) <= MAX_CLASSES:
        raise ValueError(f"expected 2 to {MAX_CLASSES} class names")
    words, support, weights, bias = (values[name] for name in ARRAYS)
    count = len(names)
    fits = words.ndim == support.ndim == weights.ndim == 2 and words.shape[1] == DESCRIPTOR
    if not fits or support.shape[1] != len(words) or weights.shape != (len(support), count) or bias.shape != (count,):
        raise ValueError("its arrays do not fit together")
    if not all(np.isfinite(array).all() for array in values.values()):
        raise ValueError("its arrays hold numbers that are not finite")
    side = int(facts["longest_side"])
    if not 16 <= side <= MAX_SIDE:
        raise ValueError(f"longest_side {side}: expected 16 to {MAX_SIDE}")
    metadata = facts.get("metadata")
    texts = {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}
    gamma, scale = float(facts["gamma"]), float(facts["scale"])
    if not (np.isfinite(gamma) and np.isfinite(scale)):
        raise ValueError("gamma or scale is not finite")
    return WordsModel(tuple(map(str, names)), words, support, weights, bias, gamma, scale, side, texts)
