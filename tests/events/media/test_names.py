"""Names of media files, and the facts inside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.events.media.names import (
    clip_name,
    event_from_facts,
    facts_from_text,
    facts_in_image,
    facts_text,
    parse_name,
    snapshot_name,
    with_facts,
)
from engine.events.store.rows import EventRow

EVENT = EventRow(
    event_id="gate-1796050298107657563-intruder-2",
    engine_id="engine",
    run_epoch=1796050298107657563,
    source_id="gate",
    rule="intruder",
    severity="alert",
    place="yard",
    class_name="person",
    phase="begin",
    began_utc_ns=1796050298107657563,
    ended_utc_ns=None,
    began_scene_ns=17,
    facts={"track_ids": [3], "why": ["in yard — 2 s"]},
)


@pytest.mark.parametrize("source_id", ["gate", "..", ".hidden", "Tür 1", "a" * 400, "100%", "x\ny", "C:\\cam"])
def test_names_stay_in_their_folder_and_are_recognized(tmp_path: Path, source_id: str) -> None:
    event = replace(EVENT, source_id=source_id, event_id=f"{source_id}-7-rule-1")
    for name in (snapshot_name(event, "best"), clip_name(event) + ".mp4"):
        path = tmp_path / name
        assert path.resolve().is_relative_to(tmp_path)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
        said = parse_name(name)
        assert said is not None
        if len(source_id) < 100:
            assert (said.source_id, said.event_id) == (source_id, event.event_id)


def test_the_facts_in_an_image_rebuild_its_event(tmp_path: Path) -> None:
    _, jpeg = cv2.imencode(".jpg", np.full((60, 80, 3), 77, np.uint8))
    path = tmp_path / "a.jpg"
    path.write_bytes(with_facts(jpeg.tobytes(), facts_text(EVENT)))
    assert event_from_facts(facts_in_image(path)) == EVENT
    assert np.array_equal(cv2.imread(str(path)), cv2.imdecode(jpeg, cv2.IMREAD_COLOR)), "it is still the same image"


@pytest.mark.parametrize(
    "text",
    ["", "[1]", '{"framewire.event": 3}', "{" * 10_000, '{"framewire.event": {"event_id": "a"}}', "\0"],
)
def test_texts_of_others_are_no_facts(text: str) -> None:
    assert event_from_facts(facts_from_text(text)) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("severity", "huge"), ("phase", 3), ("began_utc_ns", "x"), ("facts", []), ("duration_s", "1"), ("event_id", None)],
)
def test_facts_of_wrong_types_are_refused(name: str, value: object) -> None:
    facts = {**facts_from_text(facts_text(EVENT)), name: value}
    assert event_from_facts(facts) is None


def test_a_text_too_long_for_a_comment_is_left_out() -> None:
    jpeg = b"\xff\xd8rest"
    assert with_facts(jpeg, "x" * 70_000) == jpeg
    assert with_facts(b"PNG", "x") == b"PNG"
