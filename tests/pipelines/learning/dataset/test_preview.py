"""The preview of augmented images: it shows training images, with boxes that follow the changes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from engine.errors import ConfigError
from pipelines.cli import app
from pipelines.learning.dataset.boxes import Box
from pipelines.learning.dataset.project import Project
from pipelines.learning.train.options import Augment
from pipelines.learning.train.preview import COLOURS, GAP, preview

pytest.importorskip("torch", reason='no torch: pip install "framewire[train]"')
STILL = Augment(flip=0, colour=0, scale=(1.0, 1.0), translate=0)
SIZE = 96


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """One grey image with a white square in its upper left quarter, labelled."""
    made = Project.create(tmp_path / "a.fwm", ["square"])
    image = np.full((SIZE, SIZE, 3), 90, np.uint8)
    image[12:48, 12:48] = 255
    place = made.add(bytes(cv2.imencode(".png", image)[1]), "a.png", image, {})
    made.save_boxes(place, [Box(0, 30 / SIZE, 30 / SIZE, 36 / SIZE, 36 / SIZE)])
    return made


def shown(project: Project, augment: Augment, tmp_path: Path) -> np.ndarray:
    preview(project, augment, tmp_path / "out.png", count=1, size=SIZE)
    return cv2.imread(str(tmp_path / "out.png"))[GAP : GAP + SIZE, GAP : GAP + SIZE]


def left_of_box(cell: np.ndarray) -> int:
    return int(np.flatnonzero((cell == COLOURS[0]).all(axis=2).any(axis=0))[0])


def test_a_box_lies_around_its_object_and_follows_a_mirror_image(project: Project, tmp_path: Path) -> None:
    cell = shown(project, STILL, tmp_path)
    assert abs(left_of_box(cell) - 12) <= 2
    assert cell[30, 30].tolist() == [255, 255, 255]
    mirrored = shown(project, Augment(flip=1, colour=0, scale=(1.0, 1.0), translate=0), tmp_path)
    assert abs(left_of_box(mirrored) - (SIZE - 48)) <= 2
    assert mirrored[30, SIZE - 31].tolist() == [255, 255, 255]


def test_the_same_seed_shows_the_same(project: Project, tmp_path: Path) -> None:
    first = shown(project, Augment(), tmp_path)
    np.testing.assert_array_equal(first, shown(project, Augment(), tmp_path))


def test_pictures_that_training_does_not_read_are_not_shown(project: Project, tmp_path: Path) -> None:
    project.to_inbox(project.images("train")[0])
    with pytest.raises(ConfigError, match="no labelled images in the training split"):
        preview(project, STILL, tmp_path / "out.png")


def test_the_command_writes_the_file(project: Project, tmp_path: Path) -> None:
    out = tmp_path / "many.png"
    words = ["dataset", "augment", str(project.folder), "--preview", "5", "--augment", "mosaic=1", "--out", str(out)]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert cv2.imread(str(out)).shape == (2 * (320 + GAP) + GAP, 3 * (320 + GAP) + GAP, 3)
    assert CliRunner().invoke(app, [*words[:-4], "--augment", "flap=1"]).exit_code != 0
