"""Write docs/grafana/framewire.json: the Grafana dashboard of the metrics in docs/operations.md.

usage: python tools/make/make_dashboard.py [--check]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

TARGET = Path(__file__).resolve().parents[2] / "docs" / "grafana" / "framewire.json"
PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
HEIGHT = 8
OF = 'instance=~"$instance"'
OF_SOURCE = f'{OF},source=~"$source"'
RATE = "[$__rate_interval]"
AGE = "framewire_frame_age_seconds_bucket"

Target = tuple[str, str]
"""A query and the legend of its lines."""


def main() -> int:
    """Write the file, or with --check report whether it is up to date."""
    text = json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
    if "--check" in sys.argv:
        return 0 if TARGET.read_text(encoding="utf-8") == text else 1
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text, encoding="utf-8")
    return 0


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana stores it."""
    return {
        "uid": "framewire",
        "title": "Framewire",
        "description": "Cameras, frames, scenes and recordings of framewire engines.",
        "tags": ["framewire"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": variables()},
        "annotations": {"list": [restarts()]},
        "panels": placed(_rows()),
    }


def _rows() -> list[tuple[str, list[dict[str, Any]]]]:
    return [
        ("Overview", overview()),
        ("Source $source", cameras()),
        ("Pipeline", pipeline()),
        ("Scene", scene()),
        ("Events", events()),
        ("Recordings and storage", storage()),
        ("The page", web()),
        ("Delivery and fleet", delivery_and_fleet()),
        ("Processes", processes()),
    ]


def variables() -> list[dict[str, Any]]:
    """Return the selectors at the top: data source, engines, sources."""
    every = {"includeAll": True, "multi": True, "current": {"text": "All", "value": "$__all"}, "refresh": 2}
    query = {"type": "query", "datasource": PROMETHEUS, "sort": 1, **every}
    of_engine = f"label_values(framewire_source_state{{{OF}}}, source)"
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
        {**query, "name": "instance", "label": "Engine", "query": "label_values(framewire_build_info, instance)"},
        {**query, "name": "source", "label": "Source", "query": of_engine},
    ]


def restarts() -> dict[str, Any]:
    """Return the annotation that marks reconnects."""
    expr = f"increase(framewire_source_reconnects_total{{{OF_SOURCE}}}{RATE}) > 0"
    return {
        "name": "Reconnects",
        "datasource": PROMETHEUS,
        "enable": True,
        "iconColor": "orange",
        "expr": expr,
        "titleFormat": "{{source}} reconnected",
    }


def overview() -> list[dict[str, Any]]:
    """Return the first row: is everything healthy?"""
    live = f'sum(framewire_source_state{{{OF},state="live"}})'
    away = f'sum(framewire_source_state{{{OF},state=~"connecting|stalled|offline"}})'
    rate = f"sum(rate(framewire_frames_published_total{{{OF}}}{RATE}))"
    lost = f"sum(rate(framewire_frames_dropped_total{{{OF}}}{RATE}))"
    return [
        panel("Live sources", "stat", [(live, "live")], width=4),
        panel("Sources away", "stat", [(away, "away")], width=4, red_from=1),
        panel("Frames published", "stat", [(rate, "")], unit="fps", width=4),
        panel("Frames lost", "stat", [(lost, "")], unit="fps", width=4),
        panel("Age p99", "stat", [(quantile(0.99, AGE, OF), "")], unit="s", width=4, red_from=1),
        panel("Engines", "stat", [("count(framewire_build_info)", "")], width=4),
        panel(
            "States",
            "state-timeline",
            [(f"framewire_source_state{{{OF_SOURCE}}} == 1", "{{source}} {{state}}")],
            width=WIDTH,
        ),
    ]


