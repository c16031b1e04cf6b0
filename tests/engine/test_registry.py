"""Parts of other packages: found by entry point or `module:attribute`, with errors that help."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.detection.heads.families import choose_family
from engine.detection.heads.family import Layout
from engine.errors import ConfigError, EngineError, ModelError
from engine.registry import Registry, is_reference
from engine.sources.open import open_source
from engine.tracking.registry import tracker_by_name
from pipelines.build.pipeline import build_pipeline
from pipelines.config.file import validated
from pipelines.running.reconfigure import Reconfigurer

OWN = """
from dataclasses import dataclass, field
import numpy as np
from engine import AnalyserBase, Detections, DetectorBase, SinkBase, TrackerBase, Tracks
from engine.sources.synthetic import SyntheticSource, scene_from_uri

def camera(uri, source_id, count=5):
    return SyntheticSource(scene_from_uri(f"synthetic://?width=32&height=32&count={count}"), source_id, uri=uri)

class Corner(DetectorBase):
    name, class_names = "corner", ("corner",)
    def __init__(self, side=4):
        self.side = side
    def detect(self, frames):
        return [Detections([[0, 0, self.side, self.side]], [0.5], [0]) for _ in frames]

class Follow(TrackerBase):
    def __init__(self, first_id=1):
        self.first_id = first_id
    def update(self, detections, captured_ns):
        if detections is None:
            return Tracks.empty()
        ids = np.arange(len(detections)) + self.first_id
        return Tracks(detections.xyxy, detections.score, detections.class_id, ids)
    def reset(self):
        pass
    def clone(self):
        return Follow(self.first_id)

class Counter(AnalyserBase):
    name = "counter"
    def __init__(self):
        self.seen = 0
    def analyse(self, packets):
        self.seen += len(packets)
        return [packet.with_analysis(self.name, self.seen) for packet in packets]

class Keep(SinkBase):
    kept = []
    def write(self, packet):
        Keep.kept.append(packet)

class HalfTracker:
    def update(self, detections, captured_ns):
        return Tracks.empty()

def fails():
    raise ZeroDivisionError("nobody thought of this")

