"""The metrics of processes that forward a stream: proxy, bridge, record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipelines.metrics.exposition import Page

if TYPE_CHECKING:
    from pipelines.stream.bridges.base import Forwarder
    from pipelines.stream.bridges.websocket import WebSocketBridge
    from pipelines.stream.proxy import ProxySummary
    from pipelines.stream.record import RecordSummary


def add_proxy(page: Page, summary: ProxySummary) -> None:
    """Add what a proxy forwarded."""
    _by_kind(page, "framewire_proxy_messages_total", "Messages received from engines.", summary.messages)
    page.counter("framewire_proxy_bytes_total", "Bytes of their bodies.").add(summary.bytes)
    text = "Messages that met the full queue of a subscriber."
    _by_kind(page, "framewire_subscriber_overflows_total", text, summary.overflows)
    text = "Messages dropped because they came from a former owner of their source."
    _by_kind(page, "framewire_proxy_fenced_total", text, summary.fenced)
    refused = page.counter("framewire_proxy_refused_total", "Collected messages that were refused.", "cause")
    for cause, count in dict(summary.refused).items():
        refused.add(count, cause)
    page.gauge("framewire_proxy_topics", "Topics that subscribers currently want.").add(len(summary.wanted))


def add_bridge(page: Page, forwarder: Forwarder) -> None:
    """Add what a bridge delivered and lost."""
    summary = forwarder.summary
    _by_kind(page, "framewire_bridge_sent_total", "Messages delivered.", summary.sent)
    text = "Messages that did not fit into the queue while the recipient was away."
    _by_kind(page, "framewire_bridge_dropped_total", text, summary.dropped)
    _by_kind(page, "framewire_bridge_rejected_total", "Messages that the recipient refused.", summary.rejected)
    page.counter("framewire_bridge_reconnects_total", "Lost connections.").add(summary.reconnects)
    page.gauge("framewire_bridge_pending", "Messages that wait.").add(forwarder.pending)
    page.gauge("framewire_bridge_connected", "Whether the recipient is connected.").add(int(forwarder.is_connected))


def add_browsers(page: Page, bridge: WebSocketBridge) -> None:
    """Add what a browser bridge received from the publisher, and what slow browsers missed."""
    _by_kind(
        page, "framewire_bridge_sent_total", "Messages of the publisher that were offered to browsers.", bridge.taken
    )
    page.counter("framewire_bridge_missed_total", "Messages that slow browsers missed.").add(bridge.dropped)
    page.gauge("framewire_bridge_browsers", "Connected browsers.").add(bridge.browsers)


def add_record(page: Page, summary: RecordSummary) -> None:
    """Add what was recorded and lost."""
    page.counter("framewire_record_messages_total", "Messages written.").add(summary.messages)
    page.counter("framewire_record_bytes_total", "Bytes written.").add(summary.bytes)
    page.counter("framewire_record_lost_total", "Messages missed.").add(sum(summary.lost.values()))
    page.counter("framewire_record_malformed_total", "Messages that could not be read.").add(summary.malformed)


def _by_kind(page: Page, name: str, text: str, counts: Mapping[str, int]) -> None:
    series = page.counter(name, text, "kind")
    for kind, count in dict(counts).items():
        series.add(count, kind)
