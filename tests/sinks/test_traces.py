"""Traces: a collector on loopback receives the frames that were chosen, with the times of their stages."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest

from engine.data import Run
from engine.sinks.traces import MIN_FRAMES, TraceSink
from engine.stats import PipelineStats
from engine.wire.trace_context import trace_ids, traceparent
from tests.pipelines.metrics.scenes import packet_of
from tests.test_layout import CHECKOUT

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason='pip install "framewire[otel]"')


class Collector(ThreadingHTTPServer):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.spans: list[Any] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        import gzip

        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = self.rfile.read(int(self.headers["Content-Length"]))
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def packets(count: int, latency_ms: float = 30.0) -> Iterator[Any]:
    for seq in range(count):
        stages = {"infer": 20.0, "queue": 1.0, "track": 2.0}
        yield replace(packet_of("gate"), seq=seq, latency_ms=latency_ms, published_utc_ns=10**18 + seq, stage_ms=stages)


def test_one_frame_in_n_is_traced_with_its_stages_in_order(collector: Collector) -> None:
    sink = TraceSink(collector.endpoint, every=10)
    run = Run("engine", 5)
    sink.open(run)
    for packet in packets(25):
        sink.write(packet)
    sink.close()
    roots = [span for span in collector.spans if span.name == "frame"]
    assert [span.start_time_unix_nano for span in roots] == [10**18 + seq - 30_000_000 for seq in (0, 10, 20)]
    first = roots[0]
    children = [span for span in collector.spans if span.parent_span_id == first.span_id]
    assert [span.name for span in children] == ["queue", "infer", "track"]
    assert [s.end_time_unix_nano - s.start_time_unix_nano for s in children] == [1_000_000, 20_000_000, 2_000_000]
    assert all(a.end_time_unix_nano == b.start_time_unix_nano for a, b in pairwise(children))
    trace_id, span_id = trace_ids(run, "gate", 0)
    assert first.trace_id == trace_id.to_bytes(16, "big")
    assert first.parent_span_id == span_id.to_bytes(8, "big")
    assert traceparent(run, "gate", 0) == f"00-{first.trace_id.hex()}-{first.parent_span_id.hex()}-01"


def test_every_frame_slower_than_the_99th_percentile_is_traced(collector: Collector) -> None:
    stats = PipelineStats()
    for _ in range(2 * MIN_FRAMES):
        stats.source("gate").add_published(30.0, 0, 1)
    sink = TraceSink(collector.endpoint, every=10**6)
    sink.use_stats(stats)
    sink.open(Run("engine", 5))
    sink.tick()
    for packet in packets(5):
        sink.write(packet)
    sink.write(replace(next(packets(1)), seq=77, latency_ms=500.0))
    sink.close()
    roots = [span for span in collector.spans if span.name == "frame"]
    attributes = [{a.key: a.value for a in span.attributes} for span in roots]
    assert [a["framewire.seq"].int_value for a in attributes] == [0, 77]
    assert attributes[1]["framewire.slow"].bool_value


def test_a_collector_that_is_away_harms_nothing() -> None:
    sink = TraceSink("http://127.0.0.1:1/v1/traces", every=1)
    sink.open(Run("engine", 5))
    for packet in packets(3):
        sink.write(packet)
    sink.close()
    sink.close()


def test_a_run_sends_its_traces(collector: Collector) -> None:
    words = [
        "run",
        "--source",
        "synthetic://?width=64&height=48",
        "--model",
        "motion",
        "--publish",
        "tcp://127.0.0.1:*",
    ]
    words += ["--max-frames", "25", "--set", "tracing.every=10"]
    command = [sys.executable, "-m", "pipelines", *words, "--set", f"tracing.endpoint={collector.endpoint}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=False)
    assert done.returncode == 0, done.stderr
    roots = [span for span in collector.spans if span.name == "frame"]
    seqs = {
        attribute.value.int_value for span in roots for attribute in span.attributes if attribute.key == "framewire.seq"
    }
    assert seqs >= {0, 10, 20}
    assert all(span.parent_span_id for span in roots)
