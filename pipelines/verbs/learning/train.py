"""`framewire train`: detectors and classifiers by deep learning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines import console
from pipelines.verbs.options import Json

SHARES = 1000


def train(
    data: Annotated[str, typer.Argument(help="Data set: images/ and labels/ with data.yaml, or folders of classes")],
    arch: Annotated[
        str, typer.Option(help="deimv2-femto, deimv2-atto, fasterrcnn-r50; classifiers: resnet50, cnn")
    ] = "deimv2-femto",
    base: Annotated[
        str | None, typer.Option("--base", "--weights", help="Pretrained model by name, ONNX file or checkpoint")
    ] = None,
    budget: Annotated[str, typer.Option(help="Time or epochs: 10m, 90s, 30e")] = "10m",
    out: Annotated[str, typer.Option(help="Folder of the numbered runs")] = "runs",
    classes: Annotated[
        str | None, typer.Option(help="Names in the order of the labels, where no file says them")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Rows and columns of the input, a multiple of 32")] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures per step")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of the pretrained part")] = None,
    freeze: Annotated[str, typer.Option(help="none, or backbone: keep the pretrained features")] = "none",
    augment: Annotated[
        list[str] | None, typer.Option(help="Strength of a change: flip=0.5 colour scale translate crop distort mosaic")
    ] = None,
    search: Annotated[int, typer.Option(help="Trials of a search for learning rate and more; half of the budget")] = 0,
    robust: Annotated[str, typer.Option(help="Classifiers: none, noise or adversarial")] = "none",
    epsilon: Annotated[str, typer.Option(help="For --robust: largest change of a pixel: 8/255")] = "8/255",
    seed: Annotated[int, typer.Option(help="Of every random choice")] = 0,
    resume: Annotated[str | None, typer.Option(help="Folder of an interrupted run to go on with")] = None,
    as_json: Json = False,
) -> None:
    """Train a model on your pictures and write an ONNX file that the engine runs.

    The test part of a data set is never read. Each run has a folder of its own with the model, checkpoints, curves,
    scores and a manifest.
    """
    from pipelines.learning.testing.attack import parse_share
    from pipelines.learning.train.options import parse_budget
    from pipelines.learning.train.run import TrainRequest, default_options, train

    options = default_options(
        arch,
        base=_base_path(base),
        size=size,
        batch=batch,
        lr=lr,
        freeze=freeze,
        robust=robust,
        epsilon=parse_share(epsilon),
        seed=seed,
        augment=augment_of(augment or []),
        **parse_budget(budget),
    )
    names = [name.strip() for name in classes.split(",")] if classes else None
    request = TrainRequest(Path(data), Path(out), options, names, search, None if resume is None else Path(resume))
    with console.progress_bar("training") as progress:

        def tell(fields: dict[str, Any]) -> None:
            if "note" in fields:
                console.say(fields["note"])
            if "done" in fields:
                progress(round(fields["done"] * SHARES), SHARES)
            scores = {key: fields[key] for key in ("map50", "map50_95", "accuracy") if key in fields}
            if scores:
                console.say(
                    f"step {fields['step']}: " + ", ".join(f"{key} {value:.3f}" for key, value in scores.items())
                )

        result = train(request, tell)
    if as_json:
        console.result_json(result)
        return
    val = result.pop("val")
    kept = ("map50", "map50_95", "accuracy", "balanced", "images")
    console.show({**result, **{f"val {key}": val[key] for key in kept if key in val}}, as_json=False)


def _base_path(base: str | None) -> str | None:
    """Return the file of a base: by name where that is known, or the file itself."""
    if base is None or base == "none":
        return None
    from pipelines.build.detector import model_path

    return str(model_path(base))


def augment_of(settings: list[str]) -> Any:
    """Return the changes of training pictures in `KEY=NUMBER` settings. Raises `ConfigError`."""
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
