"""Data sets: formats there and back, splits that do not leak, the lock, findings, and hostile files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from engine.errors import ConfigError
from pipelines.cli import app
from pipelines.learning.dataset.boxes import Box, boxes_from_text, text_from_boxes
from pipelines.learning.dataset.bring import bring
from pipelines.learning.dataset.export import WRITERS, export
from pipelines.learning.dataset.likeness import ALIKE, clusters, distance, fingerprint, is_known, look_of
from pipelines.learning.dataset.look import check, stats
from pipelines.learning.dataset.project import Project
from pipelines.learning.dataset.split import check_test, split

SIZES = [(64, 48), (101, 67), (640, 33)]
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


def picture(seed: int, size_wh: tuple[int, int] = (64, 48)) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, size_wh, interpolation=cv2.INTER_CUBIC)


def add(project: Project, seed: int, boxes: list[Box] | None = None, **fields: str) -> Path:
    image = picture(seed, SIZES[seed % len(SIZES)])
    place = project.add(bytes(cv2.imencode(".png", image)[1]), f"{seed}.png", image, fields)
    return place if boxes is None else project.save_boxes(place, boxes)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Three images with 0, 1 and 2 objects."""
    made = Project.create(tmp_path / "a.fwm", ["person", "Auto & Co <1>"])
    add(made, 0, [])
    add(made, 1, [Box(1, 0.5, 0.5, 1.0, 1.0)])
    add(made, 2, [Box(0, 1 / 3, 0.2, 0.1, 1 / 7), Box(1, 0.9, 0.8, 0.05, 0.3)])
    return made


def labels(project: Project) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    return {
        image.stem: sorted((project.classes[box.class_id], box.xyxy) for box in project.boxes(image))
        for _, image in project.labelled()
    }


@pytest.mark.parametrize("form", WRITERS)
def test_every_format_brings_the_same_boxes_back(project: Project, tmp_path: Path, form: str) -> None:
    export(project, form, tmp_path / "out")
    entry = {"coco": "annotations.json", "cvat": "annotations.xml", "label_studio": "tasks.json"}.get(form, "")
    done = bring(str(tmp_path / "out" / entry), str(tmp_path / "b.fwm"))
    assert (done.images, done.labelled, done.objects, done.left_out) == (3, 3, 3, 0)
    before, after = labels(project), labels(Project(tmp_path / "b.fwm"))
    assert before.keys() == after.keys()
    for name, boxes in before.items():
        assert [box[0] for box in after[name]] == [box[0] for box in boxes]
        for (_, found), (_, expected) in zip(after[name], boxes, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.builds(Box, st.integers(0, 99), *(st.floats(0, 1, allow_subnormal=False) for _ in range(4))), max_size=5
    )
)
def test_a_label_file_keeps_its_boxes(boxes: list[Box]) -> None:
    found = boxes_from_text(text_from_boxes(boxes), "x")
    assert [box.class_id for box in found] == [box.class_id for box in boxes]
    np.testing.assert_allclose([box.xyxy for box in found], [box.xyxy for box in boxes], atol=1e-8)


def test_classes_of_another_data_set_are_refused_or_left_out(project: Project, tmp_path: Path) -> None:
    export(project, "coco", tmp_path / "out")
    source = str(tmp_path / "out" / "annotations.json")
    Project.create(tmp_path / "b.fwm", ["person"])
    with pytest.raises(ConfigError, match=r"has the class 'Auto & Co <1>', the project only person"):
        bring(source, str(tmp_path / "b.fwm"))
    done = bring(source, str(tmp_path / "b.fwm"), classes=["person"])
    assert (done.images, done.objects, done.left_out) == (3, 1, 2)


