"""OpenTelemetry traces of some frames, built after the fact: where did this frame spend its time?

A packet already carries the milliseconds of each stage, so nothing is added to the hot path. This sink builds spans for
one frame in N, and for every frame that is slower than the 99th percentile of its source, about 0.2 ms for each; a
thread of the SDK sends them. A thread of the sink's own would have to be woken for every frame, which costs more.
"""

from __future__ import annotations

import threading
from typing import Any

from engine.clock import NS_PER_MS
from engine.data import Packet, Run
from engine.optional import require
from engine.protocols import SinkBase
from engine.stats import PipelineStats
from engine.wire.trace_context import trace_ids

MIN_FRAMES = 100
"""Number of frames of a source before its 99th percentile is used."""
EDGE = 1.02
"""Margin for percentiles, which are accurate to 2 %; without it, a source with steady times would always be slow."""
STAGES = ("capture", "queue", "preprocess", "infer", "nms", "postprocess", "track", "second", "analyse")
"""Stages in the order in which a frame passes through them; others follow."""
EXPORT_S = 5.0
LAST_EXPORT_S = 0.4
"""How long the end of a run waits for a collector that does not answer."""


class TraceSink(SinkBase):
    """Sends spans to an OpenTelemetry collector over HTTP.

    Args:
        endpoint: of the collector, such as `http://127.0.0.1:4318/v1/traces`.
        every: one frame in this many is traced, of each source.

    Raises:
        MissingDependencyError: the extra `otel` is not installed.
    """

    name = "traces"
    blocking = False

    def __init__(self, endpoint: str, every: int = 100) -> None:
        self._trace = require("opentelemetry.trace", extra="otel")
        self._sdk = require("opentelemetry.sdk.trace", extra="otel")
        self._resource = require("opentelemetry.sdk.resources", extra="otel")
        export = require("opentelemetry.sdk.trace.export", extra="otel")
        http = require("opentelemetry.exporter.otlp.proto.http.trace_exporter", extra="otel")
        self._processor = export.BatchSpanProcessor(http.OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_S))
        self._every = every
        self._stats: PipelineStats | None = None
        self._slow_ms: dict[str, float] = {}
        self._provider: Any = None
        self._tracer: Any = None
        self._run = Run("", 0)

    def use_stats(self, stats: PipelineStats) -> None:
        """Use these statistics to decide which frames are slow."""
        self._stats = stats

    def open(self, run: Run) -> None:
        """Begin to collect spans."""
        self._run = run
        resource = self._resource.Resource.create({"service.name": "framewire", "service.instance.id": run.engine_id})
        self._provider = self._sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("framewire")

    def write(self, packet: Packet) -> None:
        """Trace the packet if its turn has come, or if it is slow."""
        slow_ms = self._slow_ms.get(packet.frame.source_id)
        is_slow = slow_ms is not None and packet.latency_ms > slow_ms
        if is_slow or packet.seq % self._every == 0:
            self._build(packet, is_slow=is_slow)

    def tick(self) -> None:
        """Update the threshold for slow frames."""
        if self._stats is None:
            return
        for source in self._stats.snapshot().sources:
            if source.latency.count >= MIN_FRAMES:
                self._slow_ms[source.source_id] = EDGE * source.latency.percentile(0.99)

    def close(self) -> None:
        """Send what was collected, or give up soon; harmless when repeated."""
        if self._provider is not None:
            sending = threading.Thread(target=self._provider.shutdown, name="last traces", daemon=True)
            sending.start()
            sending.join(LAST_EXPORT_S)
            self._provider = None

    def _build(self, packet: Packet, *, is_slow: bool) -> None:
        end_ns = packet.published_utc_ns
        begin_ns = end_ns - int(packet.latency_ms * NS_PER_MS)
        trace = self._trace
        parent = trace.NonRecordingSpan(remote_parent(trace, self._run, packet))
        root = self._tracer.start_span(
            "frame", trace.set_span_in_context(parent), start_time=begin_ns, attributes=_facts(packet, is_slow=is_slow)
        )
        inside = trace.set_span_in_context(root)
        at_ns = begin_ns
        for stage in sorted(packet.stage_ms, key=_order):
            until_ns = min(at_ns + int(packet.stage_ms[stage] * NS_PER_MS), end_ns)
            span = self._tracer.start_span(stage, inside, start_time=at_ns)
            span.end(end_time=until_ns)
            at_ns = until_ns
        root.end(end_time=end_ns)


def remote_parent(trace: Any, run: Run, packet: Packet) -> Any:
    """Return the context that `traceparent` names."""
    trace_id, span_id = trace_ids(run, packet.frame.source_id, packet.seq)
    sampled = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    return trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=sampled)


def _order(stage: str) -> int:
    return STAGES.index(stage) if stage in STAGES else len(STAGES)


def _facts(packet: Packet, *, is_slow: bool) -> dict[str, Any]:
    return {
        "framewire.source": packet.frame.source_id,
        "framewire.seq": packet.seq,
        "framewire.frame_id": packet.frame.frame_id,
        "framewire.model": packet.run.model,
        "framewire.objects": len(packet.tracks),
        "framewire.detected": packet.is_detected,
        "framewire.slow": is_slow,
        "framewire.dropped": sum(packet.dropped.values()),
    }
