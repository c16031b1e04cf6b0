"""`framewire eval`: scores of a detector or a tracker."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.errors import ConfigError
from pipelines import console
from pipelines.verbs.options import Json, class_of

evaluate = typer.Typer(
    name="eval", help="Score a detector or a tracker with the standard metrics.", no_args_is_help=True
)


@evaluate.command(name="track")
def eval_track(
    gt: Annotated[str, typer.Option(help="Ground truth in MOTChallenge form")],
    pred: Annotated[str | None, typer.Option(help="Tracks in MOTChallenge form")] = None,
    source: Annotated[str | None, typer.Option(help="Clip to run the whole pipeline on, instead of --pred")] = None,
    model: Annotated[str, typer.Option(help="With --source: model file or folder")] = "demo",
    tracker: Annotated[str | None, typer.Option(help="With --source: name of the tracker")] = None,
    classes: Annotated[str, typer.Option(help="With --source: classes that count")] = "person",
    setting: Annotated[list[str] | None, typer.Option("--set", help="With --source: any key")] = None,
    as_json: Json = False,
) -> None:
    """Score tracks: HOTA (DetA, AssA), MOTA, IDF1, id switches, fragments."""
    from pipelines.scoring.track import evaluate_mot

    if (pred is None) == (source is None):
        raise ConfigError("give either --pred FILE or --source CLIP")
    if pred is not None:
        console.show(evaluate_mot(gt, pred).as_dict(), as_json=as_json)
        return
    from pipelines.config.file import load_config
    from pipelines.scoring.clip import evaluate_clip

    overrides: dict[str, Any] = {
        "sources": [{"uri": source}],
        "detector.model": model,
        "detector.classes": [class_of(name) for name in classes.split(",")],
        **({} if tracker is None else {"tracker.type": tracker}),
    }
    console.show(evaluate_clip(load_config(None, overrides, setting or []), gt), as_json=as_json)


@evaluate.command(name="detect")
def eval_detect(
    model: Annotated[str, typer.Option(help="Model file or folder; demo: the embedded one")],
    images: Annotated[str, typer.Option(help="Folder of images, or one with images/ and labels/")],
    labels: Annotated[str | None, typer.Option(help="Folder of YOLO texts, or a COCO JSON")] = None,
    backend: Annotated[str, typer.Option(help="auto, openvino, onnxruntime or tensorrt")] = "auto",
    setting: Annotated[list[str] | None, typer.Option("--set", help="Key of detector: letterbox=stretch")] = None,
    as_json: Json = False,
) -> None:
    """Score a detector: COCO mAP50, mAP50-95, AP per class, ms per image."""
    from pipelines.build.detector import model_path
    from pipelines.scoring.detect import evaluate_detect

    options = _detector_options(setting)
    with console.progress_bar("images") as progress:
        found = evaluate_detect(model_path(model), images, labels, backend=backend, progress=progress, **options)
    scores = found.as_dict()
    if as_json:
        console.result_json(scores)
        return
    per_class = scores.pop("per_class")
    console.show(scores, as_json=False)
    console.show_rows("AP per class", [{"class": name, **score} for name, score in per_class.items()])


def _detector_options(settings: list[str] | None) -> dict[str, Any]:
    """Return the checked keys of `detector:` that were given, if scoring supports them."""
    from pipelines.config.file import load_config

    config = load_config(None, {}, [f"detector.{text}" for text in settings or []])
    options = config.detector.model_dump(exclude_unset=True)
    refused = options.keys() & {"model", "backend", "task", "tile"} or {
        key for key in options if options[key] == "auto"
    }
    if refused:
        raise ConfigError(f"--set {min(refused)}: scoring knows the keys that say how the model itself is fed and run")
    if options.get("max_batch", 1) is None:
        del options["max_batch"]  # the backend's choice, which is 1 for one image at a time
    rebuild = options.pop("rebuild", None)
    if rebuild == "background":
        raise ConfigError("--set rebuild=background: scoring waits for its plan: expected foreground or never")
    return options if rebuild is None else options | {"build_plans": rebuild != "never"}
