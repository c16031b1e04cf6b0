"""The types of the server's answers, from which its OpenAPI document is generated."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from engine.wire.objects import ClassScore, Counter, TrackedObject

Milliseconds = Annotated[float, msgspec.Meta(ge=0)]


class ServeError(msgspec.Struct, frozen=True):
    """Why a request was not served.

    Attributes:
        error: what is wrong, what was found, and how to fix it.
    """

    error: str


class Spent(msgspec.Struct, frozen=True):
    """How the time of a request was spent, in milliseconds.

    Attributes:
        decode: from the encoded image to pixels.
        wait: from then until its inference began.
        infer: the inference with its pre- and postprocessing; images of one batch share it.
    """

    decode: Milliseconds
    wait: Milliseconds
    infer: Milliseconds


class DetectAnswer(msgspec.Struct, frozen=True):
    """The objects on one image.

    Attributes:
        model: name of the model used.
        width: of the image after its EXIF orientation, in pixels.
        height: likewise.
        objects: as on the wire; `track_id` is -1, because nothing is tracked.
        ms: how the time was spent.
    """

    model: str
    width: Counter
    height: Counter
    objects: list[TrackedObject]
    ms: Spent


class ClassifyAnswer(msgspec.Struct, frozen=True):
    """The most likely classes of one image.

    Attributes:
        model: name of the model used.
        width: of the image after its EXIF orientation, in pixels.
        height: likewise.
        classes: best first.
        ms: how the time was spent.
    """

    model: str
    width: Counter
    height: Counter
    classes: list[ClassScore]
    ms: Spent


class ModelCard(msgspec.Struct, frozen=True):
    """One model of this server.

    Attributes:
        name: as given in requests.
        task: `detect`, `segment`, `pose`, ... or `classify`.
        class_names: by class id.
        ready: whether it is loaded.
        backend: what runs it.
        score_threshold: the lowest score that it reports.
    """

    name: str
    task: str
    class_names: list[str]
    ready: bool
    backend: str
    score_threshold: float


class ModelList(msgspec.Struct, frozen=True):
    """The models of this server; the first one answers requests that name none."""

    models: list[ModelCard]


class ServerMetadata(msgspec.Struct, frozen=True):
    """Name, version and extensions of this server."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(msgspec.Struct, frozen=True):
    """One input or output of a model; -1 in its shape is a size that the model leaves open."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct, frozen=True):
    """The tensors of a model.

    Attributes:
        name: of the model.
        versions: always `1`.
        platform: the backend.
        inputs: tensors that it takes.
        outputs: tensors that it returns.
        parameters: the facts in its file, as JSON text: class names, stride, task.
    """

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, str] = {}


class Health(msgspec.Struct, frozen=True):
    """Whether the server is alive or ready."""

    live: bool = True
    ready: bool = True


class InputTensor(msgspec.Struct):
    """A tensor of a request: `data`, or bytes after the JSON of which `binary_data_size` belong to it."""

    name: str
    shape: Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=2**31)]], msgspec.Meta(max_length=16)]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class RequestedOutput(msgspec.Struct):
    """An output that a request asks for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    """An inference request of the Open Inference Protocol; `outputs` left out means all."""

    inputs: Annotated[list[InputTensor], msgspec.Meta(max_length=64)]
    id: Annotated[str, msgspec.Meta(max_length=256)] = ""
    parameters: dict[str, Any] = {}
    outputs: Annotated[list[RequestedOutput], msgspec.Meta(max_length=256)] = []


class OutputTensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tensor of an answer: `data`, or `binary_data_size` bytes after the JSON."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] = {}
    data: list[Any] | None = None


class InferAnswer(msgspec.Struct, frozen=True):
    """The outputs of an inference."""

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]
