"""The metrics of the web process."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from pipelines.metrics.exposition import Bounded, Page, own_version
from pipelines.web.access import RequestCounts

if TYPE_CHECKING:
    from pipelines.web.page.hub import Hub

MAX_SOURCES = 256
KINDS = ("live", "still", "mjpeg")
"""Kinds of viewers that are always listed."""


class WebFigures:
    """Writes the metrics of the page; called from a thread other than the serving one.

    Args:
        hub: the streams and their viewers.
        requests: counts the requests.
    """

    def __init__(self, hub: Hub, requests: RequestCounts) -> None:
        self._hub, self._requests = hub, requests
        self._sources = Bounded(MAX_SOURCES)

    def add_to(self, page: Page) -> None:
        """Add all metrics to a page."""
        hub = self._hub
        page.gauge("framewire_web_build_info", "Version of framewire.", "version").add(1, own_version())
        viewers = page.gauge("framewire_web_viewers", "Who watches now.", "kind")
        for kind, count in {**dict.fromkeys(KINDS, 0), **hub.viewers()}.items():
            viewers.add(count, kind)
        self._add_by_source(page, "framewire_web_video_bytes_total", "Bytes of video sent.", hub.video_bytes)
        self._add_by_source(page, "framewire_web_picture_bytes_total", "Bytes of JPEGs sent.", hub.picture_bytes)
        text = "Images and pieces of video that a viewer was too slow for."
        self._add_by_source(page, "framewire_web_video_skips_total", text, hub.skipped)
        text = "Whether the engine has been heard from in the last seconds."
        page.gauge("framewire_web_engine_connected", text).add(int(hub.is_connected))
        text = "Messages of the engine that could not be read."
        page.counter("framewire_web_malformed_total", text).add(hub.malformed)
        self._requests.add_to(page, "framewire_web_requests_total", "framewire_web_request_duration_seconds")

    def facts(self) -> dict[str, Any]:
        """Return the facts of `/healthz`."""
        hub = self._hub
        return {"engine_connected": hub.is_connected, "sources": len(hub.sources), "viewers": hub.watchers}

    def _add_by_source(self, page: Page, name: str, text: str, counts: Counter[str]) -> None:
        series = page.counter(name, text, "source")
        for source, count in self._sources.counts(name, counts.copy()).items():
            series.add(count, source)
