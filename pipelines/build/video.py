"""Which sources offer their coded video to viewers: cameras, unless something must be hidden on it."""

from __future__ import annotations

from collections.abc import Iterable

from engine.protocols import Sink, Source
from engine.sinks.media import MediaPublisher
from engine.sources.live.source import LiveSource
from pipelines.build.privacy import privacy_of
from pipelines.build.sources import named_sources
from pipelines.config.models import Config


def offer_video(config: Config, sources: Iterable[Source], sinks: Iterable[Sink]) -> None:
    """Let the media socket publish the coded video of the sources that have one; call this before they are opened."""
    media = next((sink for sink in sinks if isinstance(sink, MediaPublisher)), None)
    if media is None:
        return
    found = [source for source in sources if isinstance(source, LiveSource)]
    feeds = {source.info.source_id: source.feed for source in found if source.feed is not None}
    media.offer_video({name: feed for name, feed in feeds.items() if name not in hidden_sources(config)})


def hidden_sources(config: Config) -> frozenset[str]:
    """Return the sources whose coded video would show what the configuration hides on their images."""
    pictures = config.publish.pictures
    names = {name: privacy_of(config, source) for name, source in named_sources(config)}
    if pictures is not None and pictures.blur:
        return frozenset(names)
    hidden = {name for name, privacy in names.items() if privacy.mode != "none" or privacy.regions}
    return frozenset(hidden | (set() if pictures is None else pictures.blur_regions.keys()))
