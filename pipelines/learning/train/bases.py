"""The pretrained models that training can start from; files that cannot be trained are rejected with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.catalogue import CATALOGUE, find_named, why_missing
from engine.errors import ConfigError
from pipelines.learning.train.options import OWN_DETECTORS, ULTRALYTICS

DEFAULT_ARCH = "deimv2-femto"
COMPILED: Mapping[str, str] = {
    ".plan": "a TensorRT plan",
    ".engine": "a TensorRT plan",
    ".xml": "an OpenVINO model",
    ".bin": "an OpenVINO model",
    ".tflite": "a TFLite model",
    ".hef": "a model compiled for Hailo",
    ".npz": "words of SIFT",
}
"""Kinds of files that cannot be trained, by suffix."""
ONNX, CHECKPOINTS = ".onnx", (".pt", ".pth")


def arch_of(arch: str | None, base: str | None) -> str:
    """Return the architecture to train: the given one, that of a named base, or the default."""
    if arch is not None:
        return arch
    return base if base in OWN_DETECTORS else DEFAULT_ARCH


def base_file(base: str | None, arch: str) -> str | None:
    """Return the file to begin with; None: from scratch.

    Args:
        base: a name or a file; `none`: nothing; None: the architecture's own model, if it is on this machine.
        arch: the architecture.

    Raises:
        ConfigError: the model with that name cannot be trained, or is not on this machine yet.
    """
    if base is None:
        own = find_named(arch) if arch in OWN_DETECTORS else None
        return None if own is None else str(own)
    if base == "none":
        return None
    if Path(base).exists() or Path(base).suffix:
        return base
    if base in ULTRALYTICS:
        raise ConfigError(f"--base {base}: give Ultralytics' checkpoint: --arch {base} --base {base}.pt")
    if base in CATALOGUE and base not in OWN_DETECTORS:
        known = ", ".join(name for name in OWN_DETECTORS if name in CATALOGUE)
        raise ConfigError(
            f"--base {base}: it cannot be trained, because --arch does not offer its architecture: "
            f"expected one of {known}, or a file"
        )
    found = find_named(base)
    if found is None:
        raise ConfigError(f"--base {base}: {why_missing(base) or 'no such file, and no model of that name'}")
    return str(found)


def refuse(arch: str, base: str | None) -> None:
    """Raise `ConfigError` if a base cannot be trained, before anything is loaded.

    Args:
        arch: the architecture.
        base: path of the file; None: from scratch.
    """
    if base is None:
        return
    suffix = Path(base).suffix.lower()
    if suffix in COMPILED or Path(base).is_dir():
        kind = COMPILED.get(suffix, "a folder")
        raise ConfigError(f"{base}: {kind} cannot be trained: give the ONNX file or checkpoint that it was made from")
    if suffix not in (ONNX, *CHECKPOINTS):
        raise ConfigError(f"{base}: cannot be trained: expected an ONNX file or a checkpoint (.pt, .pth)")
    if suffix == ONNX and (reason := _against_onnx(arch)):
        raise ConfigError(f"{base}: an ONNX file cannot be trained as {arch}: {reason}")
    if arch in ULTRALYTICS and suffix != ".pt":
        raise ConfigError(f"{base}: {arch} starts from Ultralytics' checkpoint (.pt)")


def _against_onnx(arch: str) -> str | None:
    if arch in ULTRALYTICS:
        return "give Ultralytics' checkpoint (.pt)"
    if arch == "resnet50":
        return "give torchvision's checkpoint (.pth), or use framewire classify train --with features"
    if arch == "cnn":
        return "the small network has no pretrained base"
    return "give torchvision's checkpoint (.pth)" if arch.startswith("fasterrcnn") else None
