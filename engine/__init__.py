"""Framewire engine: capture, detect, track, publish. The library; it never prints and knows no configuration files.

    from engine import ByteTrack, Pipeline, ZmqPublisher, load_detector, open_source

    with Pipeline(
        open_source("rtsp://gate/stream"), load_detector("yolo11n.onnx"), ByteTrack(), ZmqPublisher("tcp://*:5555")
    ) as pipeline:
        for packet in pipeline:
            print(packet.frame.source_id, packet.tracks.track_id)

Names are loaded when they are first used, so that `import engine` stays quick and needs no optional package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.analytics.analytics import Analytics
    from engine.analytics.findings import Finding
    from engine.analytics.identity import Eligibility
    from engine.analytics.places import Ground, Line, Zone
    from engine.analytics.rules import (
        Blind,
        Close,
        Count,
        Crossed,
        Direction,
        LeftBehind,
        Loiter,
        Presence,
        Removed,
        Sequence,
        Speed,
        Stopped,
    )
    from engine.analytics.rules.schedule import Schedule
    from engine.analytics.view import View
    from engine.clock import FakeClock, SystemClock
    from engine.data import Detections, Frame, Packet, Run, SourceInfo, SourceStatus, Tracks
    from engine.detection.load import load_detector
    from engine.detection.tiles import TiledDetector
    from engine.errors import (
        ConfigError,
        EngineError,
        MissingDependencyError,
        ModelError,
        SinkError,
        SourceError,
        StageError,
        WireError,
    )
    from engine.flow.attention.gate import FrameGate, MotionGate, SourceRules
    from engine.flow.attention.planner import RegionWindows
    from engine.flow.channel import Channel
    from engine.flow.options import PipelineOptions
    from engine.flow.pipeline import Pipeline
    from engine.flow.pool import DetectorPool
    from engine.imaging.overlay import Overlay
    from engine.protocols import (
        Analyser,
        AnalyserBase,
        Detector,
        DetectorBase,
        Sink,
        SinkBase,
        Source,
        Tracker,
        TrackerBase,
    )
    from engine.sinks.jsonl import JsonlWriter
    from engine.sinks.video import VideoWriter
    from engine.sinks.window import Window
    from engine.sinks.zmq import ZmqPublisher
    from engine.sources.open import open_source
    from engine.subscriber import Subscriber, subscribe
    from engine.tracking.bytetrack import ByteTrack
    from engine.tracking.registry import tracker_by_name
    from engine.tracking.steady import SteadyTrack

_HOMES = {
    "Analyser": "engine.protocols",
    "AnalyserBase": "engine.protocols",
    "Analytics": "engine.analytics.analytics",
    "Blind": "engine.analytics.rules",
    "ByteTrack": "engine.tracking.bytetrack",
    "Channel": "engine.flow.channel",
    "Close": "engine.analytics.rules",
    "ConfigError": "engine.errors",
    "Count": "engine.analytics.rules",
    "Crossed": "engine.analytics.rules",
    "Detections": "engine.data",
    "Detector": "engine.protocols",
    "DetectorBase": "engine.protocols",
    "DetectorPool": "engine.flow.pool",
    "Direction": "engine.analytics.rules",
    "Eligibility": "engine.analytics.identity",
    "EngineError": "engine.errors",
    "FakeClock": "engine.clock",
    "Finding": "engine.analytics.findings",
    "Frame": "engine.data",
    "FrameGate": "engine.flow.attention.gate",
    "Ground": "engine.analytics.places",
    "JsonlWriter": "engine.sinks.jsonl",
    "LeftBehind": "engine.analytics.rules",
    "Line": "engine.analytics.places",
    "Loiter": "engine.analytics.rules",
    "MissingDependencyError": "engine.errors",
    "ModelError": "engine.errors",
    "MotionGate": "engine.flow.attention.gate",
    "RegionWindows": "engine.flow.attention.planner",
    "Overlay": "engine.imaging.overlay",
    "Packet": "engine.data",
    "Pipeline": "engine.flow.pipeline",
    "PipelineOptions": "engine.flow.options",
    "Presence": "engine.analytics.rules",
    "Removed": "engine.analytics.rules",
    "Run": "engine.data",
    "Schedule": "engine.analytics.rules.schedule",
    "Sequence": "engine.analytics.rules",
    "Sink": "engine.protocols",
    "SinkBase": "engine.protocols",
    "SinkError": "engine.errors",
    "Source": "engine.protocols",
    "SourceError": "engine.errors",
    "SourceInfo": "engine.data",
    "SourceRules": "engine.flow.attention.gate",
    "SourceStatus": "engine.data",
    "Speed": "engine.analytics.rules",
    "StageError": "engine.errors",
    "SteadyTrack": "engine.tracking.steady",
    "Stopped": "engine.analytics.rules",
    "Subscriber": "engine.subscriber",
    "SystemClock": "engine.clock",
    "TiledDetector": "engine.detection.tiles",
    "Tracker": "engine.protocols",
    "TrackerBase": "engine.protocols",
    "Tracks": "engine.data",
    "VideoWriter": "engine.sinks.video",
    "View": "engine.analytics.view",
    "Window": "engine.sinks.window",
    "WireError": "engine.errors",
    "ZmqPublisher": "engine.sinks.zmq",
    "Zone": "engine.analytics.places",
    "load_detector": "engine.detection.load",
    "open_source": "engine.sources.open",
    "subscribe": "engine.subscriber",
    "tracker_by_name": "engine.tracking.registry",
}

__all__ = [
    "Analyser",
    "AnalyserBase",
    "Analytics",
    "Blind",
    "ByteTrack",
    "Channel",
    "Close",
    "ConfigError",
    "Count",
    "Crossed",
    "Detections",
    "Detector",
    "DetectorBase",
    "DetectorPool",
    "Direction",
    "Eligibility",
    "EngineError",
    "FakeClock",
    "Finding",
    "Frame",
    "FrameGate",
    "Ground",
    "JsonlWriter",
    "LeftBehind",
    "Line",
    "Loiter",
    "MissingDependencyError",
    "ModelError",
    "MotionGate",
    "Overlay",
    "Packet",
    "Pipeline",
    "PipelineOptions",
    "Presence",
    "RegionWindows",
    "Removed",
    "Run",
    "Schedule",
    "Sequence",
    "Sink",
    "SinkBase",
    "SinkError",
    "Source",
    "SourceError",
    "SourceInfo",
    "SourceRules",
    "SourceStatus",
    "Speed",
    "StageError",
    "SteadyTrack",
    "Stopped",
    "Subscriber",
    "SystemClock",
    "TiledDetector",
    "Tracker",
    "TrackerBase",
    "Tracks",
    "VideoWriter",
    "View",
    "Window",
    "WireError",
    "ZmqPublisher",
    "Zone",
    "load_detector",
    "open_source",
    "subscribe",
    "tracker_by_name",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
