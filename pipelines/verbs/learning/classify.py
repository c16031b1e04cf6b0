"""`framewire classify`: train classifiers of crops or frames."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines import console
from pipelines.verbs.options import Json

classify = typer.Typer(name="classify", help="Train a classifier of crops or whole frames.", no_args_is_help=True)

Prepare = Annotated[
    str | None,
    typer.Option(help="CONFIG.yaml:SOURCE, whose `prepare:` is applied to each image, as to the camera's frames"),
]


@classify.callback()
def _classify() -> None:
    """Keep `train` a separate command."""


@classify.command(name="train")
def classify_train(
    folder: Annotated[str, typer.Argument(help="Folder with one subfolder of images per class, or train/ and test/")],
    method: Annotated[str, typer.Option("--with", help="hog-svm, sift-words, features, resnet50 or cnn")] = "hog-svm",
    out: Annotated[str | None, typer.Option(help="File to write; .npz for sift-words, .onnx for the others")] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", "--weights", help="features: a classifier in ONNX, or efficientnet-lite0; resnet50: a .pth file"
        ),
    ] = None,
    budget: Annotated[str, typer.Option(help="resnet50, cnn: time or epochs: 10m, 30e")] = "10m",
    size: Annotated[int | None, typer.Option(help="hog-svm: side of the image in pixels, a multiple of 8")] = None,
    words: Annotated[int, typer.Option(help="sift-words: size of the vocabulary")] = 64,
    frames: Annotated[
        bool, typer.Option("--frames", help="Whole frames, cropped at the centre; otherwise crops")
    ] = False,
    holdout: Annotated[float, typer.Option(help="Share of each class held out for scoring")] = 0.25,
    seed: Annotated[int, typer.Option(help="Seed of every random choice")] = 0,
    prepare: Prepare = None,
    as_json: Json = False,
) -> None:
    """Train a classifier and score it on held-out images.

    The file runs in the engine: --set second_stage.model=FILE, or --model FILE --set detector.task=classify with
    images of whole frames (--frames).
    """
    from engine.detection.words.file import SUFFIX
    from pipelines.build.sources import prepared_as
    from pipelines.learning.classic.train import ClassicOptions, train_classic

    suffix = SUFFIX if method == "sift-words" else ".onnx"
    if method in ("resnet50", "cnn"):
        _show_run(_trained(folder, method, out, base, budget, seed), as_json=as_json)
        return
    options = ClassicOptions(
        method,
        size=size,
        words=words,
        base=None if base is None else _base(base),
        whole_frames=frames,
        holdout=holdout,
        seed=seed,
        preparation=None if prepare is None else prepared_as(prepare),
    )
    with console.progress_bar("images") as progress:
        result = train_classic(Path(folder), Path(out or f"classifier{suffix}"), options, progress).as_dict()
    if as_json:
        console.result_json(result)
        return
    show_classes(result)


def _base(base: str) -> Path:
    """Return the file of a base; EfficientNet-Lite0 is created from its packages."""
    from pipelines.learning.train.pretrained import NAME, efficientnet_lite0

    return efficientnet_lite0() if base == NAME else Path(base)


def _trained(folder: str, arch: str, out: str | None, base: str | None, budget: str, seed: int) -> dict[str, Any]:
    """Train by deep learning in a temporary run and return its summary; the model is moved to `out`."""
    import shutil
    import tempfile

    from pipelines.learning.classic.train import check_out
    from pipelines.learning.train.options import parse_budget
    from pipelines.learning.train.run import TrainRequest, default_options, train
    from pipelines.verbs.learning.train import report

    target = Path(out or "classifier.onnx")
    check_out(target, ".onnx", arch)
    options = default_options(arch, base=base, seed=seed, **parse_budget(budget))
    with tempfile.TemporaryDirectory(dir=target.parent) as runs:
        with console.progress_bar("training") as progress:
            result = train(TrainRequest(Path(folder), Path(runs), options), lambda fields: report(fields, progress))
        shutil.move(result["model"], target)
    del result["run"]
    return {**result, "model": str(target)}


def _show_run(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        console.result_json(result)
        return
    val = result.pop("val")
    console.show({**result, "accuracy": val["accuracy"], "balanced": val["balanced"]}, as_json=False)


def show_classes(result: dict[str, Any]) -> None:
    """Print the scores of a classifier and, for each class, how often it was recognised and its usual confusions."""
    confusion, names = result.pop("confusion"), result.pop("class_names")
    console.show(result, as_json=False)
    rows = []
    for number, (name, row) in enumerate(zip(names, confusion, strict=True)):
        wrong = [(count, names[other]) for other, count in enumerate(row) if count and other != number]
        taken = ", ".join(f"{other} {count}x" for count, other in sorted(wrong, reverse=True)[:3])
        rows.append({"class": name, "right": row[number], "of": sum(row), "taken for": taken or "-"})
    console.show_rows("Classes", rows)