def test_unlabelled_pictures_wait_in_the_inbox_where_no_training_sees_them(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.jpg"), picture(1))
    bring(str(tmp_path / "in"), str(tmp_path / "b.fwm"), classes=["cat"])
    project = Project(tmp_path / "b.fwm")
    assert [image.name for image in project.images("inbox")] == ["a.jpg"]
    assert project.labelled() == []
    moved = project.save_boxes(project.images("inbox")[0], [])
    assert moved == tmp_path / "b.fwm" / "images" / "train" / "a.jpg"
    assert project.label_of(moved).read_text() == ""
    assert project.to_inbox(moved).parent.name == "inbox"
    assert project.labelled() == []


def test_a_clip_gives_frames_that_differ(tmp_path: Path) -> None:
    from engine.assets import demo_clip

    done = bring(str(demo_clip()), str(tmp_path / "b.fwm"), classes=["person"], every=60)
    project = Project(tmp_path / "b.fwm")
    assert done.images + done.alike == 5
    assert done.images == len(project.images("inbox")) >= 2
    origin = project.origins()["pedestrians_000060.jpg"]
    assert (origin.fields["camera"], origin.fields["clip"], origin.frame) == ("pedestrians", "pedestrians", 60)


def test_names_never_collide(project: Project) -> None:
    stems = [add(project, 7).stem, add(project, 7).stem, add(project, 7).stem]
    assert stems == ["7", "7_1", "7_2"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=3, max_size=12), st.integers(0, 9))
