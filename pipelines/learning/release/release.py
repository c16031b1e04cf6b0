"""Tests a model on the locked test set, and releases it with a model card if it passes the gate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from pipelines.learning.json_files import read_json, write_json
from pipelines.learning.lock import lock_test, test_part
from pipelines.learning.model_facts import facts_of, model_of, sha256_of, stamp
from pipelines.learning.monitor.reference import reference_of
from pipelines.learning.release.gate import DEFAULT_CLASSIFY, DEFAULT_DETECT, Check, check_gate
from pipelines.learning.testing.classifiers import ClassifierTest, run_classifier_test
from pipelines.learning.testing.detectors import DetectorTest, run_detector_test
from pipelines.learning.yaml_files import yaml_file
from pipelines.scoring.detect import Progress

CURRENT = "current.json"
MAX_GATE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """A model to release.

    Attributes:
        model: ONNX file, or the folder of a run.
        data: data set with a test part.
        out: folder of the releases; the new one is numbered.
        licence: of the model, such as Apache-2.0.
        gate: YAML file with conditions by score; None: no worse than the current release.
        against: model in use, by file or name; it counts as released until there is a release.
        strengths: of corruptions to test, if the gate has `corruptions`.
    """

    model: Path
    data: Path
    out: Path
    licence: str
    gate: Path | None = None
    against: str | None = None
    strengths: tuple[int, ...] = (3,)


def release(request: ReleaseRequest, progress: Progress | None = None) -> dict[str, Any]:
    """Test the model, check the gate, and write the release; a model that fails is not released.

    Returns:
        `released`, whether it was; the checks, scores and, if so, its folder.

    Raises:
        ConfigError: the test set has changed since it was locked, or the gate or the data cannot be read.
        ModelError: the model cannot be used.
    """
    model = model_of(request.model)
    locked = lock_test(request.data)
    conditions = _conditions(request.gate)
    scores = _tested(model, request, conditions, progress)
    before = _current(request.out, locked)
    if before is None and request.against is not None:
        before = _tested(request.against, request, conditions, progress)
    default = DEFAULT_DETECT if "map50_95" in scores else DEFAULT_CLASSIFY
    checks = check_gate(conditions or default, scores, before)
    result = {"model": str(model), "released": all(check.passes for check in checks), "checks": _plain(checks)}
    if result["released"]:
        result["folder"] = str(_write(model, request, scores, checks, locked))
    return {**result, "scores": scores}


def _plain(checks: list[Check]) -> list[dict[str, Any]]:
    return [check.as_dict() for check in checks]


def _conditions(path: Path | None) -> dict[str, str]:
    """Return the conditions in a YAML file, at its top or under `gate`."""
    if path is None:
        return {}
    values = yaml_file(path, MAX_GATE_BYTES)
    values = values.get("gate", values) if isinstance(values, Mapping) else values
    if not isinstance(values, Mapping) or not all(isinstance(text, str) for text in values.values()) or not values:
        raise ConfigError(f"{path}: expected conditions by score, such as map50_95: '>= released'")
    return {str(key): text for key, text in values.items() if key != "set"}


def _tested(
    model: Path | str, request: ReleaseRequest, conditions: Mapping[str, str], progress: Progress | None
) -> dict[str, Any]:
    images, labels = test_part(request.data)
    strengths = request.strengths if any(name.startswith("corruptions") for name in conditions) else ()
    if labels is None:
        return run_classifier_test(ClassifierTest(Path(model), images, strengths=strengths), progress)
    return run_detector_test(DetectorTest(model, images, labels, strengths=strengths), progress)


def _current(out: Path, locked: str) -> dict[str, Any] | None:
    """Return the scores of the current release; None if there is none, or it was tested on another test set."""
    path = out / CURRENT
    if not path.is_file():
        return None
    current = read_json(path)
    return dict(current["scores"]) if current.get("test_sha256") == locked else None


def _write(model: Path, request: ReleaseRequest, scores: dict[str, Any], checks: list[Check], locked: str) -> Path:
    """Write the release into a numbered folder and make it the current one."""
    request.out.mkdir(parents=True, exist_ok=True)
    number = max((int(path.name) for path in request.out.iterdir() if path.name.isdecimal()), default=0) + 1
    folder = request.out / f"{number:04d}"
    folder.mkdir()
    shutil.copyfile(model, folder / model.name)
    kept = ("map50", "map50_95", "accuracy", "balanced", "images", "objects")
    brief = {key: scores[key] for key in kept if key in scores}
    facts = {
        "licence": request.licence,
        "test_sha256": locked,
        "test_scores": json.dumps(brief),
        "released": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if model.suffix.lower() == ".onnx":
        stamp(folder / model.name, facts)
    made = facts_of(folder / model.name) if model.suffix.lower() == ".onnx" else facts
    (folder / "model_card.md").write_text(_card(model.name, made, scores, checks), encoding="utf-8")
    write_json(folder / "scores.json", scores)
    images, labels = test_part(request.data)
    if labels is not None:
        write_json(folder / "reference.json", reference_of(folder / model.name, images).as_dict())
    current = {"folder": folder.name, "model": model.name, "sha256": sha256_of(folder / model.name)}
    write_json(request.out / CURRENT, {**current, "test_sha256": locked, "scores": scores})
    return folder


def _card(name: str, facts: Mapping[str, str], scores: Mapping[str, Any], checks: list[Check]) -> str:
    """Return the model card as Markdown."""
    lines = [f"# {name}", "", "| fact | |", "|---|---|"]
    lines += [f"| {key.replace('_', ' ')} | `{value}` |" for key, value in sorted(facts.items())]
    lines += ["", "## Scores on the locked test set", "", "| score | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in scores.items() if isinstance(value, (int, float, str))]
    for name_of_class, values in scores.get("per_class", {}).items():
        lines.append(f"| {name_of_class} | {', '.join(f'{key} {value}' for key, value in values.items())} |")
    lines += ["", "## Gate", "", "| score | condition | found | limit |", "|---|---|---|---|"]
    lines += [f"| {c.score} | {c.condition} | {c.found} | {'-' if c.limit is None else c.limit} |" for c in checks]
    lines += ["", "Tested on the classes and scenes of its test set. Before using it elsewhere, test it there.", ""]
    return "\n".join(lines)