def cameras() -> list[dict[str, Any]]:
    """Return the row that repeats for each source."""
    counts = ("captured", "published", "detected")
    rates = [(f"sum(rate(framewire_frames_{name}_total{{{OF_SOURCE}}}{RATE}))", name) for name in counts]
    lost = f"sum by (cause) (rate(framewire_frames_dropped_total{{{OF_SOURCE}}}{RATE}))"
    blind = f"sum(increase(framewire_source_blind_seconds_total{{{OF_SOURCE}}}{RATE}))"
    last = f"time() - max(framewire_source_last_frame_timestamp_seconds{{{OF_SOURCE}}})"
    heat = f"sum by (le) (increase({AGE}{{{OF_SOURCE}}}{RATE}))"
    return [
        panel("Rates", "timeseries", rates, unit="fps"),
        panel("Lost by cause", "timeseries", [(lost, "{{cause}}")], unit="fps"),
        panel(
            "Age", "timeseries", [(quantile(q, AGE, OF_SOURCE), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)], unit="s"
        ),
        panel("Age, all frames", "heatmap", [(heat, "{{le}}")], unit="s", width=12, targets_as="heatmap"),
        panel(
            "Blind, and time since the last frame",
            "timeseries",
            [(blind, "blind"), (last, "last frame")],
            unit="s",
            width=12,
        ),
    ]


def pipeline() -> list[dict[str, Any]]:
    """Return the row that shows where the milliseconds go."""
    stage = "framewire_stage_duration_seconds_bucket"
    mean = (
        f"sum by (stage) (rate(framewire_stage_duration_seconds_sum{{{OF}}}{RATE})) / "
        f"sum by (stage) (rate(framewire_stage_duration_seconds_count{{{OF}}}{RATE}))"
    )
    slow = f"histogram_quantile(0.99, sum by (stage, le) (rate({stage}{{{OF}}}{RATE})))"
    batch = (
        f"sum(rate(framewire_batch_frames_sum{{{OF}}}{RATE})) / sum(rate(framewire_batch_frames_count{{{OF}}}{RATE}))"
    )
    missed = f"sum by (output, cause) (rate(framewire_output_dropped_total{{{OF}}}{RATE}))"
    overflows = f"sum by (kind) (rate(framewire_subscriber_overflows_total{{{OF}}}{RATE}))"
    return [
        panel("Stage, mean", "timeseries", [(mean, "{{stage}}")], unit="s"),
        panel("Stage, p99", "timeseries", [(slow, "{{stage}}")], unit="s"),
        panel(
            "Inferences",
            "timeseries",
            [(f"sum(rate(framewire_inferences_total{{{OF}}}{RATE}))", "per second"), (batch, "frames each")],
        ),
        panel("Outputs that cannot keep up", "timeseries", [(missed, "{{output}} {{cause}}")], width=12),
        panel("Subscribers that cannot keep up", "timeseries", [(overflows, "{{kind}}")], width=12),
    ]


def scene() -> list[dict[str, Any]]:
    """Return the row that shows what the cameras see."""
    objects = f"sum by (source, class) (framewire_objects{{{OF_SOURCE}}})"
    inside = f"sum by (source, zone) (framewire_zone_occupancy{{{OF_SOURCE}}})"
    crossings = f"sum by (source, line, direction) (increase(framewire_line_crossings_total{{{OF_SOURCE}}}[1h]))"
    visits = f"sum by (source, zone) (increase(framewire_zone_visits_total{{{OF_SOURCE}}}[1h]))"
    stays = f"sum by (source, zone, le) (increase(framewire_zone_dwell_seconds_bucket{{{OF_SOURCE}}}[1h]))"
    dwell = f"histogram_quantile(0.5, {stays})"
    tracks = f"sum by (source) (increase(framewire_tracks_started_total{{{OF_SOURCE}}}[1h]))"
    return [
        panel("Objects", "timeseries", [(objects, "{{source}} {{class}}")]),
        panel("In zones", "timeseries", [(inside, "{{source}} {{zone}}")]),
        panel("Crossings per hour", "timeseries", [(crossings, "{{source}} {{line}} {{direction}}")]),
        panel("Visits per hour", "timeseries", [(visits, "{{source}} {{zone}}")]),
        panel("Median dwell", "timeseries", [(dwell, "{{source}} {{zone}}")], unit="s"),
        panel("New tracks per hour", "timeseries", [(tracks, "{{source}}")]),
    ]


