"""The label page's requests: what they write, what they refuse, and who may send them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engine.errors import ConfigError
from pipelines.learning.dataset.boxes import Box
from pipelines.learning.dataset.project import Project
from pipelines.learning.dataset.split import split
from pipelines.learning.label.app import boxes_of
from pipelines.learning.label.assist import Assist
from pipelines.learning.label.between import interpolated, pairs
from pipelines.learning.label.run import LabelOptions, gated
from pipelines.web.access import Listen
from tests.web_server import running


def picture(seed: int) -> np.ndarray:
    return cv2.resize(np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8), (64, 48))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project.create(tmp_path / "gate.fwm", ["person", "car"])
    for number in range(4):
        image = picture(number)
        made.add(bytes(cv2.imencode(".png", image)[1]), f"{number}.png", image, {"clip": "a"}, frame=10 * number)
    return made


@pytest.fixture
def port(project: Project) -> Iterator[int]:
    with running(gated(project, Assist(project, None), LabelOptions(Listen("127.0.0.1", 0)))) as found:
        yield found


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    content = None if body is None else json.dumps(body)
    connection.request(method, path, content, {"content-type": "application/json", **headers})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    is_json = "json" in (answer.getheader("content-type") or "")
    return answer.status, json.loads(data) if is_json else data


def test_labels_are_written_read_and_taken_back(port: int, project: Project) -> None:
    boxes = [{"class_id": 1, "xyxy": [0.25, 0.5, 0.5, 0.75]}]
    assert ask(port, "PUT", "/api/items/1.png", {"boxes": boxes}) == (200, {"part": "train", "boxes": 1})
    assert project.boxes(project.find("1.png")) == [Box(1, 0.375, 0.625, 0.25, 0.25)]
    status, item = ask(port, "GET", "/api/items/1.png")
    assert (status, item["part"], item["boxes"]) == (200, "train", boxes)
    assert ask(port, "DELETE", "/api/items/1.png") == (200, {"part": "inbox"})
    assert project.labelled() == []
    status, overview = ask(port, "GET", "/api/project")
    assert [item["part"] for item in overview["items"]] == ["inbox"] * 4


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"", "expected boxes", id="empty"),
        pytest.param(b'{"boxes": 3}', "expected a list", id="a number"),
        pytest.param(b'{"boxes": [{"class_id": 2, "xyxy": [0, 0, 1, 1]}]}', "has class 2", id="unknown class"),
        pytest.param(b'{"boxes": [{"class_id": true, "xyxy": [0, 0, 1, 1]}]}', "whole class_ids", id="a truth value"),
        pytest.param(b'{"boxes": [{"class_id": 0, "xyxy": [0, 0, 1]}]}', "expected boxes", id="three corners"),
        pytest.param(b'{"boxes": [{"class_id": 0, "xyxy": [0, 0, NaN, 1]}]}', "finite", id="not a number"),
        pytest.param(b'{"boxes": [{"class_id": 0, "xyxy": [0.5, 0, 0.5, 1]}]}', "no area", id="no area"),
        pytest.param(b'{"boxes": [{"class_id": 0, "xyxy": [-0.5, 0, 0.5, 1]}]}', "outside", id="outside"),
        pytest.param(b"[" * 100_000, "expected boxes", id="deep"),
    ],
)
def test_unsound_labels_are_refused(body: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        boxes_of(body, 2)


@pytest.mark.parametrize("name", ["..%2Fproject.yaml", "..%2F..%2Fsecret.png", "%2Fetc%2Fpasswd", "nothing.png", "."])
def test_no_path_reaches_another_file(port: int, project: Project, name: str) -> None:
    cv2.imwrite(str(project.folder.parent / "secret.png"), picture(0))
    for path in (f"/pictures/{name}", f"/api/items/{name}"):
        status, _ = ask(port, "GET", path)
        assert status in (404, 405, 409)


def test_pages_of_other_sites_cannot_write(port: int, project: Project) -> None:
    status, _ = ask(port, "PUT", "/api/items/1.png", {"boxes": []}, origin="https://evil.example")
    assert status == 403
    status, _ = ask(port, "GET", "/api/project", host="evil.example")
    assert status in (400, 403, 421)
    assert project.labelled() == []


def test_other_machines_need_a_login_and_tls(project: Project) -> None:
    with pytest.raises(ConfigError, match="can be reached from other machines"):
        gated(project, Assist(project, None), LabelOptions(Listen("0.0.0.0", 0)))


def test_the_locked_test_split_keeps_its_labels(port: int, project: Project) -> None:
    for image in project.images("inbox"):
        project.save_boxes(image, [])
    split(project, {"train": 0.5, "test": 0.5})
    name = project.images("test")[0].name
    for method, body in (("PUT", {"boxes": []}), ("DELETE", None)):
        status, answer = ask(port, method, f"/api/items/{name}", body)
        assert (status, "locked test split" in answer["error"]) == (409, True)


def test_boxes_between_keyframes_follow_a_line_and_keep_their_class(project: Project) -> None:
    project.save_boxes(project.find("0.png"), [Box(0, 0.2, 0.2, 0.1, 0.1), Box(1, 0.21, 0.2, 0.1, 0.1)])
    project.save_boxes(project.find("3.png"), [Box(1, 0.21, 0.2, 0.1, 0.1), Box(0, 0.5, 0.2, 0.4, 0.1)])
    found = {one["class_name"]: one["xyxy"] for one in interpolated(project, "1.png")}
    np.testing.assert_allclose(found["person"], [0.2, 0.15, 0.4, 0.25], atol=1e-9)
    np.testing.assert_allclose(found["car"], [0.16, 0.15, 0.26, 0.25], atol=1e-9)
    assert interpolated(project, "3.png") == []
    assert len(project.labelled()) == 2


def test_far_boxes_are_two_objects() -> None:
    assert pairs([Box(0, 0.1, 0.1, 0.05, 0.05)], [Box(0, 0.9, 0.9, 0.05, 0.05)]) == []
    assert pairs([], [Box(0, 0.9, 0.9, 0.05, 0.05)]) == []
