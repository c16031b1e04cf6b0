"""`framewire label`: draw boxes in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines import console
from pipelines.verbs.options import Json


def label(
    folder: Annotated[str, typer.Argument(help="Project folder, for example gate.fwm")],
    assist: Annotated[
        str, typer.Option(help="Model that suggests boxes, by file or name; none: no suggestions")
    ] = "demo",
    http: Annotated[str, typer.Option(help="Address to listen on, HOST:PORT; port 0: a free one")] = "127.0.0.1:8090",
    tls: Annotated[str | None, typer.Option(help="Files CERTIFICATE,KEY; required unless on loopback")] = None,
    token_file: Annotated[
        str | None, typer.Option(help="File with a token per line; required unless on loopback")
    ] = None,
    behind_proxy: Annotated[
        list[str] | None, typer.Option(help="Address of a proxy that handles TLS and login")
    ] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="Host name by which browsers reach this server")] = None,
    as_json: Json = False,
) -> None:
    """Label the images of a project in the browser, with a model's suggestions.

    A suggestion is dashed, and does not become a label until you accept it with a key. Press ? to see all keys.
    """
    from engine.backends.files.base import find_model
    from pipelines.build.detector import model_path
    from pipelines.learning.dataset.project import Project
    from pipelines.learning.label.assist import Assist
    from pipelines.learning.label.run import LabelOptions, serve_labels
    from pipelines.running.detect_and_publish import Interrupt
    from pipelines.web.access.listen import Listen
    from pipelines.web.access.tls import TlsFiles

    project = Project(folder)
    if assist != "none":
        find_model(model_path(assist))
    options = LabelOptions(
        Listen.parse(http, "--http"),
        TlsFiles.parse(tls) if tls else None,
        token_file,
        tuple(behind_proxy or ()),
        tuple(allow_host or ()),
    )
    with Interrupt() as interrupt:
        done = serve_labels(
            project,
            Assist(project, None if assist == "none" else assist),
            options,
            stopping=lambda: interrupt.requested,
            listening=lambda url: console.say(f"label {folder} at {url} (Ctrl-C ends)"),
        )
    console.show(done, as_json=as_json)