NUMBER = 5
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A package `own_parts`, installed with entry points."""
    site = tmp_path_factory.mktemp("site")
    (site / "own_parts.py").write_text(OWN)
    (site / "own_broken.py").write_text("import not_installed_anywhere\n")
    info = site / "own_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[framewire.trackers]\nfollow = own_parts:Follow\nbytetrack = own_parts:fails\n"
        "[framewire.sources]\nown = own_parts:camera\n"
        "[framewire.sinks]\nkeep = own_parts:Keep\n"
        "[framewire.detectors]\ncorner = own_parts:Corner\n"
        "[framewire.analysers]\ncounter = own_parts:Counter\n"
    )
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    yield
    sys.path.remove(str(site))
    for name in ("own_parts", "own_broken"):
        sys.modules.pop(name, None)


pytestmark = pytest.mark.usefixtures("package")


def run(tree: dict[str, Any]) -> list[Any]:
    import own_parts  # type: ignore[import-not-found]

    own_parts.Keep.kept = []
    tree = {"publish": {"address": "none"}, **tree}
    build_pipeline(validated(tree, "test")).run()
    return list(own_parts.Keep.kept)


@pytest.mark.parametrize("by_entry_point", [True, False], ids=["entry point", "module:attribute"])
def test_a_run_takes_every_kind_of_part_from_another_package(by_entry_point: bool) -> None:
    def name(entry_point: str, attribute: str) -> str:
        return entry_point if by_entry_point else f"own_parts:{attribute}"

    packets = run(
        {
            "sources": [
                {"uri": "own://x", "source_id": "gate", "type": name("own", "camera"), "parameters": {"count": 3}}
            ],
            "detector": {"model": name("corner", "Corner"), "parameters": {"side": 6}},
            "tracker": {"type": name("follow", "Follow"), "parameters": {"first_id": 7}},
            "analysers": [{"type": name("counter", "Counter")}],
            "output": {"sinks": [{"type": name("keep", "Keep")}]},
        }
    )
    assert [p.frame.frame_id for p in packets] == [0, 1, 2]
    assert {p.detections.xyxy[0, 2] for p in packets} == {6.0}
    assert {int(p.tracks.track_id[0]) for p in packets} == {7}
    assert [p.analyses["counter"] for p in packets] == [1, 2, 3]
    assert {p.run.model for p in packets} == {"corner"}


def test_an_address_with_the_scheme_of_a_package_is_opened_by_it() -> None:
    source = open_source("own://here", source_id="gate")
    assert source.info.uri == "own://here"
    assert len(list(source)) == 5


def test_analysers_see_only_the_sources_that_are_listed() -> None:
    sources = [{"uri": "own://x", "source_id": name} for name in ("a", "b")]
    analysers = [{"type": "counter", "sources": ["a"]}]
    tree = {"sources": sources, "detector": {"model": "corner"}, "analysers": analysers}
    packets = run({**tree, "output": {"sinks": [{"type": "keep"}]}})
    assert {p.frame.source_id for p in packets if p.analyses} == {"a"}


def test_a_built_in_name_cannot_be_replaced() -> None:
    assert type(tracker_by_name("bytetrack")).__module__ == "engine.tracking.bytetrack"
    assert Registry("tracker", {"bytetrack": "x:y"}).names() == ["bytetrack", "follow"]


def test_without_packages_an_unknown_name_lists_no_names() -> None:
    with pytest.raises(ConfigError, match="unknown gadget 'x': expected module:attribute, because no installed"):
        Registry("gadget", {}).load("x")


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        pytest.param({"tracker": {"type": "folow"}}, "unknown tracker 'folow'.*did you mean follow", id="typo"),
        pytest.param(
            {"tracker": {"type": "own_parts:Folow"}}, "own_parts has no Folow; did you mean Follow", id="attribute"
        ),
        pytest.param(
            {"tracker": {"type": "no_such_parts:X"}}, "no_such_parts cannot be imported.*PYTHONPATH", id="module"
        ),
        pytest.param({"tracker": {"type": "own_broken:X"}}, "not_installed_anywhere", id="import of an import"),
        pytest.param(
            {"tracker": {"type": "own_parts:NUMBER"}}, "is a int: expected a class or a function", id="no factory"
        ),
        pytest.param({"tracker": {"type": "own_parts:HalfTracker"}}, "HalfTracker without clone, reset", id="members"),
        pytest.param(
            {"tracker": {"type": "own_parts:fails"}}, "cannot be made: ZeroDivisionError: nobody", id="failure"
        ),
        pytest.param(
            {"tracker": {"type": "follow", "parameters": {"speed": 1}}}, "no parameter speed.*first_id", id="parameter"
        ),
        pytest.param({"detector": {"model": "own_parts:Keep"}}, "made a Keep without", id="wrong kind"),
        pytest.param(
            {"detector": {"model": "corner", "score_threshold": 0.5}},
            "score_threshold does not apply to corner",
            id="key",
        ),
        pytest.param(
            {"detector": {"parameters": {"a": 1}}},
            "parameters belong to .* no installed package offers 'demo'",
            id="file",
        ),
        pytest.param({"analysers": [{"type": "counter", "sources": ["yard"]}]}, "no source yard.*: gate", id="source"),
        pytest.param({"output": {"sinks": [{"type": "nowhere"}]}}, "unknown sink 'nowhere'", id="sink"),
        pytest.param(
            {"sources": [{"uri": "own://", "type": "own", "transport": "udp"}]}, "transport does not apply", id="option"
        ),
    ],
)
def test_mistakes_say_what_is_wrong(tree: dict[str, Any], expected: str) -> None:
    base = {"sources": [{"uri": "own://x", "source_id": "gate"}], "detector": {"model": "corner"}}
    with pytest.raises(EngineError, match=expected):
        run({**base, **tree})


def test_a_head_that_is_no_family_is_refused() -> None:
    layout = Layout(outputs=(), size_hw=(64, 64), metadata={}, task="detect")
    with pytest.raises(ModelError, match="own_parts:NUMBER is a int: expected a Family"):
        choose_family(layout, "own_parts:NUMBER")


@pytest.mark.parametrize("key", ["detector.model", "sources.0.type", "detector.backend"])
def test_a_request_cannot_name_code(key: str) -> None:
    tree = {"sources": [{"uri": "own://x", "source_id": "gate"}], "detector": {"model": "corner"}}
    config = validated({**tree, "publish": {"address": "none"}, "control": {"address": "ipc://x"}}, "test")
    changes = Reconfigurer(build_pipeline(config), config)
    with pytest.raises(ConfigError, match="os:system is code, which only the configuration file may name"):
        changes.set(key, "os:system")
    with pytest.raises(ConfigError, match="os:system is code"):
        changes.add({"uri": "own://y", "type": "os:system"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a:b", True), ("a.b:c.d", True), ("C:\\model.onnx", False), ("rtsp://x", False), ("a:b:c", False), (5, False)],
)
def test_references_are_told_from_paths_and_addresses(text: object, expected: bool) -> None:
    assert is_reference(text) is expected


def test_names_list_what_installed_packages_offer(tmp_path: Path) -> None:
    assert Registry("analyser", {}).names() == ["counter"]


@pytest.mark.parametrize("value", ["nan", "0.5", float("nan"), True, [1.0]])
def test_what_is_no_number_is_refused_where_a_parameter_is_one(value: object) -> None:
    with pytest.raises(ConfigError, match=r"tracker steady: coast_s is .*: expected a number"):
        tracker_by_name("steady", coast_s=value)
