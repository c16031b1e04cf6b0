"""`framewire eval`: scores of a detector or a tracker."""

from __future__ import annotations

from pathlib import Path
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


Corruptions = Annotated[bool, typer.Option("--corruptions", help="Also score under 12 kinds of image corruption")]
Strengths = Annotated[str, typer.Option(help="Strengths of the corruptions, 1 to 5: 3, or 1,3,5")]
Compare = Annotated[str | None, typer.Option(help="A second model: the difference with its 95 % interval")]
ReportFile = Annotated[str | None, typer.Option(help="HTML file to write, with images")]
Prepare = Annotated[
    str | None, typer.Option(help="CONFIG.yaml:SOURCE, whose `prepare:` is applied to each image first")
]


@evaluate.command(name="detect")
def eval_detect(
    model: Annotated[str, typer.Option(help="Model file or folder; demo: the embedded one")],
    images: Annotated[str, typer.Option(help="Folder of images, or one with images/ and labels/")],
    labels: Annotated[str | None, typer.Option(help="Folder of YOLO text files, or a COCO JSON file")] = None,
    backend: Annotated[str, typer.Option(help="auto, openvino, onnxruntime or tensorrt")] = "auto",
    corruptions: Corruptions = False,
    strengths: Strengths = "1,2,3,4,5",
    compare: Compare = None,
    context: Annotated[bool, typer.Option("--context", help="Try to rescore by the objects near each object")] = False,
    report: ReportFile = None,
    prepare: Prepare = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="Key of detector: letterbox=stretch")] = None,
    as_json: Json = False,
) -> None:
    """Score a detector: COCO mAP50, mAP50-95, AP per class, ms per image."""
    from pipelines.build.detector import model_path
    from pipelines.build.sources import prepared_as
    from pipelines.learning.testing.corruptions import parse_strengths
    from pipelines.learning.testing.detectors import DetectorTest, run_detector_test

    options = _detector_options(setting)
    wanted = DetectorTest(
        model_path(model),
        Path(images),
        None if labels is None else Path(labels),
        strengths=parse_strengths(strengths) if corruptions else (),
        compare=None if compare is None else model_path(compare),
        context=context,
        report=None if report is None else Path(report),
        preparation=None if prepare is None else prepared_as(prepare),
    )
    with console.progress_bar("images") as progress:
        scores = run_detector_test(wanted, progress, backend=backend, **options)
    if as_json:
        console.result_json(scores)
        return
    per_class, corrupted = scores.pop("per_class"), scores.pop("corruptions", None)
    console.show(scores, as_json=False)
    console.show_rows("AP per class", [{"class": name, **score} for name, score in per_class.items()])
    _show_corruptions("mAP50-95", corrupted and corrupted["map50_95"])


@evaluate.command(name="classify")
def eval_classify(
    model: Annotated[str, typer.Option(help="Classification model: .onnx, or .npz of SIFT words")],
    images: Annotated[str, typer.Option(help="Folder with one subfolder of images per class")],
    frames: Annotated[
        bool, typer.Option("--frames", help="Whole frames, cropped at the centre; otherwise crops")
    ] = False,
    corruptions: Corruptions = False,
    strengths: Strengths = "1,2,3,4,5",
    compare: Compare = None,
    adversarial: Annotated[
        str | None, typer.Option(help="Attack by gradients, with this largest change of a pixel: 4/255 (needs torch)")
    ] = None,
    certify: Annotated[
        float | None, typer.Option(help="Certify answers under noise with this deviation, as a share of the range: 0.1")
    ] = None,
    report: ReportFile = None,
    prepare: Prepare = None,
    as_json: Json = False,
) -> None:
    """Score a classifier: accuracy, recall and precision per class, confusion."""
    from pipelines.build.sources import prepared_as
    from pipelines.learning.testing.attack import parse_share
    from pipelines.learning.testing.classifiers import ClassifierTest, run_classifier_test
    from pipelines.learning.testing.corruptions import parse_strengths

    wanted = ClassifierTest(
        Path(model),
        Path(images),
        whole_frames=frames,
        strengths=parse_strengths(strengths) if corruptions else (),
        compare=None if compare is None else Path(compare),
        adversarial=None if adversarial is None else parse_share(adversarial),
        sigma=certify,
        report=None if report is None else Path(report),
        preparation=None if prepare is None else prepared_as(prepare),
    )
    with console.progress_bar("images") as progress:
        scores = run_classifier_test(wanted, progress)
    if as_json:
        console.result_json(scores)
        return
    per_class, corrupted = scores.pop("per_class"), scores.pop("corruptions", None)
    hidden = ("confusion", "class_names")
    console.show({key: value for key, value in scores.items() if key not in hidden}, as_json=False)
    console.show_rows("Classes", [{"class": name, **score} for name, score in per_class.items()])
    _show_corruptions("Accuracy", corrupted and corrupted["accuracy"])


def _show_corruptions(score: str, table: dict[str, dict[str, float]] | None) -> None:
    if table:
        console.show_rows(f"{score} by strength", [{"corruption": kind, **row} for kind, row in table.items()])


def _detector_options(settings: list[str] | None) -> dict[str, Any]:
    """Return the checked keys of `detector:` that were given, if scoring supports them."""
    from pipelines.config.file import load_config

    config = load_config(None, {}, [f"detector.{text}" for text in settings or []])
    options = config.detector.model_dump(exclude_unset=True)
    refused = options.keys() & {"model", "backend", "task", "tile"} or {
        key for key in options if options[key] == "auto"
    }
    if refused:
        raise ConfigError(
            f"--set {min(refused)}: scoring only accepts keys that define how the model itself is fed and run"
        )
    if options.get("max_batch", 1) is None:
        del options["max_batch"]  # the backend's choice, which is 1 for one image at a time
    rebuild = options.pop("rebuild", None)
    if rebuild == "background":
        raise ConfigError("--set rebuild=background: scoring waits for its plan: expected foreground or never")
    return options if rebuild is None else options | {"build_plans": rebuild != "never"}
