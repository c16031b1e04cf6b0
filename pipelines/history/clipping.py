"""The clip of one event: found, copied, or cut on demand."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError, SinkError
from engine.events.media.deletion import is_ours
from engine.paths import how_to_write
from engine.sinks.camera_video.recordings import recording_folder
from pipelines.build.sources import named_sources

if TYPE_CHECKING:
    from engine.events.media.clips import ClipOptions
    from engine.events.media.cut import Clip
    from engine.events.store.rows import EventRow
    from pipelines.history.opening import Log


@dataclass(frozen=True)
class FoundClip:
    """A clip: its files in order, how it turned out, and why it is not exact."""

    event_id: str
    clip_state: str
    clip_reason: str
    paths: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the clip as plain values."""
        return asdict(self)


def clip_of(
    log: Log, event_id: str, output: Path | None = None, before_s: float | None = None, after_s: float | None = None
) -> FoundClip:
    """Return the clip of an event; cut it if there is none, or if other seconds are wanted.

    Args:
        log: the log with the event.
        event_id: the event.
        output: copy the clip to this file; further parts get `_2`, `_3`.
        before_s: seconds before the event; None: as configured.
        after_s: seconds after it; None: as configured.

    Raises:
        ConfigError: the event does not exist or has not ended, or its recordings are unknown.
        SinkError: the clip cannot be written.
    """
    is_own = before_s is not None or after_s is not None
    if is_own and output is None:
        raise ConfigError("--before and --after need --output FILE: the clip of the log stays as it is")
    with log.reader() as reader:
        event = reader.event(event_id)
        rows = [] if event is None else reader.media("clip", event_id=event_id)
    if event is None:
        raise ConfigError(f"there is no event {event_id}: framewire events list shows the stored ones")
    named = [log.place.folder / row.path for row in rows if is_ours(row.path) and not Path(row.path).is_absolute()]
    there = [path for path in named if path.is_file()]
    if not there or is_own:
        return _cut_now(log, event, output if is_own else None, before_s, after_s, output)
    paths = there if output is None else _copied(there, output)
    return FoundClip(event_id, event.clip_state, event.clip_reason, [str(path) for path in paths])


def _cut_now(
    log: Log, event: EventRow, own: Path | None, before_s: float | None, after_s: float | None, output: Path | None
) -> FoundClip:
    from engine.events.media.clips import wanted_span
    from engine.events.media.cut import Wanted, cut
    from engine.events.media.event_media import told_of
    from engine.events.media.names import clip_name, facts_text

    if event.ended_utc_ns is None:
        raise ConfigError(f"{event.event_id} continues: its clip is cut when it has ended")
    options = _options(log, before_s, after_s)
    with log.reader() as reader:
        told_ns = told_of(reader, event)
    start_ns, end_ns, limited = wanted_span(event, options, told_ns)
    base = log.place.folder / clip_name(event) if own is None else own.with_suffix("")
    made = cut(Wanted(_recordings_of(log, event.source_id), start_ns, end_ns, base, facts_text(event)))
    if limited and made.state == "exact":
        made.state, made.reason = "partial", limited
    paths = made.paths
    if own is None:
        _keep(log, event, made)
        paths = made.paths if output is None else _copied(made.paths, output)
    return FoundClip(event.event_id, made.state, made.reason, [str(path) for path in paths])


def _options(log: Log, before_s: float | None, after_s: float | None) -> ClipOptions:
    from engine.events.media.clips import ClipOptions

    options = ClipOptions()
    if log.config is not None:
        clips = log.config.events.clips
        options = ClipOptions(clips.before_s, clips.after_s, clips.max_s)
    longest_s = options.max_s if before_s is None and after_s is None else 24 * 3600
    return replace(
        options,
        before_s=options.before_s if before_s is None else before_s,
        after_s=options.after_s if after_s is None else after_s,
        max_s=longest_s,
    )


def _recordings_of(log: Log, source_id: str) -> Path:
    """Return the folder with the recordings of a source, from the configuration or from the log."""
    if log.config is not None:
        for name, source in named_sources(log.config):
            if name == source_id and source.record is not None:
                return recording_folder(source.record.folder, source_id)
    with log.reader() as reader:
        known = reader.media("recording", source_id)
    if not known:
        raise ConfigError(f"no recording of {source_id} is known: give --config FILE of the run that recorded it")
    return Path(known[-1].path).parent


def _keep(log: Log, event: EventRow, made: Clip) -> None:
    """Record the clip in the log."""
    from engine.events.store.rows import MediaRow
    from engine.events.store.writer import StoreWriter

    names = [str(path.relative_to(log.place.folder)) for path in made.paths]
    with StoreWriter.edit(log.place) as writer:
        for name, size in zip(names, made.sizes, strict=True):
            times = made.began_ns, made.ended_ns
            writer.put(MediaRow(name, "clip", event.source_id, event.event_id, *times, size))
        clip = names[0] if names else ""
        writer.set_media_of_event(event.event_id, clip=clip, clip_state=made.state, clip_reason=made.reason)


def _copied(paths: list[Path], output: Path) -> list[Path]:
    """Copy the parts of a clip to a file that a person named, and return the copies."""
    copies = []
    for number, path in enumerate(paths, 1):
        stem = output.stem if number == 1 else f"{output.stem}_{number}"
        target = output.with_name(f"{stem}{output.suffix or path.suffix}")
        try:
            shutil.copyfile(path, target)
        except OSError as error:
            raise SinkError(f"cannot write {target}: {error.strerror}: {how_to_write(error)}") from error
        copies.append(target)
    return copies
