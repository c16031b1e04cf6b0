"""Metrics and health of a run."""

from __future__ import annotations

from pydantic import Field

from pipelines.config.section import Section


class TracingConfig(Section):
    """OpenTelemetry traces of some frames."""

    EXAMPLE = "endpoint: URL"

    endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^\s]+$",
        description="Collector for OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces; null: no traces",
    )
    every: int = Field(
        100, ge=1, description="Trace one frame in this many of each source, and every frame slower than its p99"
    )


class MetricsConfig(Section):
    """Prometheus metrics and health probes."""

    EXAMPLE = "address: HOST:PORT"

    address: str = Field(
        "none",
        pattern=r"^(none|(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5})$",
        description="HOST:PORT of /metrics, /livez, /readyz and /healthz, such as 127.0.0.1:9464; none: not served",
    )
