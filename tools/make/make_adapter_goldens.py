#!/usr/bin/env python3
"""Write tests/pipelines/stream/adapters/golden/, our sample messages in other systems' forms; review the diff."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

import msgspec  # noqa: E402

from engine.wire import EosMessage, EventMessage, FrameMessage  # noqa: E402
from pipelines.stream.adapters.deepstream import deepstream_minimal  # noqa: E402
from pipelines.stream.adapters.deepstream_event import deepstream_event  # noqa: E402
from pipelines.stream.adapters.frigate import frigate_events  # noqa: E402
from pipelines.stream.adapters.frigate_review import frigate_reviews  # noqa: E402
from pipelines.stream.adapters.onvif import onvif_metadata  # noqa: E402
from pipelines.stream.adapters.onvif_events import onvif_counts, onvif_event  # noqa: E402
from pipelines.stream.adapters.savant import savant_end, savant_frame  # noqa: E402
from tests.wire.samples import SAMPLES  # noqa: E402

FOLDER = CHECKOUT / "tests" / "pipelines" / "stream" / "adapters" / "golden"


def later(message: FrameMessage, seconds: float, scores: list[float]) -> FrameMessage:
    """Return the frame at a later time with these scores; objects beyond the scores are removed."""
    objects = [msgspec.structs.replace(o, score=s) for o, s in zip(message.objects, scores, strict=False)]
    utc_ns = message.captured_utc_ns + int(seconds * 1e9)
    return msgspec.structs.replace(message, captured_utc_ns=utc_ns, objects=objects)


def frigate_story(message: FrameMessage) -> list[dict[str, Any]]:
    """Return the events of two objects that appear and leave; one of them is seen better later."""
    events, tracks = frigate_events({}, message)
    for seconds, scores in ((0.04, [0.91, 0.52]), (0.08, [0.97, 0.52]), (1.0, [0.97]), (6.0, []), (7.0, [])):
        found, tracks = frigate_events(tracks, later(message, seconds, scores))
        events += found
    return events


def goldens() -> dict[str, str]:
    """Return the text of each golden file by name."""
    frame, end = SAMPLES["frame"], SAMPLES["eos"]
    if not isinstance(frame, FrameMessage) or not isinstance(end, EosMessage):
        raise SystemExit("the samples have changed their types")
    made = {
        "deepstream_minimal.json": deepstream_minimal(frame),
        "savant_frame.json": savant_frame(frame),
        "savant_end.json": savant_end(end),
        "frigate_events.json": frigate_story(frame),
    }
    made |= event_goldens()
    texts = {name: json.dumps(value, indent=2) + "\n" for name, value in made.items()}
    notices = {
        "onvif_metadata.xml": onvif_metadata(frame),
        "onvif_event.xml": onvif_event(episode("begin")),
        "onvif_crossed.xml": onvif_event(crossing()),
        "onvif_counts.xml": onvif_counts(SAMPLES["analytics"]),  # type: ignore[arg-type]
    }
    return {**texts, **{name: f"{text}\n" for name, text in notices.items()}}


def episode(phase: str) -> EventMessage:
    """Return a message of an episode of a rule."""
    ended = {} if phase == "end" else {"ended_utc_ns": None, "duration_s": None, "reason": msgspec.UNSET}
    changes: dict[str, Any] = {"event": "rule_began", "phase": phase, "at": msgspec.UNSET, **ended}
    return msgspec.structs.replace(SAMPLES["event"], **changes)  # type: ignore[return-value]


def crossing() -> EventMessage:
    """Return the crossing of a line."""
    changes: dict[str, Any] = {"event": "line_crossed", "phase": "point", "place": "door", "rule": msgspec.UNSET}
    return msgspec.structs.replace(SAMPLES["event"], **changes)  # type: ignore[return-value]


def event_goldens() -> dict[str, Any]:
    """Return what other systems receive about an episode from beginning to end, and about a crossing."""
    reviews: list[dict[str, Any]] = []
    known: Any = {}
    for phase in ("begin", "update", "end"):
        found, known = frigate_reviews(known, episode(phase))
        reviews += found
    return {
        "frigate_reviews.json": reviews,
        "deepstream_event.json": [deepstream_event(episode("begin")), deepstream_event(crossing())],
    }


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in goldens().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    print(f"wrote {len(goldens())} files to {FOLDER.relative_to(CHECKOUT)}")


if __name__ == "__main__":
    main()
