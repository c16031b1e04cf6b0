"""Labelling in Chromium, by hand and keys, judged by the label files on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipelines.learning.dataset.boxes import Box
from pipelines.learning.dataset.project import Project
from pipelines.learning.label.assist import Assist
from pipelines.learning.label.run import LabelOptions, gated
from pipelines.web.access import Listen
from tests.pipelines.web.page.browsing import Page, chromium
from tests.web_server import running

pytestmark = pytest.mark.browser
SIZE_WH = (640, 480)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project.create(tmp_path / "gate.fwm", ["person", "car"])
    for number in range(3):
        image = np.full((SIZE_WH[1], SIZE_WH[0], 3), 60 + 40 * number, np.uint8)
        cv2.rectangle(image, (100, 100), (300, 250), (200, 120, 40), -1)
        fields = {"camera": "gate", "clip": "a"}
        made.add(bytes(cv2.imencode(".png", image)[1]), f"{number}.png", image, fields, frame=10 * number)
    made.suggest("0.png", [{"class_name": "car", "score": 0.7, "xyxy": [0.1, 0.2, 0.3, 0.4]}, SUGGESTED])
    return made


SUGGESTED = {"class_name": "person", "score": 0.4, "xyxy": [0.5, 0.5, 0.75, 0.9]}


@pytest.fixture
def page(browser: Any, project: Project) -> Iterator[Any]:
    app = gated(project, Assist(project, None), LabelOptions(Listen("127.0.0.1", 0)))
    with running(app) as port, Page(browser, f"http://127.0.0.1:{port}") as opened:
        opened.wait_for_selector("#items li[aria-current=true]")
        opened.wait_for_selector("#boxes rect.suggested")
        yield opened


def at(page: Any, x: float, y: float) -> tuple[float, float]:
    """Return where a pixel of the image is on the screen."""
    area = page.locator("#picture").bounding_box()
    return area["x"] + x / SIZE_WH[0] * area["width"], area["y"] + y / SIZE_WH[1] * area["height"]


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*at(page, *start))
    page.mouse.down()
    page.mouse.move(*at(page, (start[0] + end[0]) / 2, end[1]))
    page.mouse.move(*at(page, *end))
    page.mouse.up()


def shows(page: Any, text: str) -> None:
    page.wait_for_function("text => document.getElementById('said').textContent.includes(text)", arg=text)


def pixels(project: Project, name: str) -> list[tuple[int, list[float]]]:
    image = project.find(name)
    size = (*SIZE_WH, *SIZE_WH)
    return [(box.class_id, [v * s for v, s in zip(box.xyxy, size, strict=True)]) for box in project.boxes(image)]


def test_boxes_that_are_drawn_moved_pulled_and_deleted_are_those_on_disk(page: Any, project: Project) -> None:
    page.set_viewport_size({"width": 1920, "height": 1400})  # the mouse moves in whole pixels of the screen
    page.wait_for_function("document.getElementById('picture').getBoundingClientRect().width > 1280")
    drag(page, (400, 50), (500, 150))
    page.keyboard.press("2")  # the new box is chosen: now a car
    drag(page, (450, 100), (470, 130))  # move it by (20, 30)
    drag(page, (520, 180), (540, 200))  # its lower right corner
    drag(page, (50, 300), (90, 340))
    page.keyboard.press("Delete")
    page.keyboard.press("Enter")
    shows(page, "")
    page.wait_for_selector("#items li[data-name='1.png'][aria-current=true]")
    assert project.find("0.png").parent.name == "train"
    [(class_id, xyxy)] = pixels(project, "0.png")
    assert class_id == 1
    np.testing.assert_allclose(xyxy, [420, 80, 540, 200], atol=0.5)


def test_a_suggestion_is_no_label_until_a_key_accepts_it(page: Any, project: Project) -> None:
    assert page.locator("#boxes rect.suggested").count() == 2
    page.keyboard.press("n")
    page.wait_for_selector("#items li[data-name='1.png'][aria-current=true]")
    assert project.labelled() == []
    assert not (project.folder / "labels").exists()  # not a byte
    page.keyboard.press("p")
    page.wait_for_selector("#boxes rect.suggested")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("a")  # the second one only
    shows(page, "1 suggestion: A accepts")
    page.keyboard.press("Enter")
    page.wait_for_selector("#items li[data-name='1.png'][aria-current=true]")
    [(class_id, xyxy)] = pixels(project, "0.png")
    assert class_id == 0
    np.testing.assert_allclose(xyxy, np.array(SUGGESTED["xyxy"]) * [640, 480, 640, 480], atol=1e-3)


def test_undo_and_redo_go_through_every_change(page: Any, project: Project) -> None:
    def boxes() -> int:
        return int(page.locator("#boxes rect.box:not(.suggested)").count())

    page.keyboard.press("a")
    assert boxes() == 2
    drag(page, (500, 20), (600, 60))
    page.keyboard.press("Delete")
    counts = []
    for _ in range(3):
        page.keyboard.press("Control+z")
        counts.append(boxes())
    assert counts == [3, 2, 0]
    assert page.locator("#boxes rect.suggested").count() == 2
    for expected in (2, 3, 2):
        page.keyboard.press("Control+y")
        assert boxes() == expected
    page.keyboard.press("Control+z")
    page.keyboard.press("Enter")
    page.wait_for_selector("#items li[data-name='1.png'][aria-current=true]")
    assert len(pixels(project, "0.png")) == 3


def test_a_picture_without_objects_is_labelled_and_can_be_taken_back(page: Any, project: Project) -> None:
    page.keyboard.press("Enter")
    page.wait_for_selector("#items li[data-name='1.png'][aria-current=true]")
    assert project.label_of(project.find("0.png")).read_text() == ""
    page.keyboard.press("p")
    page.wait_for_selector("#items li[data-name='0.png'][aria-current=true]")
    page.keyboard.press("r")
    shows(page, "back in the inbox")
    assert project.labelled() == []


def test_arrows_move_a_box_by_pixels_of_the_picture(page: Any, project: Project) -> None:
    page.keyboard.press("Tab")
    page.keyboard.press("a")
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowDown", "Alt+ArrowRight"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_selector("#items li[data-name='1.png'][aria-current=true]")
    [(_, xyxy)] = pixels(project, "0.png")
    np.testing.assert_allclose(xyxy, [64 + 2, 96 + 10, 192 + 3, 192 + 10], atol=1e-2)


def test_frames_between_labelled_ones_get_boxes_to_accept(browser: Any, project: Project) -> None:
    project.save_boxes(project.find("0.png"), [Box(1, 0.2, 0.2, 0.1, 0.2), Box(0, 0.8, 0.8, 0.1, 0.1)])
    project.save_boxes(project.find("2.png"), [Box(0, 0.8, 0.8, 0.1, 0.1), Box(1, 0.4, 0.3, 0.1, 0.2)])
    app = gated(project, Assist(project, None), LabelOptions(Listen("127.0.0.1", 0)))
    with running(app) as port, Page(browser, f"http://127.0.0.1:{port}") as page:
        page.wait_for_selector("#items li[data-name='1.png'][aria-current=true]")
        page.keyboard.press("b")
        page.wait_for_selector("#boxes rect.suggested")
        page.keyboard.press("a")
        page.keyboard.press("Enter")
        shows(page, "saved 2 objects")
    boxes = project.boxes(project.find("1.png"))
    np.testing.assert_allclose(
        sorted((box.class_id, *box.xyxy) for box in boxes), [(0, 0.75, 0.75, 0.85, 0.85), (1, 0.25, 0.15, 0.35, 0.35)],
        atol=1e-6,
    )  # fmt: skip


def test_a_model_suggests_and_the_page_looks_right(browser: Any, tmp_path: Path, data_dir: Path) -> None:
    image = cv2.imread(str(data_dir / "images" / "assets" / "bus.jpg"))
    project = Project.create(tmp_path / "gate.fwm", ["person", "bus"])
    project.add(bytes(cv2.imencode(".jpg", image)[1]), "bus.jpg", image, {"camera": "gate"})
    assist = Assist(project, "demo")
    app = gated(project, assist, LabelOptions(Listen("127.0.0.1", 0)))
    with running(app) as port, Page(browser, f"http://127.0.0.1:{port}") as page:
        page.wait_for_selector("#items li[aria-current=true]")
        page.keyboard.press("s")
        page.wait_for_selector("#boxes rect.suggested")
        assert project.labelled() == []
        drag_in = page.locator("#boxes rect.suggested").count()
        page.keyboard.press("a")
        if folder := os.environ.get("FRAMEWIRE_SCREENSHOTS"):
            page.keyboard.press("Tab")
            page.screenshot(path=str(Path(folder) / "label.png"))
        page.keyboard.press("Enter")
        shows(page, f"saved {drag_in} objects")
    assist.close()
    names = {project.classes[box.class_id] for box in project.boxes(project.find("bus.jpg"))}
    assert names == {"person", "bus"}
