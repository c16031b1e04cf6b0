from __future__ import annotations

import pytest

from engine.errors import ConfigError
from engine.protocols import Tracker
from engine.tracking.registry import TRACKERS, tracker_by_name, tracker_parameters


@pytest.mark.parametrize("name", TRACKERS)
def test_every_name_gives_a_tracker(name: str) -> None:
    assert isinstance(tracker_by_name(name), Tracker)


@pytest.mark.parametrize("name", TRACKERS)
def test_every_parameter_is_described_and_can_be_given(name: str) -> None:
    parameters = tracker_parameters(name)
    assert all(len(parameter.description) > 20 for parameter in parameters)
    tracker_by_name(name, **{parameter.name: parameter.default for parameter in parameters})


def test_a_clone_has_the_same_parameters() -> None:
    tracker = tracker_by_name("steady", lost_s=7.0, max_objects=9)
    assert tracker.clone().parameters == tracker.parameters  # type: ignore[attr-defined]


def test_an_unknown_tracker_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown tracker 'deepsort': expected one of steady, bytetrack"):
        tracker_by_name("deepsort")


def test_an_unknown_parameter_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"tracker sort has no parameter speed: expected some of min_score"):
        tracker_by_name("sort", speed=3)
