"""The event log of a configuration."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from engine.optional import require
from pipelines.build.actions import actions_of_rules, build_actions
from pipelines.build.media import build_event_media, keep_options
from pipelines.config.models import Config

if TYPE_CHECKING:
    from engine.events.log import EventFollower, EventLog
    from engine.events.store.place import StorePlace
    from engine.flow.pipeline import Pipeline
    from engine.sinks.camera_video.recordings import Recordings


def events_place(config: Config) -> StorePlace:
    """Return where the event log of a configuration is.

    Raises:
        ConfigError: it has none, or the address of its server is invalid.
    """
    return place_of(config.events.folder, config.events.store)


def place_of(folder: str | None, store: str | None) -> StorePlace:
    """Return the place of a log. Raises `ConfigError` if it is invalid."""
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
    """Return the sink that stores events; None if `events.folder` is not set.

    Args:
        config: the configuration.
        recordings: records the sources of clips; None: nothing is recorded.

    Raises:
        ConfigError: `events.store` is not the address of a server, or has no folder for its media; or an action is
            invalid.
    """
    actions = build_actions(config, (lambda source_id, seconds: None) if recordings is None else recordings.hold)
    if config.events.folder is None and config.events.store is None:
        return None
    from engine.events.log import EventLog

    place = events_place(config)
    media = build_event_media(config, place, recordings)
    planner, outbox = actions or (None, None)
    followers: list[EventFollower] = [media] if outbox is None else [media, outbox]
    return EventLog(
        place,
        clip_severities=config.events.clips.severities,
        keep_tracks=config.events.keep.tracks_d > 0,
        followers=followers,
        planner=planner,
    )


def event_log_of(pipeline: Pipeline) -> EventLog | None:
    """Return the event log of a pipeline; None if it has none."""
    named = [sink for sink in pipeline.sinks if sink.name == "events"]
    if not named:
        return None  # without importing a database
    from engine.events.log import EventLog

    return next((sink for sink in named if isinstance(sink, EventLog)), None)


def change_actions(pipeline: Pipeline, config: Config) -> None:
    """Apply a new configuration's assignment of actions to rules."""
    log = event_log_of(pipeline)
    if log is None:
        return
    from engine.events.actions.restraint import Restraint

    if isinstance(log.planner, Restraint):
        log.planner.change(actions_of_rules(config))


def change_keep(pipeline: Pipeline, config: Config) -> None:
    """Apply a new configuration's retention limits."""
    log = event_log_of(pipeline)
    if log is None:
        return
    from engine.events.media.event_media import EventMedia

    log.keep_tracks = config.events.keep.tracks_d > 0
    for follower in log.followers:
        if isinstance(follower, EventMedia) and follower.upkeep is not None:
            follower.upkeep.change(keep_options(config.events.keep))


def events_of(pipeline: Pipeline) -> dict[str, Any]:
    """Return `{"events": figures, "actions": {name: outcomes}}` of a pipeline's event log, if it has them."""
    log = event_log_of(pipeline)
    if log is None:
        return {}
    from engine.events.media.event_media import EventMedia

    media = [follower.figures() for follower in log.followers if isinstance(follower, EventMedia)]
    found: dict[str, Any] = {"events": {**asdict(log.figures()), **(media[0] if media else {})}}
    return {**found, **({"actions": actions} if (actions := actions_of(log)) else {})}


def actions_of(log: EventLog) -> dict[str, dict[str, Any]]:
    """Return the outcomes of each action's messages: `sent`, `retried`, `failed`, and `held_back` by cause."""
    from engine.events.actions.outbox import Outbox
    from engine.events.actions.restraint import Restraint

    outcomes = next((each.summary() for each in log.followers if isinstance(each, Outbox)), {})
    held_back = log.planner.held_back() if isinstance(log.planner, Restraint) else {}
    return {name: {**outcome, "held_back": held_back.get(name, {})} for name, outcome in outcomes.items()}
