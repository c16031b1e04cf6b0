"""`load_detector`: from a path and a few plain values to a detector."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from engine.assets import demo_model
from engine.backends.base import BackendOptions, BuildsFirst, Performance
from engine.backends.choose_device import backend_of_device
from engine.backends.files.plan import PlanFile
from engine.backends.select import REMOTE, can_resize, create_backend, has_windows, select_backend
from engine.backends.trial import Trial
from engine.data import Detections, Frame
from engine.detection.detector import ModelDetector
from engine.detection.feeding import LetterboxOn
from engine.detection.heads.family import Color
from engine.detection.input_size.shapes import at_size, is_size_open
from engine.detection.input_size.sized import SizedModel
from engine.detection.input_size.sizes import ByAspect, MakeSized, OneSize, Sizes, Waits, all_wait
from engine.detection.input_size.windows import WindowModels, WithWindows
from engine.detection.letterbox import Anchor
from engine.detection.model import ModelFacts, inspect_model
from engine.detection.plan_check import check_plan
from engine.errors import ConfigError, EngineError, MissingDependencyError

DEMO = "demo"


def load_detector(
    path: str | Path,
    *,
    backend: str = "auto",
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    classes: Sequence[str | int] | None = None,
    performance: Performance = "throughput",
    max_batch: int = 1,
    size: int | tuple[int, int] | Literal["auto"] | None = None,
    expected_wh: Sequence[tuple[int, int]] = (),
    waits: Waits = all_wait,
    names: Sequence[str] | None = None,
    head: str | None = None,
    color: Color | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    letterbox: Anchor | None = None,
    letterbox_on: LetterboxOn = "auto",
    depth: int | None = None,
    precision: str | None = None,
    threads: int | None = None,
    device: str | None = None,
    cache_dir: str | Path | None = None,
    build_plans: bool = True,
    try_first: bool = False,
    deadline_ms: float | None = None,
) -> ModelDetector:
    """Return a detector for a model file or folder; its `open` loads the model.

    Args:
        path: `.onnx`, OpenVINO `.xml` or folder, `.tflite`, `.plan`, `.engine`; `demo` is the embedded model;
            `kserve+http://HOST:8000/NAME` is a model on an inference server.
        backend: `auto`, `openvino`, `onnxruntime`, `tensorrt`; `kserve` for a server.
        score_threshold: a box needs a score above this; None is what the file recommends, else 0.25.
        iou_threshold: for NMS; None uses the default of the family's own code (0.7 Ultralytics, 0.45 YOLOX and
            Darknet).
        classes: names or ids to report; None for all.
        performance: `throughput` runs several inferences side by side, `latency` one over all cores.
        max_batch: maximum number of frames per inference, if the model leaves it open; on a CPU larger batches gain
            nothing.
        size: rows and columns, for models that leave them open; `auto`: per frame, the smallest rectangle within the
            model's own size, in multiples of its stride, that holds the frame's aspect, if its graph can take that.
        expected_wh: expected sizes of frames, so that `auto` loads the right rectangles at once.
        waits: for `auto`, whether frames of a source, by its name, wait until their rectangle is loaded; otherwise they
            are detected on a loaded one meanwhile. Cameras should not wait, and files should, for equal results.
        names: class names, instead of those in the file.
        head: name of the family, instead of the one found by metadata and shape.
        color: `rgb` or `bgr`, instead of the family's channel order.
        mean: of 0..255 pixels per channel, instead of the family's.
        std: of 0..255 pixels per channel, instead of the family's.
        letterbox: `center`, `top_left` or `stretch`, instead of the family's way to place a frame.
        letterbox_on: `cpu`, `gpu` (TensorRT), or `auto`: the GPU for frames that it scales as the CPU does and that are
            not too large to be copied.
        depth: inferences in flight; None leaves it to the backend.
        precision: arithmetic of the backend (`f32`, `bf16`, ...); None is its default.
        threads: maximum number of CPU threads.
        device: `cpu`, `gpu`, `gpu.1`, `npu` or `auto` of OpenVINO, `cuda:0` of TensorRT; None: the backend decides.
        cache_dir: folder for compiled models; None: the user's cache folder, or the model's folder for TensorRT.
        build_plans: let TensorRT build a missing plan when the detector opens; otherwise a missing plan is an error.
        try_first: load the file in a separate process first, once per machine and content: a damaged one can crash the
            library that loads it, and the program with it. The command line does.
        deadline_ms: for a model on a server: how long to wait for an answer; None is 30 s.

    Raises:
        ModelError: the file is missing, broken, or not a detector of a known kind.
        ConfigError: an argument cannot work; the message says what would.
        MissingDependencyError: the requested backend is not installed.
    """
    told: dict[str, Any] = {"names": names, "head": head, "color": color, "mean": mean, "std": std}
    told |= {"size": None if size == "auto" else size, "letterbox": letterbox}
    facts = inspect_model(demo_model() if str(path) == DEMO and not Path(path).exists() else path, **told)
    wanted, without = backend_of_device(device, backend)
    chosen, reason = select_backend(facts.path, wanted, without=without)
    options = BackendOptions(
        image=facts.image,
        exported_hw=None if is_size_open(facts) else facts.size_hw,
        performance=performance,
        depth=depth,
        max_batch=facts.batch or max_batch,
        precision=precision,
        threads=threads,
        device=device,
        cache_dir=Path(cache_dir) if cache_dir else None,
        build_plans=build_plans,
        deadline_ms=deadline_ms,
    )
    score, iou = _thresholds(facts, score_threshold, iou_threshold)
    build = _Build(facts, options, letterbox_on, partial(_check_plan, facts.path, told, score, iou))
    sizes_on = partial(_sizes_on, build, (expected_wh, waits) if size == "auto" else None)
    return ModelDetector(
        facts,
        sizes=sizes_on(chosen),
        score_threshold=score,
        iou_threshold=iou,
        classes=None if classes is None else class_ids(classes, facts.class_names),
        max_batch=max_batch,
        backend_reason=reason,
        fallback=_Fallback(facts.path, sizes_on) if wanted == "auto" else None,
        try_first=partial(_trial, facts, options) if try_first and chosen != REMOTE else None,
    )


def _thresholds(facts: ModelFacts, score: float | None, iou: float | None) -> tuple[float, float]:
    """Return the thresholds of score and IoU: those given, or those of the model."""
    return facts.usual_score if score is None else score, facts.family.iou_threshold if iou is None else iou


@dataclass(frozen=True, slots=True)
class _Build:
    """What a model is made with at any size.

    Attributes:
        facts: the model at the size that it was exported for.
        options: of its backend.
        letterbox_on: as `load_detector`.
        check: compares a plan with its model.
    """

    facts: ModelFacts
    options: BackendOptions
    letterbox_on: LetterboxOn
    check: Callable[[SizedModel], None]

    def sized(self, backend: str, facts: ModelFacts, depth: int | None) -> SizedModel:
        """Return the model at the size of `facts` on a backend, not yet loaded."""
        options = _options_at(facts, self.options, depth)
        check = self.check if backend == "tensorrt" else None
        made = create_backend(backend, facts.path, options)
        return SizedModel(facts, made, options.max_batch, self.letterbox_on, check)


def _options_at(facts: ModelFacts, options: BackendOptions, depth: int | None) -> BackendOptions:
    """Return the options of a backend for the model at one size."""
    scores = facts.head().class_scores
    return replace(options, image=facts.image, class_scores=scores, depth=options.depth or depth)


def _sizes_on(build: _Build, when_auto: tuple[Sequence[tuple[int, int]], Waits] | None, backend: str) -> Sizes:
    """Return the input sizes of a model on a backend: one, or, with `when_auto`, one per aspect of the frames.

    Where a smaller size costs less, windows can be cut from the frames.
    """
    facts, make_sized = build.facts, partial(build.sized, backend)
    is_plan = facts.file.format == "plan"
    if when_auto is None or is_plan or not can_resize(backend):
        whole: Sizes = OneSize(make_sized(facts, None))
    else:
        first = None if has_windows(backend) else partial(_why_not_built, make_sized, facts)
        whole = ByAspect(facts, make_sized, *when_auto, why_not_built=first)
    if is_plan or not has_windows(backend):
        return whole
    of_windows = replace(build, options=replace(build.options, depth=None))
    return WithWindows(whole, WindowModels(facts, partial(of_windows.sized, backend)))


def _why_not_built(make_sized: MakeSized, facts: ModelFacts, size_hw: tuple[int, int]) -> str | None:
    """Return why a model must be built before it is loaded at a size, with the command for it, or None."""
    try:
        backend = make_sized(at_size(facts, size_hw), None).backend
        missing = backend.missing_plan() if isinstance(backend, BuildsFirst) else None
    except EngineError as error:  # it is raised again where the size is loaded
        return str(error)
    return None if missing is None else f'build it with "{missing.command}"'


def _trial(facts: ModelFacts, options: BackendOptions, backend: str) -> Trial:
    """Begin to load the model on a backend in another process."""
    return Trial(backend, facts.path, replace(options, image=facts.image, class_scores=facts.head().class_scores))


def _check_plan(path: Path, told: Mapping[str, Any], score: float, iou: float, sized: SizedModel) -> None:
    """Compare a TensorRT plan with its ONNX model when the plan is opened for the first time."""
    file = getattr(sized.backend, "plan_file", None)
    if not isinstance(file, PlanFile) or file.facts is None:
        return
    model = path if path.suffix.lower() == ".onnx" else file.path.with_name(Path(file.facts.model).name)

    def run_model(frames: Sequence[Frame]) -> list[Detections]:
        own, facts = _facts_at(model, told, sized.facts.size_hw)
        exported_hw = None if is_size_open(own) else own.size_hw
        options = _options_at(facts, BackendOptions(exported_hw=exported_hw), None)
        backend = create_backend("onnxruntime", facts.path, options)
        with ModelDetector(facts, backend, score_threshold=score, iou_threshold=iou) as reference:
            return reference.detect(frames)

    plan = ModelDetector(
        sized.facts, sizes=OneSize(sized), max_batch=sized.max_batch, score_threshold=score, iou_threshold=iou
    )
    check_plan(file, plan.detect, run_model, score)


def _facts_at(path: Path, told: Mapping[str, Any], size_hw: tuple[int, int]) -> tuple[ModelFacts, ModelFacts]:
    """Return the facts of a model at its own size, and with its graph changed to another one."""
    try:
        own = inspect_model(path, **{**told, "size": size_hw})
    except ConfigError:  # its size is fixed
        own = inspect_model(path, **{**told, "size": None})
    return own, at_size(own, size_hw)


class _Fallback:
    """Provides the backends that `auto` would choose next, each once."""

    def __init__(self, path: Path, sizes_on: Callable[[str], Sizes]) -> None:
        self._path, self._lanes_on = path, sizes_on
        self._failed: set[str] = set()

    def __call__(self, failed: str) -> tuple[Sizes, str] | None:
        """Return the model, not yet loaded, on the next backend and the reason for it, or None."""
        self._failed.add(failed)
        try:
            name, reason = select_backend(self._path, without=self._failed)
            return self._lanes_on(name), reason
        except (ConfigError, MissingDependencyError):
            return None


def class_ids(classes: Sequence[str | int], names: Sequence[str]) -> list[int]:
    """Return the ids of classes given by name (any case) or id.

    Raises:
        ConfigError: the name or id is unknown; the message lists similar ones.

    >>> class_ids(["Person", 2], ["person", "bicycle", "car"])
    [0, 2]
    """
    if isinstance(classes, str):
        raise ConfigError(f'classes is the text "{classes}": expected a list of names or ids')
    by_name = {name.lower(): index for index, name in enumerate(names)}
    return [_class_id(entry, by_name, len(names)) for entry in classes]


def known_class_ids(classes: Sequence[str | int], names: Sequence[str]) -> list[int]:
    """Return the ids of the classes, given by name or id, that exist in a model.

    >>> known_class_ids(["car", "lorry"], ["person", "bicycle", "car"])
    [2]
    """
    by_name = {name.lower(): index for index, name in enumerate(names)}
    texts = [str(entry).strip().lower() for entry in classes]
    ids = [by_name.get(text, int(text) if text.isdecimal() else len(names)) for text in texts]
    return [class_id for class_id in ids if class_id < len(names)]


def _class_id(entry: str | int, by_name: dict[str, int], count: int) -> int:
    text = str(entry).strip().lower()
    if text in by_name:
        return by_name[text]
    if text.isdecimal() and int(text) < count:
        return int(text)
    close = difflib.get_close_matches(text, by_name, n=3, cutoff=0.65)
    some = ", ".join(list(by_name)[:8])
    hint = f"did you mean {' or '.join(close)}?" if close else f"the model has {some}{', ...' if count > 8 else ''}"
    raise ConfigError(f'unknown class "{entry}": {hint}')
