"""Packages a model as a folder for another program: a container image that serves it, or a Triton model repository."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.backends.base import TensorSpec
from engine.backends.files.base import read_model_file
from engine.backends.remote.datatypes import DATATYPE_BY_DTYPE
from engine.errors import ConfigError
from engine.paths import how_to_write
from pipelines.learning.model_facts import PREFIX, model_of

TARGETS = ("docker", "triton")
TRITON = {
    ".onnx": ("onnxruntime", "model.onnx"),
    ".plan": ("tensorrt", "model.plan"),
    ".engine": ("tensorrt", "model.plan"),
}
"""Backend and file name of each kind of model in a repository of Triton."""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
CARD = "model_card.md"
PORT = 8443
KEYS = "/run/framewire"
DOCKERFILE = """\
# Serves {name} over HTTP, by Framewire {version}.{licence}
#
#   docker build --build-arg EXTRA=web -t framewire:web CHECKOUT     # once, in a checkout of Framewire {version}
#   docker build -t {name} .
#   docker run --rm -p {port}:{port} -v "$PWD/keys:{keys}:ro" {name}
#
# keys/ holds cert.pem, key.pem and tokens (a line "OWNER TOKEN" per user), readable by user 1000. Clients that address
# the machine by its name need it in the command: docker run ... {name} --allow-host NAME
ARG BASE=framewire:web
# hadolint ignore=DL3006
FROM ${{BASE}}
COPY --chown=1000:1000 models /models
EXPOSE {port}
HEALTHCHECK --interval=30s --timeout=10s --start-period=2m CMD ["python", "-c", "{probe}"]
ENTRYPOINT {entry}
"""
PROBE = (
    "import ssl, urllib.request as r; "
    "r.urlopen('https://127.0.0.1:{port}/v1/health', timeout=5, context=ssl._create_unverified_context())"
)


def package(model: Path, target: str, out: Path, name: str | None = None) -> dict[str, Any]:
    """Write a model into a new folder for `docker build`, or for `tritonserver --model-repository`.

    Args:
        model: file, or the folder of a run or a release.
        target: one of `TARGETS`.
        out: the folder; with `triton`, the repository, which may contain other models.
        name: of the model; None: that of its file.

    Returns:
        `target`, `folder`, `model` (its name), `files` (relative to the folder) and `next`, the command that runs it.

    Raises:
        ConfigError: the target does not run this kind of model, or the folder cannot be written.
        ModelError: the model cannot be read.
    """
    file = model_of(model, TRITON)
    known = name or re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower()).strip("-._") or "model"
    if NAME.fullmatch(known) is None:
        raise ConfigError(f"--name {known}: expected up to 64 lower-case letters, digits, dots, dashes and underscores")
    place = out / known if target == "triton" else out
    try:
        if place.exists() and any(place.iterdir()):
            raise ConfigError(f"{place}: already exists: choose another --out or --name")
        written = (_triton if target == "triton" else _docker)(file, place, known)
    except OSError as error:
        raise ConfigError(f"{place}: cannot be written ({error.strerror or error}): {how_to_write(error)}") from error
    following = (
        f"tritonserver --model-repository {out.resolve()}"
        if target == "triton"
        else f"docker build -t {known} {out.resolve()}"
    )
    files = sorted(str(path.relative_to(out)) for path in written)
    return {"target": target, "folder": str(out), "model": known, "files": files, "next": following}


def _docker(model: Path, folder: Path, name: str) -> list[Path]:
    facts = read_model_file(model)
    licence = facts.metadata.get(f"{PREFIX}licence")
    kept = folder / "models" / facts.path.name
    kept.parent.mkdir(parents=True)
    files = [shutil.copyfile(path, kept.with_name(path.name)) for path in (facts.path, *facts.weight_files)]
    entry = ["framewire", "serve", "--model", f"{name}=/models/{kept.name}", "--http", f"0.0.0.0:{PORT}"]
    entry += ["--tls", f"{KEYS}/cert.pem,{KEYS}/key.pem", "--token-file", f"{KEYS}/tokens"]
    text = DOCKERFILE.format(
        name=name,
        version=version("framewire"),
        licence=f" Licence of the model: {_plain(licence)}." if licence else "",
        port=PORT,
        keys=KEYS,
        probe=PROBE.format(port=PORT),
        entry=json.dumps(entry),
    )
    (folder / "Dockerfile").write_text(text, encoding="utf-8")
    (folder / ".dockerignore").write_text("*\n!models\n", encoding="utf-8")
    return [folder / "Dockerfile", folder / ".dockerignore", *files, *_card(model, folder)]


def _plain(value: Any) -> str:
    """Return a text of a model file that is safe in a comment."""
    return re.sub(r"[^A-Za-z0-9 .,+()-]", "", str(value))[:100]


def _card(model: Path, folder: Path) -> list[Path]:
    card = model.with_name(CARD)
    if not card.is_file():
        return []
    shutil.copyfile(card, folder / CARD)
    return [folder / CARD]


def _triton(model: Path, folder: Path, name: str) -> list[Path]:
    if model.suffix.lower() not in TRITON:
        raise ConfigError(f"{model}: a Triton repository takes ONNX files and TensorRT plans")
    facts = read_model_file(model)
    backend, file_name = TRITON[model.suffix.lower()]
    kept = folder / "1" / file_name
    kept.parent.mkdir(parents=True)
    shutil.copyfile(model, kept)
    weights = [shutil.copyfile(path, kept.with_name(path.name)) for path in facts.weight_files]
    config = folder / "config.pbtxt"
    config.write_text(_config(name, backend, facts.inputs, facts.outputs, facts.metadata), encoding="utf-8")
    return [config, kept, *weights, *_card(model, folder)]


def _config(
    name: str, backend: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], metadata: Mapping[str, Any]
) -> str:
    """Return Triton's `config.pbtxt`, including the metadata, so that the engine finds classes and family."""
    lines = [f"name: {json.dumps(name)}", f"backend: {json.dumps(backend)}", "max_batch_size: 0"]
    for kind, specs in (("input", inputs), ("output", outputs)):
        for spec in specs:
            dims = ", ".join("-1" if size is None else str(size) for size in spec.shape)
            lines.append(f"{kind} {{ name: {_text(spec.name)} data_type: TYPE_{_datatype(spec)} dims: [ {dims} ] }}")
    for key, value in metadata.items():
        lines.append(f"parameters {{ key: {_text(key)} value: {{ string_value: {_text(value)} }} }}")
    return "\n".join(lines) + "\n"


def _datatype(spec: TensorSpec) -> str:
    found = DATATYPE_BY_DTYPE.get(spec.dtype)
    if found is None:
        raise ConfigError(f"tensor {spec}: Triton has no such type")
    return found


def _text(value: Any) -> str:
    """Return a text in protobuf's text format: UTF-8 with C escapes."""
    return json.dumps(str(value), ensure_ascii=False)