def events() -> list[dict[str, Any]]:
    """Return the row that shows what the rules found, and whether it is stored."""
    found = f"sum by (rule, severity) (increase(framewire_events_total{{{OF_SOURCE}}}[1h]))"
    delay = quantile(0.95, "framewire_event_delay_seconds_bucket", OF)
    clips = f"sum by (result) (increase(framewire_clips_total{{{OF}}}[1h]))"
    skipped = f"sum by (cause) (increase(framewire_images_skipped_total{{{OF}}}[1h]))"
    actions = f"sum by (action, result) (increase(framewire_actions_total{{{OF}}}[1h]))"
    held = f"sum by (action, cause) (increase(framewire_actions_suppressed_total{{{OF}}}[1h]))"
    lost = f"sum by (cause) (increase(framewire_events_unstored_total{{{OF}}}[1h]))"
    return [
        panel("Events per hour", "timeseries", [(found, "{{rule}} ({{severity}})")]),
        panel("Open episodes", "timeseries", [(f"sum by (rule) (framewire_events_open{{{OF}}})", "{{rule}}")]),
        panel("Clips per hour", "timeseries", [(clips, "{{result}}"), (skipped, "image: {{cause}}")]),
        panel(
            "Messages of actions per hour",
            "timeseries",
            [(actions, "{{action}} {{result}}"), (held, "{{action}} held: {{cause}}")],
        ),
        panel("From capture to event, p95", "timeseries", [(delay, "")], unit="s"),
        panel(
            "Event log",
            "timeseries",
            [(f"sum(framewire_events_waiting{{{OF}}})", "waiting"), (lost, "lost: {{cause}}")],
            width=WIDTH,
        ),
    ]


def storage() -> list[dict[str, Any]]:
    """Return the row with recordings, disks, and how long these will last."""
    free = f"framewire_storage_free_bytes{{{OF}}}"
    limit = f"sum(framewire_storage_limit_bytes{{{OF}}})"
    deleted = f"sum by (kind, cause) (increase(framewire_storage_deleted_files_total{{{OF}}}[1h]))"
    left = f"{free} / clamp_min(-deriv({free}[6h]), 1) / 86400"
    errors = f"sum by (source) (increase(framewire_recording_write_errors_total{{{OF_SOURCE}}}[1h]))"
    rate = f"rate(framewire_recording_bytes_total{{{OF_SOURCE}}}{RATE})"
    state = f"framewire_recording_state{{{OF_SOURCE}}} == 1"
    return [
        panel("Recording", "state-timeline", [(state, "{{source}} {{state}}")]),
        panel("Written", "timeseries", [(rate, "{{source}}")], unit="Bps"),
        panel("Write errors per hour", "timeseries", [(errors, "{{source}}")]),
        panel(
            "Stored", "timeseries", [(f"framewire_storage_bytes{{{OF}}}", "{{kind}}"), (limit, "limit")], unit="bytes"
        ),
        panel("Deleted per hour", "timeseries", [(deleted, "{{kind}}: {{cause}}")]),
        panel("Free", "timeseries", [(free, "{{kind}}")], unit="bytes"),
        panel("Days until the disk is full", "stat", [(left, "{{kind}}")], unit="d"),
    ]


def web() -> list[dict[str, Any]]:
    """Return the row with the page's viewers, its cost and its answers; its process is a separate instance."""
    video = f"sum by (source) (rate(framewire_web_video_bytes_total{RATE}))"
    pictures = f"sum by (source) (rate(framewire_web_picture_bytes_total{RATE}))"
    skips = "sum by (source) (increase(framewire_web_video_skips_total[1h]))"
    answers = f"sum by (status) (rate(framewire_web_requests_total{RATE}))"
    return [
        panel("Viewers", "timeseries", [("sum by (kind) (framewire_web_viewers)", "{{kind}}")], width=6),
        panel("Sent", "timeseries", [(video, "{{source}}"), (pictures, "{{source}} JPEG")], unit="Bps", width=6),
        panel("Skipped for slow viewers per hour", "timeseries", [(skips, "{{source}}")], width=6),
        panel("Requests by status", "timeseries", [(answers, "{{status}}")], unit="reqps", width=6),
    ]


def delivery_and_fleet() -> list[dict[str, Any]]:
    """Return the row with the pending messages of actions, and the fleet's state of each source."""
    pending = f"framewire_outbox_pending{{{OF}}}"
    took = quantile(0.95, "framewire_action_duration_seconds_bucket", OF, "action")
    left, epoch = f"framewire_lease_left_seconds{{{OF_SOURCE}}}", f"framewire_owner_epoch{{{OF_SOURCE}}}"
    return [
        panel("Messages not delivered yet", "timeseries", [(pending, "{{action}}")], width=6),
        panel("Time to deliver, p95", "timeseries", [(took, "{{action}}")], unit="s", width=6),
        panel("Cores per source", "timeseries", [(f"framewire_cost_cores{{{OF_SOURCE}}}", "{{source}}")], width=6),
        panel("Lease left, and epoch", "timeseries", [(left, "{{source}}"), (epoch, "{{source}} epoch")], width=6),
    ]


