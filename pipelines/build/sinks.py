"""The outputs of a configuration."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.data import Packet
from engine.errors import SinkError
from engine.protocols import Sink
from pipelines.build.events import build_event_log
from pipelines.build.parts import own_sinks
from pipelines.build.push import check_push, push_addresses
from pipelines.build.sources import build_recordings, can_change, named_sources
from pipelines.config.metrics import TracingConfig
from pipelines.config.models import Config, PublishConfig

if TYPE_CHECKING:
    from engine.sinks.media import MediaPublisher
    from engine.sinks.zmq import ZmqPublisher

logger = logging.getLogger(__name__)
PORTS_TRIED = 100
NOT_OF_STREAM = ("address", "keys", "allowed_keys", "connect_key", "pictures", "media", "rtsp", "rtmp", "tls")


def build_sinks(
    config: Config,
    source_count: int,
    on_quit: Callable[[], None] | None,
    bound: ZmqPublisher | None = None,
    *,
    shares_files: bool = False,
) -> list[Sink]:
    """Return the configured outputs.

    Args:
        config: of the run.
        source_count: how many sources there are.
        on_quit: called when the user closes the window.
        bound: the publisher to use; None: a new one.
        shares_files: other processes of the same run write the results of their sources to the same files.
    """
    sinks: list[Sink] = []
    plans = build_recordings(config)
    recordings = None
    if plans or can_change(config):
        from engine.sinks.camera_video.recordings import Recordings

        recordings = Recordings(plans)
        sinks.append(recordings)
    if config.publish.has_stream:
        sinks += _publishers(config.publish, bound or _publisher(config.publish, config.tracing))
    log = build_event_log(config, recordings)
    if log is not None:
        sinks.append(log)  # after the publisher, so that messages do not wait for it
    if config.output.jsonl is not None:
        from engine.sinks.jsonl import JsonlWriter

        sinks.append(JsonlWriter(config.output.jsonl, append=shares_files))
    if config.output.save is not None:
        sinks.append(_video(config, config.output.save, 2 if shares_files else source_count))
    if config.tracing.endpoint is not None:
        from engine.sinks.traces import TraceSink

        sinks.append(TraceSink(config.tracing.endpoint, config.tracing.every))
    if config.output.show:
        from engine.imaging.grid import Grid
        from engine.sinks.window import Window

        grid = Grid([source_id for source_id, _ in named_sources(config)]) if config.output.grid else None
        sinks.append(Window(draw=_overlay(config), on_quit=on_quit, grid=grid))
    if config.publish.rtsp is not None or config.publish.rtmp is not None:
        sinks.append(_push(config))
    return [*sinks, *own_sinks(config)]


def _video(config: Config, path: str, source_count: int) -> Sink:
    """Return the sink that writes the annotated video: a grid, or a file per source."""
    names = [source_id for source_id, _ in named_sources(config)]
    if config.output.grid:
        from engine.sinks.grid_video import GridVideo

        return GridVideo(path, _overlay(config), names)
    from engine.sinks.video import VideoWriter

    first = names[0] if source_count == 1 else None  # keeps the configured name
    return VideoWriter(path, per_source=source_count > 1 or can_change(config), first=first, draw=_overlay(config))


def _push(config: Config) -> Sink:
    """Return the sink that pushes the annotated video."""
    from engine.imaging.grid import Grid
    from engine.sinks.video_push.push import VideoPush

    names = [source_id for source_id, _ in named_sources(config)]
    grid = Grid(names) if config.output.grid else None
    check_push(config)
    return VideoPush(lambda source_id: push_addresses(config.publish, source_id), _overlay(config), grid)


def _publishers(config: PublishConfig, publisher: ZmqPublisher) -> list[Sink]:
    """Return the publisher, preceded by the live-image socket if there is one, which only takes references."""
    if config.media is None:
        return [publisher]
    media = _media(config, config.media)
    media.bind()
    publisher.endpoints["media"] = media.address
    return [media, publisher]


def bound_publisher(config: Config) -> ZmqPublisher | None:
    """Return the publisher with its ports bound, so that a port in use is noticed before a model is loaded.

    If no address is given and the default port is in use, the next free port is used.

    Raises:
        SinkError: a configured port is in use.
    """
    if not config.publish.has_stream:
        return None
    given = "address" in config.publish.model_fields_set or config.publish.bound == "none"
    host, _, port = config.publish.address.rpartition(":")
    addresses = [config.publish.bound] if given else [f"{host}:{int(port) + n}" for n in range(PORTS_TRIED)]
    for address in addresses:
        publisher = _publisher(config.publish.model_copy(update={"address": address}), config.tracing)
        try:
            publisher.bind()
        except SinkError as error:
            if address == addresses[-1] or getattr(error.__cause__, "errno", None) != errno.EADDRINUSE:
                raise
            continue
        if address != addresses[0]:
            logger.warning("port %s is in use: publishing at %s", port, address)
        return publisher
    return None


def _publisher(config: PublishConfig, tracing: TracingConfig) -> ZmqPublisher:
    from engine.sinks.pictures import Pictures
    from engine.sinks.zmq import ZmqPublisher
    from engine.transport.keys import load_key_pair, load_public_key, load_public_keys

    return ZmqPublisher(
        config.bound,
        keys=load_key_pair(config.keys) if config.keys else None,
        allowed_keys=load_public_keys(config.allowed_keys) if config.allowed_keys is not None else None,
        trace_every=None if tracing.endpoint is None else tracing.every,
        pictures=Pictures(**config.pictures.model_dump()) if config.pictures is not None else None,
        connect_key=load_public_key(config.connect_key) if config.connect_key else None,
        **config.model_dump(exclude=set(NOT_OF_STREAM)),
    )


def _media(config: PublishConfig, address: str) -> MediaPublisher:
    from engine.sinks.media import MediaPublisher
    from engine.sinks.pictures import Pictures
    from engine.transport.keys import load_key_pair, load_public_keys

    return MediaPublisher(
        address,
        pictures=Pictures(**config.pictures.model_dump()) if config.pictures is not None else None,
        keys=load_key_pair(config.keys) if config.keys else None,
        allowed_keys=load_public_keys(config.allowed_keys) if config.allowed_keys is not None else None,
    )


def _overlay(config: Config) -> Callable[[Packet], NDArray[np.uint8]]:
    """Return the overlay, loaded in advance: loading takes a second of CPU time, which live frames cannot wait for."""
    from zoneinfo import ZoneInfo

    from engine.imaging.overlay import Overlay
    from engine.optional import require

    require("supervision")
    options = config.output.overlay
    caption = options.caption or (config.output.grid and "caption" not in options.model_fields_set)
    return Overlay(**{**options.model_dump(), "caption": caption}, zone=ZoneInfo(config.site.timezone)).draw
