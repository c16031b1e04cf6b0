"""Images and clips of a configuration's events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from engine.sinks.camera_video.recordings import Recordings
from pipelines.config.events import KeepConfig
from pipelines.config.models import Config

if TYPE_CHECKING:
    from engine.events.media.clips import Recorded
    from engine.events.media.event_media import EventMedia
    from engine.events.media.retention import KeepOptions
    from engine.events.store.place import StorePlace

GB = 1_000_000_000


def build_event_media(config: Config, place: StorePlace, recordings: Recordings | None) -> EventMedia:
    """Return what adds images and clips to the event log at `place`."""
    from engine.events.media.clips import ClipOptions
    from engine.events.media.event_media import EventMedia
    from engine.events.media.snapshots import SnapshotOptions
    from engine.events.media.upkeep import Upkeep

    events, clips = config.events, config.events.clips
    images = SnapshotOptions(tuple(events.snapshots.severities), events.snapshots.max_side, events.snapshots.quality)
    return EventMedia(
        place.folder.resolve(),
        images,
        ClipOptions(clips.before_s, clips.after_s, clips.max_s),
        _recorded_by(recordings),
        recordings,
        stills=events.snapshots.from_recording,
        upkeep=Upkeep(place, recording_folders(config), keep_options(events.keep)),
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


def _recorded_by(recordings: Recordings | None) -> Callable[[str], Recorded | None]:
    """Return a function that says where a source is recorded."""
    from engine.events.media.clips import Recorded

    def recorded(source_id: str) -> Recorded | None:
        plan = recordings.plan(source_id) if recordings is not None else None
        if recordings is None or plan is None:
            return None
        return Recorded(Path(plan.shelf.folder), plan.is_main, recordings.is_running(source_id))

    return recorded
