"""The event log of a configuration."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from engine.optional import require
from engine.sinks.camera_video.recordings import Recordings
from pipelines.build.media import build_event_media
from pipelines.config.models import Config

if TYPE_CHECKING:
    from engine.events.log import EventLog
    from engine.events.store.place import StorePlace
    from engine.flow.pipeline import Pipeline


def events_place(config: Config) -> StorePlace:
    """Return where the event log of a configuration is.

    Raises:
        ConfigError: it has none, or the address of its server cannot work.
    """
    return place_of(config.events.folder, config.events.store)


def place_of(folder: str | None, store: str | None) -> StorePlace:
    """Return where a log is. Raises `ConfigError` if that cannot work."""
    from engine.events.store.database import StoreError
    from engine.events.store.place import store_place

    try:
        place = store_place(folder, store)
    except StoreError as error:
        raise ConfigError(str(error)) from error
    if place.is_server:
        require("psycopg", extra="postgres")
    return place


def build_event_log(config: Config, recordings: Recordings | None = None) -> EventLog | None:
    """Return the sink that keeps events; None if `events.folder` is not set.

    Args:
        config: the configuration.
        recordings: records the sources of clips; None: nothing is recorded.

    Raises:
        ConfigError: `events.store` is not the address of a server, or has no folder for its media.
    """
    if config.events.folder is None and config.events.store is None:
        return None
    from engine.events.log import EventLog

    place = events_place(config)
    return EventLog(
        place,
        clip_severities=config.events.clips.severities,
        keep_tracks=config.events.keep.tracks_d > 0,
        followers=[build_event_media(config, place, recordings)],
    )


def event_log_of(pipeline: Pipeline) -> EventLog | None:
    """Return the event log of a pipeline; None if it has none."""
    from engine.events.log import EventLog

    return next((sink for sink in pipeline.sinks if isinstance(sink, EventLog)), None)


def events_of(pipeline: Pipeline) -> dict[str, Any]:
    """Return `{"events": figures}` of a pipeline's event log, or an empty dict if it has none."""
    from engine.events.media.event_media import EventMedia

    log = event_log_of(pipeline)
    if log is None:
        return {}
    media = [follower.figures() for follower in log.followers if isinstance(follower, EventMedia)]
    return {"events": {**asdict(log.figures()), **(media[0] if media else {})}}