def test_groups_never_straddle_and_near_duplicates_stay_together(cameras: list[int], seed: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        project = Project.create(Path(folder) / "a.fwm", ["x"])
        for number, camera in enumerate(cameras):
            add(project, number, [], camera=f"cam{camera}")
        add(project, 0, [], camera="another")  # the same image from "another" camera
        groups = {origin.fields["camera"] for origin in project.origins().values()}
        shares = SHARES if len(groups) > 3 else {"train": 1.0}
        counts = split(project, shares, ["camera"], seed)
        origins = project.origins()
        where: dict[str, set[str]] = {}
        for part, image in project.labelled():
            where.setdefault(origins[image.name].fields["camera"], set()).add(part)
        assert all(len(parts) == 1 for parts in where.values())
        assert where["another"] == where[f"cam{cameras[0]}"]
        assert sum(counts[part] for part in ("train", "val", "test")) == len(cameras) + 1
        assert [row for row in check(project) if row["kind"] in ("leak", "lock")] == []


def test_splits_stay_when_pictures_come_and_test_is_never_added_to(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "a.fwm", ["x"])
    for number in range(20):
        add(project, number, [], camera=f"cam{number % 5}")
    first = split(project, SHARES, ["camera"])
    before = {image.name: part for part, image in project.labelled()}
    camera = project.origins()[project.images("test")[0].name].fields["camera"]
    add(project, 100, [], camera=camera)
    add(project, 101, [], camera="new")
    second = split(project, SHARES)
    after = {image.name: part for part, image in project.labelled()}
    assert {name: after[name] for name in before} == before
    assert second["test_sha256"] == first["test_sha256"]
    assert after["100.png"] == "held"
    assert after["101.png"] in ("train", "val")
    third = split(project, SHARES, ["camera"], again=True)
    assert third["held"] == 0


@pytest.mark.parametrize("change", ["label", "picture", "removed", "added"])
def test_a_changed_test_split_is_noticed(tmp_path: Path, change: str) -> None:
    project = Project.create(tmp_path / "a.fwm", ["x"])
    for number in range(12):
        add(project, number, [Box(0, 0.5, 0.5, 0.2, 0.2)])
    split(project, SHARES)
    check_test(project.folder)
    image = project.images("test")[0]
    if change == "label":
        project.label_of(image).write_text("0 0.5 0.5 0.2 0.21\n")
    elif change == "picture":
        image.write_bytes(image.read_bytes() + b"x")
    elif change == "removed":
        image.unlink()
    else:
        (image.parent / "more.png").write_bytes(b"x")
    with pytest.raises(ConfigError, match="the test split has changed since it was locked"):
        check_test(project.folder)
    with pytest.raises(ConfigError, match="has changed"):
        split(project, SHARES)
    assert "lock" in {row["kind"] for row in check(project, decode=False)}


def test_too_few_groups_are_refused_with_what_to_do(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "a.fwm", ["x"])
    for number in range(6):
        add(project, number, [], camera="only")
    with pytest.raises(ConfigError, match=r"1 group for 3 splits: group by more \(--by clip"):
        split(project, SHARES, ["camera"])


def test_check_finds_what_is_wrong(project: Project) -> None:
    assert check(project) == []
    first, second, third = (image for _, image in project.labelled())
    project.label_of(first).write_text("0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2001\n")
    project.label_of(second).write_text("7 0.5 0.5 0.2 0.2\n0 0.9 0.5 0.4 0.2\n0 0.5 0.5 0 0.1\n0 0.5 0.5 0.001 0.1\n")
    third.write_bytes(b"nonsense")
    project.label_of(third).write_text("0 0.5 nan 0.1 0.1\n")
    (project.folder / "labels" / "train" / "lost.txt").write_text("")
    found = [(row["kind"], Path(row["place"]).name) for row in check(project)]
    assert found == [
        ("twice", "0.txt"), ("label", "1.txt"), ("label", "1.txt"), ("label", "1.txt"), ("tiny", "1.txt"),
        ("picture", "2.png"), ("label", "2.txt"), ("orphan", "lost.txt"),
    ]  # fmt: skip


def test_stats_count(project: Project) -> None:
    found = stats(project)
    assert found["classes"] == {
        "person": {"train": 1, "val": 0, "test": 0, "held": 0},
        "Auto & Co <1>": {"train": 2, "val": 0, "test": 0, "held": 0},
    }
    assert (found["objects"], found["without_objects"], found["images"]["train"]) == (3, 1, 3)
    assert sum(found["areas"].values()) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param(
            "a.xml", "<!DOCTYPE x [<!ENTITY a 'b'>]><annotations/>", "declares a document type", id="entities"
        ),
        pytest.param("a.xml", "<annotations><image/></annotations>", "expected images with boxes", id="no attributes"),
        pytest.param("a.xml", "<annotation", "not XML", id="cut xml"),
        pytest.param("a.json", "[" * 100_000, "not JSON", id="deep json"),
        pytest.param("a.json", '{"images": 3}', "neither a COCO file", id="another json"),
        pytest.param("a.json", '{"images": [{}], "categories": []}', "not a COCO file", id="coco without names"),
        pytest.param(
            "a.json",
            '{"images": [{"id": 1, "file_name": "../secret.png", "width": 9, "height": 9}], "categories": []}',
            "no image '../secret.png'",
            id="a path out of the folder",
        ),
        pytest.param("a.json", '[{"data": {"image": "/etc/passwd"}}]', "no image 'etc/passwd'", id="another file"),
        pytest.param("a.json", '[{"data": 3}]', "not tasks of Label Studio", id="odd task"),
    ],
)
def test_broken_and_hostile_files_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    cv2.imwrite(str(tmp_path / "secret.png"), picture(0))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        bring(str(tmp_path / "in" / name), str(tmp_path / "b.fwm"), classes=["x"])


def test_cvat_tracks_label_the_frames_of_a_clip(tmp_path: Path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"frame_{number:06d}.png"), picture(number, (100, 50)))
    box = '<box frame="{}" outside="{}" xtl="10" ytl="5" xbr="30" ybr="25"/>'
    (tmp_path / "a.xml").write_text(
        "<annotations><meta><task><original_size><width>100</width><height>50</height></original_size></task></meta>"
        f'<track label="car">{box.format(0, 0)}{box.format(1, 0)}{box.format(2, 1)}</track></annotations>'
    )
    bring(str(tmp_path / "a.xml"), str(tmp_path / "b.fwm"))
    found = labels(Project(tmp_path / "b.fwm"))
    assert [len(found[f"frame_{number:06d}"]) for number in range(3)] == [1, 1, 0]
    np.testing.assert_allclose(found["frame_000000"][0][1], (0.1, 0.1, 0.3, 0.5))


