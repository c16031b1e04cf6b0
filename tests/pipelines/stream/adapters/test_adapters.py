"""Our messages in the forms of other systems: golden files, and the rules those systems set."""

from __future__ import annotations

import importlib.util
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from engine.wire import FrameMessage, frame_message
from pipelines.stream.adapters.deepstream import deepstream_minimal
from pipelines.stream.adapters.frigate import Tracks, frigate_events
from pipelines.stream.adapters.onvif import NAMESPACE, onvif_metadata
from pipelines.stream.adapters.savant import savant_frame
from tests.wire.samples import SAMPLES, packet

GOLDEN = Path(__file__).parent / "golden"
TOOL = Path(__file__).resolve().parents[4] / "tools" / "make" / "make_adapter_goldens.py"
FRAME: FrameMessage = SAMPLES["frame"]  # type: ignore[assignment]
TT = {"tt": NAMESPACE}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_adapter_goldens", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir()))
def test_golden_files_are_what_is_made(tool: ModuleType, name: str) -> None:
    assert tool.goldens()[name] == (GOLDEN / name).read_text(encoding="utf-8")


def test_a_deepstream_object_is_split_at_the_bars() -> None:
    track, left, top, right, bottom, label, mark, score = deepstream_minimal(FRAME)["objects"][0].split("|")
    assert (track, label, mark) == ("7", "person", "#")
    assert [float(left), float(top), float(right), float(bottom), float(score)] == [10.5, 20.25, 110, 220.75, 0.91]


def test_savant_ids_are_ordered_in_time_and_the_same_for_the_same_frame() -> None:
    frames = [frame_message(packet(1, seq=seq)) for seq in range(50)]
    ids = [uuid.UUID(savant_frame(frame)["uuid"]) for frame in frames]
    assert ids == sorted(ids, key=lambda each: each.int)
    assert {each.version for each in ids} == {7}
    assert len(set(ids)) == 50
    assert savant_frame(frames[3]) == savant_frame(frame_message(packet(1, seq=3)))


def test_onvif_boxes_are_inside_the_normalised_square() -> None:
    document = ElementTree.fromstring(onvif_metadata(frame_message(packet(5))))
    frame = document.find("tt:VideoAnalytics/tt:Frame", TT)
    assert frame is not None
    assert frame.get("UtcTime") == "2026-09-21T14:13:20.000Z"
    scale = _attributes(frame, "tt:Transformation/tt:Scale")
    translate = _attributes(frame, "tt:Transformation/tt:Translate")
    boxes = frame.findall("tt:Object/tt:Appearance/tt:Shape/tt:BoundingBox", TT)
    assert len(boxes) == 5
    for box in boxes:
        for x, y in (("left", "top"), ("right", "bottom")):
            assert -1 <= float(box.get(x, "9")) * scale["x"] + translate["x"] <= 1
            assert -1 <= float(box.get(y, "9")) * scale["y"] + translate["y"] <= 1


def _attributes(node: ElementTree.Element, path: str) -> dict[str, float]:
    found = node.find(path, TT)
    assert found is not None
    return {name: float(value) for name, value in found.items()}


def test_onvif_text_is_well_formed_whatever_the_names() -> None:
    odd = msgspec.structs.replace(FRAME.objects[0], class_name='<&"\x00\x1b>')
    text = onvif_metadata(msgspec.structs.replace(FRAME, source_id="a<b>\x07&", objects=[odd]))
    assert ElementTree.fromstring(text).find("tt:VideoAnalytics/tt:Frame", TT) is not None


def test_a_frigate_track_begins_once_and_ends_once() -> None:
    tracks: Tracks = {}
    events: list[dict[str, Any]] = []
    for n in range(300):
        objects = FRAME.objects[:1] if n < 100 else []
        utc_ns = FRAME.captured_utc_ns + n * 100_000_000
        found, tracks = frigate_events(tracks, msgspec.structs.replace(FRAME, objects=objects, captured_utc_ns=utc_ns))
        events += found
    assert [event["type"] for event in events] == ["new", "end"]
    assert len({event["after"]["id"] for event in events}) == 1
    assert events[-1]["after"]["end_time"] - events[-1]["after"]["start_time"] == pytest.approx(9.9)
    assert tracks == {}


def test_objects_without_identity_make_no_frigate_events() -> None:
    stranger = msgspec.structs.replace(FRAME.objects[0], track_id=-1)
    assert frigate_events({}, msgspec.structs.replace(FRAME, objects=[stranger])) == ([], {})
