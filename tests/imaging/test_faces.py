"""Faces are hidden in every output, although the model of the source knows none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engine.data import Detections, Frame, Packet, Run, Tracks
from engine.errors import ConfigError
from engine.imaging.faces import FACE_ID, Faces
from engine.imaging.privacy import Privacy, PrivacyRules
from engine.protocols import DetectorBase
from engine.tracking.registry import tracker_by_name
from pipelines.build import privacy as build
from pipelines.build.pipeline import build_pipeline
from pipelines.config.file import load_config
from tests.imaging.markers import MARKER, READABLE, SIZE, FindsPeople, correlation, people, scene
from tests.media import encode_clip

FRAMES = 12
PHOTO = Path(os.environ.get("FRAMEWIRE_DATA", "")) / "images" / "assets" / "zidane.jpg"
PAINTED = ((945, 130), (580, 300))
"""Upper left corners of the pattern on the two faces of the photograph."""


class SeesNobody(DetectorBase):
    """Has a class for people, and finds none."""

    name = "blind"
    class_names = ("person",)

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        return [Detections.empty() for _ in frames]


class SeesFaces(FindsPeople):
    """Finds the patterns, as faces, and counts the frames that it looked at."""

    class_names = ("face",)

    def __init__(self, blind: Sequence[int] = ()) -> None:
        super().__init__(blind)
        self.seen = 0

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        self.seen += len(frames)
        found = []
        for frame in frames:
            boxes = [(x1 + 6, y1 + 10, x1 + 6 + SIZE, y1 + 10 + SIZE) for x1, y1, _, _ in people(frame.frame_id)]
            boxes = [] if frame.frame_id in self.blind else boxes
            found.append(Detections(boxes or np.zeros((0, 4)), [0.6] * len(boxes), [0] * len(boxes)))
        return found


def packet(number: int, image: np.ndarray, **values: Any) -> Packet:
    frame = Frame(image, "gate", number, number * 100_000_000, 0, number * 100_000_000, "file")
    return Packet(frame, Detections.empty(), Tracks.empty(), Run("e", 0, "", ("person",)), **values)


def hiding(faces: Faces, **values: Any) -> Privacy:
    return Privacy(PrivacyRules(classes=("face",), **values), faces=faces)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = [scene(number) for number in range(FRAMES)]
    return encode_clip(tmp_path_factory.mktemp("input") / "walk.mp4", images, rate=10, options={"crf": "4"})


def run(clip: Path, folder: Path, **values: Any) -> list[np.ndarray]:
    """Run with a video, images of events and a program's own packets; return all that they show."""
    source = {"uri": str(clip), "source_id": "gate"}
    fixed = {"sources": [source], "publish.address": "none", "output.save": str(folder / "out.mp4")}
    config = load_config(None, {**fixed, "privacy.mode": "blur", "output.overlay.places": False, **values})
    with build_pipeline(config, make_detector=lambda *_: SeesNobody()) as pipeline:
        shown = [made.frame.image for made in pipeline]
        assert pipeline.privacy is not None
        assert all(each["withheld"] == 0 for each in pipeline.privacy.summary().values())
    video = cv2.VideoCapture(str(folder / "out.mp4"))
    while (read := video.read())[0]:
        shown.append(np.asarray(read[1], np.uint8))
    return shown


