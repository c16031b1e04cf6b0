"""Plan files: a serialized TensorRT engine, with a header that says what it is and where it runs.

The layout is that of the `.engine` files of Ultralytics 8.4: a little-endian int32 with the length of a JSON text, the
JSON, then the plan. The JSON holds the model's metadata at its top level, so each side can read the other's files; ours
adds the key `framewire_plan` with tensors, library, GPU and precision. A file without a header is a bare plan. This
module never loads a plan: reading a header is safe, loading a plan executes its code.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import stat
import struct
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.backends.base import TensorSpec
from engine.errors import ConfigError, ModelError

FORMAT = 1
OUR_KEY = "framewire_plan"
MAX_HEADER_BYTES = 16 << 20
ABANDONED_S = 3600.0
BatchProfile = tuple[int, int, int]


class PlanFolderError(ConfigError):
    """Plans cannot be kept where they should be: another backend could still run the model."""


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What our header says about a plan.

    Attributes:
        library: `tensorrt` or `tensorrt_rtx`.
        library_version: as the library reports it.
        cuda_version: newest CUDA version of the driver it was built with; empty if built without a GPU.
        gpu: name of the GPU it was built on; empty if built without one.
        compute_capability: of that GPU, or (0, 0).
        precision: `fp32`, `fp16` or `int8`.
        batch: smallest, optimal and largest batch.
        inputs: tensors that it takes.
        outputs: tensors that it returns.
        model: name of the model file it was built from.
        model_sha256: of that file and of the weights beside it.
        key: of the plan cache.
        plan_sha256: of the plan that follows the header.
        accuracy: what the INT8 gate measured; empty for other precisions.
        dla_core: deep learning accelerator of a Jetson that it was built for; None for the GPU.
        can_record: False if the model counts its boxes itself: such a plan waits for the GPU while it is enqueued,
            which no CUDA graph can record.
    """

    library: str
    library_version: str
    cuda_version: str
    gpu: str
    compute_capability: tuple[int, int]
    precision: str
    batch: BatchProfile
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    model: str = ""
    model_sha256: str = ""
    key: str = ""
    plan_sha256: str = ""
    accuracy: Mapping[str, float] = field(default_factory=dict)
    dla_core: int | None = None
    can_record: bool = True


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A parsed plan file.

    Attributes:
        path: of the file.
        offset: where the plan begins.
        metadata: of the model; empty for a bare plan.
        facts: our part of the header; None if another program built the plan.
    """

    path: Path
    offset: int
    metadata: Mapping[str, Any]
    facts: PlanFacts | None

    def plan(self) -> bytes:
        """Return the serialized engine.

        Raises:
            ModelError: it is damaged or truncated and does not match its header.
        """
        content = self.path.read_bytes()[self.offset :]
        if self.facts is not None and hashlib.sha256(content).hexdigest() != self.facts.plan_sha256:
            raise ModelError(f"{self.path}: the plan differs from what its header promises: damaged; build it again")
        return content


def read_plan_file(path: Path) -> PlanFile:
    """Parse the header of a plan file. Raises `ModelError` if our part of it is malformed."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length_bytes = file.read(4)
        length = struct.unpack("<i", length_bytes)[0] if len(length_bytes) == 4 else 0
        if not 0 < length <= min(size - 4, MAX_HEADER_BYTES):
            return PlanFile(path, 0, {}, None)
        header = _json_object(file.read(length))
    if header is None:
        return PlanFile(path, 0, {}, None)
    ours = header.pop(OUR_KEY, None)
    if ours is None:
        return PlanFile(path, 4 + length, header, None)
    try:
        facts = facts_from_json(ours)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: its plan header does not fit ({error!r}): build it again") from error
    return PlanFile(path, 4 + length, header, facts)


def write_plan_file(path: Path, plan: bytes, facts: PlanFacts, metadata: Mapping[str, Any]) -> None:
    """Write a plan with its header, atomically, and remove what killed builds left behind.

    Raises:
        PlanFolderError: the file cannot be written.
    """
    header = json.dumps({**metadata, OUR_KEY: facts_to_json(facts)}, ensure_ascii=False).encode()
    try:
        write_whole(path, struct.pack("<i", len(header)), header, plan)
    except OSError as error:
        raise PlanFolderError(f"the plan {path} cannot be written ({error.strerror}): choose another place") from error


def write_whole(path: Path, *parts: bytes) -> None:
    """Write a file atomically, even if this process is killed. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files of processes that were killed while writing this plan, which takes seconds."""
    for unfinished in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with suppress(OSError):
            if time.time() - unfinished.stat().st_mtime > ABANDONED_S:
                unfinished.unlink()


def facts_to_json(facts: PlanFacts) -> dict[str, Any]:
    """Return our part of the header as plain JSON values."""
    return {"format": FORMAT, **asdict(facts)}


def facts_from_json(values: Any) -> PlanFacts:
    """Return our part of the header. Raises KeyError, TypeError or ValueError if it is malformed."""
    if values["format"] != FORMAT:
        raise ValueError(f"plan header of format {values['format']}, this version reads {FORMAT}")
    known = {key: value for key, value in values.items() if key != "format"}
    smallest, optimal, largest = known.pop("batch")
    major, minor = known.pop("compute_capability")
    inputs, outputs = (tuple(_spec(entry) for entry in known.pop(kind)) for kind in ("inputs", "outputs"))
    batch = int(smallest), int(optimal), int(largest)
    return PlanFacts(**known, batch=batch, compute_capability=(int(major), int(minor)), inputs=inputs, outputs=outputs)


def _spec(entry: Mapping[str, Any]) -> TensorSpec:
    shape = tuple(None if size is None else int(size) for size in entry["shape"])
    return TensorSpec(str(entry["name"]), shape, str(entry["dtype"]))


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def why_not_trusted(path: Path) -> str | None:
    """Return why a plan's location cannot be trusted, or None.

    A plan is code: anyone who can write to it can run code here.
    """
    for place in (path.resolve(), path.resolve().parent):
        status = place.stat()
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            return f"{place} can be written by every user of this machine, and a plan runs code: chmod o-w it"
        if hasattr(os, "getuid") and status.st_uid not in (0, os.getuid()):
            return f"{place} belongs to another user, and a plan runs code: use plans that you built yourself"
    return None
