"""`framewire check`: validate a configuration without running it."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines import console
from pipelines.verbs.options import Settings
from pipelines.verbs.running.start import opening_line


def check(
    config: Annotated[str, typer.Argument(help="YAML file or preset")],
    setting: Settings = None,
) -> None:
    """Validate a configuration, its model file, its device and its file sources, without running it."""
    from pipelines.build.edits import edits_file
    from pipelines.build.models import check_devices
    from pipelines.build.pipeline import build_pipeline
    from pipelines.config.file import load_config
    from pipelines.workers.split import check_workers

    loaded = load_config(config, {}, setting or [])
    kept = edits_file(config, loaded)
    loaded, notes = (loaded, []) if kept is None else kept.applied_to(loaded)
    for note in notes:
        console.say(note)
    check_workers(loaded)
    pipeline = build_pipeline(loaded)
    check_devices(loaded, {name: lane.detector for name, lane in pipeline.models.items()})
    sources = ", ".join(f"{source.info.source_id} ({source.info.uri})" for source in pipeline.sources)
    console.result(
        f"{config} is valid: {sources}; {opening_line(loaded.publish.bound, pipeline, loaded.publish.connect)}"
    )
