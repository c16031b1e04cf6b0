"""Settings that match nothing are refused, with a suggestion of the intended name."""

from __future__ import annotations

import logging

import pytest

from engine.errors import ConfigError
from engine.imaging.privacy import PrivacyRules
from pipelines.build.models import build_pool
from pipelines.build.names import check_names
from pipelines.config.file import validated

CORNER = [[0, 0], [1, 0], [1, 1]]
NAMES = {"detector": ["person", "bicycle", "car"]}


def checked(pictures: dict[str, object] | None = None, **keys: object) -> None:
    source = {"uri": "a.mp4", "source_id": "gate"} | dict(keys.pop("source", {}))  # type: ignore[call-overload]
    publish = {"publish": {"pictures": pictures}} if pictures is not None else {}
    check_names(validated({"sources": [source], **publish, **keys}, "test"), NAMES)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        pytest.param({"blur": ["Person"]}, r"no model finds 'Person': did you mean person\?", id="another case"),
        pytest.param({"blur": ["persn"]}, r"did you mean person\?", id="another spelling"),
        pytest.param({"blur": ["licence_plate"]}, "expected one of person, bicycle, car", id="a class it has not"),
        pytest.param({"blur_regions": {"gaet": [[0, 0, 9, 9]]}}, r"no source 'gaet': did you mean gate\?", id="camera"),
    ],
)
def test_privacy_that_would_hide_nobody_is_refused(pictures: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(pictures)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param(
            {"privacy": {"classes": ["person"]}}, "privacy: classes without a mode hide nothing", id="classes"
        ),
        pytest.param({"privacy": {"regions": [CORNER]}}, "privacy: regions without a mode hide nothing", id="regions"),
        pytest.param(
            {"sources": [{"uri": "0", "privacy": {"classes": ["person"]}}]}, r"sources.0.privacy: classes", id="source"
        ),
        pytest.param({"events": {"clips": {"before_s": 1}}}, "events: clips without a folder keep nothing", id="clips"),
        pytest.param({"events": {"keep": {"max_gb": 1}}}, "events: keep without a folder keep nothing", id="keep"),
    ],
)
def test_settings_without_the_one_that_they_depend_on_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validated({"sources": [{"uri": "0"}], **settings}, "test")


def test_settings_may_be_kept_while_they_are_switched_off_but_a_region_needs_an_area() -> None:
    validated({"sources": [], "privacy": {"mode": "none", "regions": [CORNER]}}, "test")
    PrivacyRules(regions=(((0, 0), (1, 0), (1, 1)),))
    with pytest.raises(ConfigError, match="has no area, so it hides nothing"):
        PrivacyRules(regions=(((0.1, 0.1), (0.2, 0.1), (0.3, 0.1)),))
    validated({"sources": [], "events": {"folder": None, "clips": {"before_s": 1}}}, "test")


def test_a_class_that_is_left_out_cannot_be_blurred() -> None:
    with pytest.raises(ConfigError, match="detector.classes leaves out person"):
        checked({"blur": ["person"]}, detector={"classes": ["car"]})
    with pytest.raises(ConfigError, match=r"sources.0.classes leaves out person"):
        checked({"blur": ["person"]}, source={"classes": ["car"]})
    checked({"blur": ["person"]}, detector={"classes": ["car", "Person"]})


def test_what_a_region_leaves_out_is_said_not_to_be_blurred(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        checked({"blur": ["person"]}, source={"regions": [[[0, 0], [9, 0], [9, 9]]]})
    assert "sources.0.regions: objects that it leaves out are not blurred" in caplog.text


def test_classes_of_a_source_are_those_of_its_model() -> None:
    with pytest.raises(ConfigError, match=r'sources.0.classes: unknown class "persn": did you mean person'):
        checked(source={"classes": ["persn"]})
    checked(source={"classes": ["Person", 2]})


def test_a_camera_that_may_still_come_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        checked({"blur_regions": {"yard": [[0, 0, 9, 9]]}}, control={"address": "tcp://127.0.0.1:5556"})
    assert "takes effect once such a source is added" in caplog.text


def test_a_threshold_below_that_of_the_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sources.0.score_threshold: 0.1 is below .*0.25.*lower both"):
        checked(source={"score_threshold": 0.1}, detector={"score_threshold": 0.25})


def test_a_threshold_below_the_one_that_the_file_recommends_is_refused() -> None:
    config = validated({"sources": [{"uri": "synthetic://", "source_id": "gate", "score_threshold": 0.3}]}, "test")
    with pytest.raises(
        ConfigError, match=r"gate: score_threshold 0.3 is below .* 0.4, .* set detector.score_threshold"
    ):
        build_pool(config, [])
    lower = validated(
        {"sources": [{"uri": "synthetic://", "score_threshold": 0.3}], "detector": {"score_threshold": 0.2}}, ""
    )
    assert build_pool(lower, [])
