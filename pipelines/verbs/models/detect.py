"""`framewire detect`: detections on single images."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipelines import console
from pipelines.verbs.options import Json, class_of


def detect(
    images: Annotated[list[str], typer.Argument(help="Images and folders of images")],
    model: Annotated[str, typer.Option(help="Model file or folder; demo: the embedded one")] = "demo",
    backend: Annotated[str, typer.Option(help="auto, openvino, onnxruntime or tensorrt")] = "auto",
    save: Annotated[str | None, typer.Option(help="Folder for annotated images")] = None,
    jsonl: Annotated[str | None, typer.Option(help="File for one line of JSON per image; - is stdout")] = None,
    score: Annotated[
        float | None,
        typer.Option(help="Drop detections below this score; default: the model file's value, else 0.25"),
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Keep these classes: person,car")] = None,
    privacy: Annotated[str, typer.Option(help="Hide people: none, blur, silhouette or no_images")] = "none",
    setting: Annotated[list[str] | None, typer.Option("--set", help="Any key of detector: iou_threshold=0.5")] = None,
    as_json: Json = False,
) -> None:
    """Detect objects on images and print them."""
    from engine.sinks.jsonl import STDOUT
    from pipelines.build.detector import build_detector, tiled
    from pipelines.build.privacy import build_privacy, check_hidden_classes
    from pipelines.config.file import load_config
    from pipelines.models.detect_images import detect_to_files

    overrides: dict[str, Any] = {
        "detector.model": model,
        "detector.backend": backend,
        "detector.score_threshold": score,
        "privacy.mode": privacy,
        "detector.classes": [class_of(name) for name in classes.split(",")] if classes else None,
    }
    config = load_config(None, overrides, [f"detector.{text}" for text in setting or []])
    detector = tiled(config, build_detector(config, []))
    check_hidden_classes(config.privacy, detector.class_names)
    hide = build_privacy(config)
    with console.progress_bar("images") as progress:
        lines = jsonl == STDOUT
        results = detect_to_files(
            detector,
            images,
            save=save,
            jsonl=None if lines else jsonl,
            hide=None if hide is None else hide.hide,
            progress=progress,
        )
        if as_json:
            console.result_json(list(results))
            return
        for result in results:
            if lines:
                console.result_json(result)
                continue
            found = ", ".join(f"{o['class_name']} {o['score']:.2f}" for o in result["objects"]) or "nothing"
            console.result(f"{result['image']} {result['width']}x{result['height']}: {found}")
