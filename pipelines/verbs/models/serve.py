"""`framewire serve`: recognise images over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines import console
from pipelines.verbs.options import Json, Metrics

MB = 1024 * 1024


def serve(
    model: Annotated[list[str] | None, typer.Option(help="[NAME=]MODEL, any number; default: the embedded one")] = None,
    http: Annotated[str, typer.Option(help="Address to listen on, HOST:PORT; port 0: a free one")] = "127.0.0.1:8000",
    backend: Annotated[str, typer.Option(help="auto, openvino, onnxruntime or tensorrt")] = "auto",
    score: Annotated[float | None, typer.Option(min=0, max=1, help="Lowest score reported; default 0.25")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="Any key of detector: iou_threshold=0.5")] = None,
    queue: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum waiting and running requests per model")] = 32,
    max_wait_ms: Annotated[float, typer.Option(min=1, help="Longest wait; then the answer is 429")] = 2000,
    max_image_mb: Annotated[int, typer.Option(min=1, max=200, help="Largest encoded image")] = 16,
    max_megapixels: Annotated[float, typer.Option(min=0.1, max=64, help="Largest image, in million pixels")] = 25,
    tls: Annotated[str | None, typer.Option(help="Files CERTIFICATE,KEY; required unless on loopback")] = None,
    token_file: Annotated[str | None, typer.Option(help="File with a token per line; needed off loopback")] = None,
    behind_proxy: Annotated[list[str] | None, typer.Option(help="Address of a proxy with TLS and login")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="Host name by which clients reach this server")] = None,
    allow_origin: Annotated[list[str] | None, typer.Option(help="Origin of another site's page")] = None,
    rate: Annotated[float | None, typer.Option(min=0, help="Requests per second and client; 0: no limit")] = None,
    metrics: Metrics = None,
    as_json: Json = False,
) -> None:
    """Find objects in images sent over HTTP, through a JSON API or the Open Inference Protocol (KServe v2)."""
    from pipelines.running.detect_and_publish import Interrupt
    from pipelines.serving.models import load_models
    from pipelines.serving.requests import AppLimits
    from pipelines.serving.run import ServeOptions, gate_rules, serve_models
    from pipelines.web.access.listen import Listen
    from pipelines.web.access.tls import TlsFiles

    limits = AppLimits(image_bytes=max_image_mb * MB, pixels=int(max_megapixels * 1e6))
    options = ServeOptions(
        Listen.parse(http, "--http"),
        TlsFiles.parse(tls) if tls else None,
        token_file,
        tuple(behind_proxy or ()),
        tuple(allow_host or ()),
        tuple(allow_origin or ()),
        rate,
        limits,
        metrics,
    )
    gate_rules(options)  # rejects invalid options before models are read
    models = load_models(
        model or ["demo"],
        backend=backend,
        score=score,
        settings=setting or [],
        places=queue,
        max_wait_ms=max_wait_ms,
    )
    with Interrupt() as interrupt:
        done = serve_models(
            models,
            options,
            stopping=lambda: interrupt.requested,
            listening=lambda url: console.say(f"serving {', '.join(models)} at {url} (Ctrl-C ends)"),
            ready=lambda: console.say("ready"),
        )
    console.show(done, as_json=as_json)
