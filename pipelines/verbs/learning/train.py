"""`framewire train`: detectors and classifiers by deep learning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines import console
from pipelines.verbs.options import Json

SHARES = 1000
Arch = Annotated[
    str | None,
    typer.Option(
        help="deimv2-femto (usual), deimv2-atto, yolox-nano, yolox-tiny, yolox-s, fasterrcnn-r50; of Ultralytics "
        "(AGPL-3.0): yolo11n, yolo11s, yolo26n, yolov8n; classifiers: resnet50, cnn"
    ),
]
Base = Annotated[
    str | None, typer.Option("--base", "--weights", help="Pretrained model by name, ONNX file or checkpoint")
]
Classes = Annotated[str | None, typer.Option(help="Names in the order of the labels, if no file states them")]
Change = Annotated[
    list[str] | None, typer.Option(help="Strength of a change: flip=0.5 colour scale translate crop distort mosaic")
]
Trials = Annotated[int, typer.Option(min=0, help="Trials of a search for learning rate and more; half of the budget")]
Repeat = Annotated[str | None, typer.Option(help="Folder of a run to repeat from its manifest")]


def train(
    data: Annotated[
        str | None, typer.Argument(help="Data set: images/ and labels/ with data.yaml, or folders of classes")
    ] = None,
    arch: Arch = None,
    base: Base = None,
    budget: Annotated[str, typer.Option(help="Time or epochs: 10m, 90s, 30e")] = "10m",
    out: Annotated[str, typer.Option(help="Folder of the numbered runs")] = "runs",
    classes: Classes = None,
    size: Annotated[int | None, typer.Option(help="Rows and columns of the input, a multiple of 32")] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures per step")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of the pretrained part")] = None,
    freeze: Annotated[str, typer.Option(help="none, or backbone: keep the pretrained features")] = "none",
    augment: Change = None,
    search: Trials = 0,
    robust: Annotated[str, typer.Option(help="Classifiers: none, noise or adversarial")] = "none",
    epsilon: Annotated[str, typer.Option(help="For --robust: largest change of a pixel: 8/255")] = "8/255",
    seed: Annotated[int, typer.Option(help="Seed of every random choice")] = 0,
    resume: Annotated[str | None, typer.Option(help="Folder of an interrupted run to continue")] = None,
    repeat: Repeat = None,
    as_json: Json = False,
) -> None:
    """Train a model on your images and write an ONNX file that the engine runs.

    The test part of a data set is never read. Each run has its own folder with the model, checkpoints, curves, scores
    and a manifest.
    """
    from pipelines.learning.train.run import TrainRequest, train

    given = {"size": size, "batch": batch, "lr": lr, "freeze": freeze, "robust": robust, "seed": seed}
    if (data or resume or repeat) is None or (resume and repeat):
        raise typer.BadParameter("expected a data set, or --resume RUN, or --repeat RUN")
    request = TrainRequest(
        Path(data or ""),
        Path(out),
        None if resume or repeat else _options(arch, base, budget, epsilon, augment or [], given),
        [name.strip() for name in classes.split(",")] if classes else None,
        search,
        _folder(resume),
        _folder(repeat),
    )
    with console.progress_bar("training") as progress:
        result = train(request, lambda fields: report(fields, progress))
    _show(result, as_json)


def _options(
    arch: str | None, base: str | None, budget: str, epsilon: str, augment: list[str], given: dict[str, Any]
) -> Any:
    """Return the options to train with. Raises `ConfigError`."""
    from pipelines.learning.testing.attack import parse_share
    from pipelines.learning.train.bases import arch_of, base_file
    from pipelines.learning.train.options import parse_budget
    from pipelines.learning.train.run import default_options

    changes = augment_of(augment)
    known = {**given, "epsilon": parse_share(epsilon), "augment": changes, **parse_budget(budget)}
    wanted = arch_of(arch, base)
    file = base_file(base, wanted)
    if base is None and file is not None:
        console.say(f"starts from {wanted}, which is installed; from scratch: --base none")
    return default_options(wanted, base=file, **known)


def _folder(path: str | None) -> Path | None:
    return None if path is None else Path(path)


def report(fields: dict[str, Any], progress: Callable[[int, int], None]) -> None:
    """Show one message of progress."""
    if "note" in fields:
        console.say(fields["note"])
    if "done" in fields:
        progress(round(fields["done"] * SHARES), SHARES)
    scores = {key: fields[key] for key in ("map50", "map50_95", "accuracy") if key in fields}
    if scores:
        console.say(f"step {fields['step']}: " + ", ".join(f"{key} {value:.3f}" for key, value in scores.items()))


def _show(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        console.result_json(result)
        return
    val = result.pop("val")
    kept = ("map50", "map50_95", "accuracy", "balanced", "images")
    console.show({**result, **{f"val {key}": val[key] for key in kept if key in val}}, as_json=False)


def augment_of(settings: list[str]) -> Any:
    """Return the changes of training images in `KEY=NUMBER` settings. Raises `ConfigError`."""
    from engine.errors import ConfigError
    from pipelines.learning.train.options import Augment

    values: dict[str, Any] = {}
    for setting in settings:
        key, sign, text = setting.partition("=")
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if not sign or key not in Augment.__dataclass_fields__ or len(numbers) != (2 if key == "scale" else 1):
            known = ", ".join(Augment.__dataclass_fields__)
            raise ConfigError(f"--augment {setting}: expected one of {known}, =NUMBER; scale=0.7,1.3")
        values[key] = tuple(numbers) if key == "scale" else numbers[0]
    return Augment(**values)
