"""`framewire build`: a TensorRT plan from an ONNX file."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines import console
from pipelines.verbs.options import Json, ModelSettings, told_of_model


def build(
    model: Annotated[str, typer.Argument(help="ONNX file")],
    out: Annotated[str | None, typer.Option(help="Plan file to write; the cache by default")] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp16, fp32 or int8 (accuracy is checked); default: fp16 if possible")
    ] = None,
    batch: Annotated[str, typer.Option(help="N, MIN:MAX or MIN:OPTIMAL:MAX")] = "1",
    imgsz: Annotated[
        str | None, typer.Option(help="640, or ROWSxCOLUMNS: for models with a dynamic input size, or a rectangle")
    ] = None,
    workspace: Annotated[int | None, typer.Option(help="MiB of GPU memory for building")] = None,
    dla: Annotated[int | None, typer.Option(help="DLA core of a Jetson")] = None,
    images: Annotated[str | None, typer.Option(help="Folder with your own images, for int8")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Labels of these images, to evaluate int8 by mAP: YOLO files or COCO")
    ] = None,
    max_loss: Annotated[float | None, typer.Option(help="Share of the boxes, or of the mAP, int8 may lose")] = None,
    library: Annotated[str | None, typer.Option(help="tensorrt or tensorrt_rtx; the installed one by default")] = None,
    cache_dir: Annotated[str | None, typer.Option(help="Folder of plans; next to the model by default")] = None,
    setting: ModelSettings = None,
    as_json: Json = False,
) -> None:
    """Build a TensorRT plan from an ONNX file, or find it in the cache."""
    from pipelines.models.build_plan import BuildRequest, parse_size
    from pipelines.models.build_plan import build as build_plan

    given = told_of_model(setting)
    side = given.pop("size", None)
    request = BuildRequest(
        model,
        out,
        precision,
        batch,
        side if imgsz is None else parse_size(imgsz),
        workspace,
        dla,
        images,
        library=library,
        cache_dir=cache_dir,
        labels=labels,
        max_loss=max_loss,
        given=given,
    )
    built = build_plan(request, lambda share, what: console.say(f"{share:.0%} {what}")).as_dict()
    console.show(built, as_json=as_json)
