"""Images and clips of a configuration's events."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config.events import KeepConfig
from pipelines.config.models import Config

if TYPE_CHECKING:
    from engine.events.media.clips import Recorded
    from engine.events.media.event_media import EventMedia
    from engine.events.media.retention import KeepOptions
    from engine.events.store.place import StorePlace
    from engine.sinks.camera_video.recordings import Recordings

GB = 1_000_000_000
ROOM_S = 2.0  # between the start of an event and its detection
logger = logging.getLogger(__name__)


def build_event_media(config: Config, place: StorePlace, recordings: Recordings | None) -> EventMedia:
    """Return the follower that adds images and clips to the event log at `place`."""
    from engine.events.media.clips import ClipOptions
    from engine.events.media.event_media import EventMedia
    from engine.events.media.snapshots import SnapshotOptions
    from engine.events.media.upkeep import Upkeep

    events, clips = config.events, config.events.clips
    _warn_of_short_rings(config)
    images = SnapshotOptions(tuple(events.snapshots.severities), events.snapshots.max_side, events.snapshots.quality)
    return EventMedia(
        place.folder.resolve(),
        images,
        ClipOptions(clips.before_s, clips.after_s, clips.max_s),
        _recorded_by(recordings),
        recordings,
        stills=events.snapshots.from_recording,
        upkeep=Upkeep(place, recording_folders(config), keep_options(events.keep), _written_by(recordings)),
    )


def recording_folders(config: Config) -> list[Path]:
    """Return the folders that hold one folder per recorded source."""
    return sorted({Path(source.record.folder).resolve() for source in config.sources if source.record is not None})


def keep_options(keep: KeepConfig) -> KeepOptions:
    """Return what to keep, in the units of the engine."""
    from engine.events.media.retention import KeepOptions

    return KeepOptions(
        info_d=keep.info_d,
        notice_d=keep.notice_d,
        alert_d=keep.alert_d,
        tracks_d=keep.tracks_d,
        max_bytes=None if keep.max_gb is None else int(keep.max_gb * GB),
        min_free_bytes=int(keep.min_free_gb * GB),
    )


def _warn_of_short_rings(config: Config) -> None:
    """Warn about recordings that hold less video before an event than its clip should show."""
    for index, source in enumerate(config.sources):
        record, before_s = source.record, config.events.clips.before_s
        if record is not None and record.mode == "events" and record.before_s < before_s + ROOM_S:
            logger.warning(
                "sources.%d.record.before_s is %g, and clips begin %g s before an event, which rules notice later: "
                "give at least %g, more for rules with for_s",
                index,
                record.before_s,
                before_s,
                before_s + ROOM_S,
            )


def _written_by(recordings: Recordings | None) -> Callable[[], int]:
    """Return a function that returns the bytes that recordings have written."""

    def written() -> int:
        found = {} if recordings is None else recordings.summary()
        return sum(int(figures["bytes"]) for figures in found.values())

    return written


def _recorded_by(recordings: Recordings | None) -> Callable[[str], Recorded | None]:
    """Return a function that says where a source is recorded."""
    from engine.events.media.clips import Recorded

    def recorded(source_id: str) -> Recorded | None:
        plan = recordings.plan(source_id) if recordings is not None else None
        if recordings is None or plan is None:
            return None
        return Recorded(Path(plan.files.folder), plan.is_main, recordings.is_running(source_id))

    return recorded