def test_turned_boxes_and_polygons_are_counted_as_left_out(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture(0))
    (tmp_path / "a.xml").write_text(
        '<annotations><image name="a.png" width="64" height="48"><polygon label="x" points="1,2"/>'
        '<box label="x" rotation="30" xtl="1" ytl="1" xbr="9" ybr="9"/>'
        '<box label="x" xtl="1" ytl="1" xbr="9" ybr="99"/></image></annotations>'
    )
    done = bring(str(tmp_path / "a.xml"), str(tmp_path / "b.fwm"))
    assert (done.objects, done.left_out, done.clipped) == (1, 2, 1)


def test_likeness_survives_compression_and_a_small_shift_and_tells_pictures_apart() -> None:
    image = picture(1, (320, 240))
    jpeg = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    assert distance(fingerprint(image), fingerprint(jpeg)) <= ALIKE
    assert distance(fingerprint(image), fingerprint(np.roll(image, 2, axis=1))) <= ALIKE
    looks = [look_of(picture(seed, (320, 240))) for seed in range(2, 12)]
    others = [look.bits for look in looks]
    assert min(distance(fingerprint(image), other) for other in others) > 2 * ALIKE
    assert len(set(clusters([look_of(image), *looks]))) == 11


@pytest.mark.parametrize("light", [1.0, 0.1])
def test_a_fixed_camera_gives_another_picture_only_when_something_has_moved(light: float) -> None:
    """Its images have nearly the same hash whatever walks there, by day and by night."""
    noise = np.random.default_rng(0)

    def seen(left: int) -> np.ndarray:
        scene = cv2.resize(picture(1, (320, 240)), (640, 480))
        cv2.rectangle(scene, (left, 200), (left + 24, 260), (255, 255, 255), -1)
        lit = scene * light + noise.normal(0, 3, scene.shape)
        jpeg = cv2.imencode(".jpg", lit.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
        return cv2.imdecode(jpeg, cv2.IMREAD_COLOR)

    first, still, moved = (look_of(seen(left)) for left in (300, 300, 340))
    assert light < 1 or distance(first.bits, moved.bits) <= ALIKE  # so the hash alone does not tell
    assert is_known(still, [first])
    assert not is_known(moved, [first])
    assert clusters([first, moved, still]) == [0, 1, 0]


def test_a_project_from_before_grey_copies_compares_hashes_only(project: Project) -> None:
    table = project.folder / "items.jsonl"
    rows = [json.loads(row) for row in table.read_text().splitlines()]
    assert all(len(origin.look.cells) == 1024 for origin in project.origins().values())
    table.write_text("".join(json.dumps({**row, "cells": None}) + "\n" for row in rows))
    image = project.images("train")[0]
    assert project.origins()[image.name].look.cells == b""
    assert is_known(look_of(cv2.imread(str(image))), [project.origins()[image.name].look])


def test_the_commands_speak_json_and_check_says_by_its_exit_code(project: Project) -> None:
    run = CliRunner()
    shown = run.invoke(app, ["dataset", "stats", str(project.folder), "--json"])
    assert json.loads(shown.stdout)["objects"] == 3
    assert run.invoke(app, ["dataset", "check", str(project.folder)]).exit_code == 0
    project.label_of(project.images("train")[0]).unlink()
    assert run.invoke(app, ["dataset", "check", str(project.folder), "--fast"]).exit_code == 1
    assert run.invoke(app, ["dataset", "split", str(project.folder), "--test", "0", "--val", "0"]).exit_code == 0


def test_a_project_feeds_the_scores_of_the_engine(tmp_path: Path) -> None:
    """The folders are those that `framewire eval detect` and `train` read."""
    from pipelines.scoring.labels import read_truth

    project = Project.create(tmp_path / "a.fwm", ["dog", "person"])
    add(project, 1, [Box(1, 0.5, 0.5, 0.25, 0.5)])
    folder = tmp_path / "a.fwm"
    truth = read_truth(folder / "images" / "train", folder / "labels" / "train", ["person", "dog"])
    assert truth[0].class_id.tolist() == [0]
    np.testing.assert_allclose(truth[0].xyxy, [[0.375, 0.25, 0.625, 0.75]])