def test_the_pattern_on_faces_is_read_in_no_output(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = SeesFaces(blind=(5, 6))
    monkeypatch.setattr(build, "load_detector", lambda *_, **__: detector)
    (tmp_path / "person").mkdir()
    shown = run(clip, tmp_path / "person")
    assert min(map(correlation, shown)) > READABLE, "nobody is found"
    assert detector.seen == 0
    (tmp_path / "face").mkdir()
    shown = run(clip, tmp_path / "face", **{"privacy.classes": ["person", "face"], "privacy.delay_s": 0.2})
    assert len(shown) == 2 * FRAMES
    assert max(map(correlation, shown)) < READABLE
    assert detector.seen == FRAMES


def test_a_face_that_is_missed_stays_hidden_where_it_moves_to() -> None:
    detector = SeesFaces(blind=(8, 9, 10))
    privacy = hiding(Faces(lambda: detector, tracker_by_name("steady")))
    shown = [made for number in range(FRAMES) for made in privacy.take(packet(number, scene(number)))]
    assert max(correlation(made.frame.image) for made in shown) < READABLE
    assert {FACE_ID} == {kind for made in shown if made.hidden for kind in made.hidden.class_id.tolist()}
    assert all(made.stage_ms["privacy"] > 0 for made in shown)


def test_nothing_is_looked_for_on_a_frame_that_repeats_the_one_before() -> None:
    detector = SeesFaces()
    privacy = hiding(Faces(lambda: detector, tracker_by_name("steady")))
    privacy.take(packet(0, scene(0)))
    [held] = privacy.take(packet(40, scene(0), is_held=True))
    assert detector.seen == 1
    assert correlation(held.frame.image) < READABLE


def test_scores_below_the_floor_do_not_count() -> None:
    privacy = hiding(Faces(SeesFaces, tracker_by_name("steady")), score_floor=0.7)
    assert correlation(privacy.hide(packet(0, scene(0))).frame.image) > READABLE


def test_a_detector_of_faces_that_fails_shows_nothing() -> None:
    def fail() -> DetectorBase:
        raise ConfigError("no backend")

    privacy = hiding(Faces(fail, tracker_by_name("steady")))
    [made] = privacy.take(packet(0, scene(0)))
    assert not made.frame.image.any()
    assert privacy.summary() == {"gate": {"hidden": 0, "withheld": 1}}


def test_a_model_that_knows_faces_needs_no_second_one() -> None:
    detector = SeesFaces()
    made = packet(0, scene(0))
    found = detector.detect([made.frame])[0]
    made = Packet(made.frame, found, Tracks.empty(), Run("e", 0, "", ("face",)))
    assert correlation(hiding(Faces(SeesFaces, tracker_by_name("steady"))).hide(made).frame.image) < READABLE


def test_recordings_are_refused_with_faces_too() -> None:
    record = {"uri": "rtsp://gate/main", "folder": "r"}
    given = {
        "sources": [{"uri": "rtsp://gate/sub", "record": record}],
        "privacy": {"mode": "blur", "classes": ["face"]},
    }
    with pytest.raises(ConfigError, match=r"sources\.0\.record: it stores the camera's own video"):
        build.build_privacy(load_config(None, given))


@pytest.mark.skipif(not PHOTO.is_file(), reason="needs images/assets/zidane.jpg in the folder FRAMEWIRE_DATA")
def test_the_embedded_model_finds_the_faces_of_a_photograph_that_moves(tmp_path: Path) -> None:
    """A weak pattern is painted on both faces: where the difference to the photograph shows it, it was not hidden."""
    photo = cv2.imread(str(PHOTO))
    painted = photo.copy()
    pattern = np.kron(MARKER[::4, ::4].astype(np.int16), np.ones((6, 6, 1), np.int16))[:60, :60] // 8 - 15
    for x, y in PAINTED:
        spot = painted[y : y + 60, x : x + 60]
        spot[:] = (spot + pattern).clip(0, 255).astype(np.uint8)
    moved = [np.roll(image, 6 * number, axis=1) for number in range(4) for image in (painted,)]
    clip = encode_clip(tmp_path / "photo.mp4", moved, rate=5, options={"crf": "4"})
    read = {}
    for classes in (["person"], ["face"]):
        folder = tmp_path / classes[0]
        folder.mkdir()
        shown = run(clip, folder, **{"privacy.classes": classes})
        assert len(shown) == 8
        read[classes[0]] = [
            _correlation(image, np.roll(photo, 6 * (at % 4), axis=1), pattern, (x + 6 * (at % 4), y))
            for at, image in enumerate(shown)
            for x, y in PAINTED
        ]
    assert min(read["person"]) > 0.7, "nobody is found by a model that sees nobody"
    assert max(np.abs(read["face"])) < 0.3


def _correlation(image: np.ndarray, clean: np.ndarray, pattern: np.ndarray, at: tuple[int, int]) -> float:
    x, y = at
    left = (image[y : y + 60, x : x + 60].astype(float) - clean[y : y + 60, x : x + 60]).mean(axis=2).ravel()
    return float(np.corrcoef(left, pattern.mean(axis=2).ravel())[0, 1])