def processes() -> list[dict[str, Any]]:
    """Return the row with the engine, its children and GPUs."""
    cpu = f"rate(process_cpu_seconds_total{{{OF}}}{RATE})"
    child_cpu = f"sum by (role, source) (rate(framewire_child_cpu_seconds_total{{{OF}}}{RATE}))"
    child_memory = f"sum by (role, source) (framewire_child_resident_bytes{{{OF}}})"
    starts = f"sum by (role, source) (increase(framewire_child_restarts_total{{{OF}}}[1h]))"
    gpu = f"framewire_gpu_utilization_ratio{{{OF}}}"
    versions = f"framewire_build_info{{{OF}}}"
    models = f"framewire_model_info{{{OF}}}"
    return [
        panel("CPU", "timeseries", [(cpu, "engine"), (child_cpu, "{{role}} {{source}}")]),
        panel(
            "Memory",
            "timeseries",
            [(f"process_resident_memory_bytes{{{OF}}}", "engine"), (child_memory, "{{role}} {{source}}")],
            unit="bytes",
        ),
        panel("Restarts of children per hour", "timeseries", [(starts, "{{role}} {{source}}")]),
        panel("GPU", "timeseries", [(gpu, "{{gpu}}")], unit="percentunit"),
        panel("Versions", "table", [(versions, "")], targets_as="table"),
        panel("Models", "table", [(models, "")], targets_as="table"),
    ]


def quantile(q: float, metric: str, of: str, *by: str) -> str:
    """Return the query of a percentile, for each value of the labels `by`."""
    return f"histogram_quantile({q}, sum by ({', '.join(('le', *by))}) (rate({metric}{{{of}}}{RATE})))"


def _steps(red_from: float | None) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if red_from is not None:
        steps.append({"color": "red", "value": red_from})
    return steps


def _query(letter: str, target: Target) -> dict[str, Any]:
    expr, legend = target
    return {"refId": letter, "datasource": PROMETHEUS, "expr": expr, "legendFormat": legend}


def panel(
    title: str,
    kind: str,
    targets: Sequence[Target],
    *,
    unit: str = "short",
    width: int = 8,
    red_from: float | None = None,
    targets_as: str = "time_series",
) -> dict[str, Any]:
    """Return a panel; `red_from` is the value at and above which it turns red."""
    is_now = targets_as == "table" or kind == "stat"
    return {
        "title": title,
        "type": kind,
        "datasource": PROMETHEUS,
        "fieldConfig": {
            "defaults": {"unit": unit, "thresholds": {"mode": "absolute", "steps": _steps(red_from)}},
            "overrides": [],
        },
        "options": {},
        "targets": [
            {**_query(letter, target), "format": targets_as, "instant": is_now, "range": not is_now}
            for letter, target in zip(ascii_uppercase, targets, strict=False)
        ],
        "gridPos": {"w": width, "h": 4 if kind == "stat" else HEIGHT},
    }


def _row(title: str, top: int) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "row", "title": title, "collapsed": False, "panels": []}
    row["gridPos"] = {"x": 0, "y": top, "w": WIDTH, "h": 1}
    if "$source" in title:
        row["repeat"] = "source"
    return row


def placed(rows: Sequence[tuple[str, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """Return the rows and their panels with ids and positions; the row of a source repeats."""
    found: list[dict[str, Any]] = []
    top = 0
    for title, panels in rows:
        found.append(_row(title, top))
        left, top, height = 0, top + 1, 0
        for each in panels:
            if left + each["gridPos"]["w"] > WIDTH:
                left, top = 0, top + height
                height = 0
            each["gridPos"] |= {"x": left, "y": top}
            left, height = left + each["gridPos"]["w"], max(height, each["gridPos"]["h"])
            found.append(each)
        top += height
    for number, each in enumerate(found, 1):
        each["id"] = number
    return found


if __name__ == "__main__":
    sys.exit(main())
