"""Makes a live source from an address: chooses its reader, and whether it reconnects."""

from __future__ import annotations

from dataclasses import replace

from engine.sources.live.readers import ProcessReader, ThreadReader
from engine.sources.live.source import LiveSource
from engine.video.address import VideoAddress
from engine.video.coded.feed import VideoFeed
from engine.video.options import SourceOptions


def live_source(target: VideoAddress, source_id: str, options: SourceOptions) -> LiveSource:
    """Return a source that reads `target` in a process or on the iterating thread, as the options say."""
    target = replace(target, max_pixels=options.max_pixels)
    if not target.live and options.reconnect:
        options = _without_reconnect(options)
    if options.reader == "thread":
        return LiveSource(target, lambda: ThreadReader(target), source_id, options)
    feed = VideoFeed(source_id)
    made = LiveSource(target, lambda: ProcessReader(target, options.slots, source_id, feed), source_id, options)
    made.feed = feed
    return made


def _without_reconnect(options: SourceOptions) -> SourceOptions:
    """Return options for a file on a server: after a failure, reading cannot resume at the same position."""
    return replace(options, reconnect=False)
