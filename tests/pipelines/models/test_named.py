"""Models by name: the catalogue, and the commands around it."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.backends.files.base import find_model
from engine.catalogue import CATALOGUE, Download, NamedModel, find_named, is_sound
from engine.errors import ConfigError, ModelError
from pipelines.cli import app
from pipelines.models.named import get, listed, path_of

DOWNLOADABLE = [name for name, model in CATALOGUE.items() if model.download is not None]
IN_SHARED = {
    "deimv2-femto": "deimv2_hgnetv2_femto_coco.onnx",
    "deimv2-atto": "deimv2_hgnetv2_atto_coco.onnx",
    "yolox-nano": "yolox_nano_kazuhito.onnx",
    "nanodet-m": "nanodet_m_416.onnx",
    "yunet": "yunet_s_640_640.onnx",
    "person-reid-0288": "person-reidentification-retail-0288.onnx",
    "mobilenet-v2": "mobilenet_v2_1.0_224_quant.tflite",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FRAMEWIRE_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("FRAMEWIRE_MODELS_FROM", raising=False)
    return tmp_path / "models"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def mirror(data_dir: Path) -> Iterator[str]:
    """The test data as a mirror of the catalogue's addresses, with a trailing slash."""
    handler = functools.partial(_Quiet, directory=str(data_dir / "models" / "more"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_every_row_says_how_to_have_the_file() -> None:
    assert [name for name, model in CATALOGUE.items() if not is_sound(model)] == []
    assert len(DOWNLOADABLE) >= 7


def test_addresses_are_pinned_to_a_commit_and_no_two_share_a_hash() -> None:
    downloads = [model.download for model in CATALOGUE.values() if model.download is not None]
    assert all(any(len(part) == 40 for part in found.address.split("/")) for found in downloads)
    assert len({found.sha256 for found in downloads}) == len(downloads)


@pytest.mark.parametrize("name", sorted(IN_SHARED))
def test_hashes_and_sizes_are_those_of_the_files(name: str, data_dir: Path) -> None:
    content = (data_dir / "models" / "more" / IN_SHARED[name]).read_bytes()
    wanted = CATALOGUE[name].download
    assert wanted is not None
    assert (hashlib.sha256(content).hexdigest(), len(content)) == (wanted.sha256, wanted.bytes)


def test_every_download_is_among_the_files_that_were_hashed() -> None:
    assert sorted(DOWNLOADABLE) == sorted(IN_SHARED)


def test_an_unsound_row_is_found() -> None:
    guessed = NamedModel("x", "detect", "MIT", "nobody", download=Download("https://a/b", "unknown", 1))
    assert not is_sound(guessed)
    assert not is_sound(NamedModel("x", "detect", "MIT", "nobody"))


def test_the_list_says_what_is_here(mirror: str) -> None:
    get("yunet", given=mirror)
    states = {row["name"]: row["state"] for row in listed()}
    assert (states["yunet"], states["deimv2-femto"], states["yolo11n"], states["demo"]) == (
        "here", "get", "export", "embedded",
    )  # fmt: skip
    shown = CliRunner().invoke(app, ["models", "list", "--json"])
    assert {row["name"] for row in json.loads(shown.stdout)} == set(CATALOGUE)
    table = CliRunner().invoke(app, ["models", "list"], env={"COLUMNS": "80"}).stdout
    first = {line.partition(" ")[0] for line in table.splitlines()}
    assert set(CATALOGUE) <= first, "a narrow terminal must not cut names off"


def test_a_model_from_a_mirror_runs_by_its_name(mirror: str, data_dir: Path) -> None:
    got = get("deimv2-femto", given=mirror)
    assert got["fetched"]
    assert not get("deimv2-femto")["fetched"]  # offline now: the address of the catalogue is never asked
    image = str(data_dir / "images" / "assets" / "bus.jpg")
    shown = CliRunner().invoke(app, ["detect", image, "--model", "deimv2-femto", "--json"])
    found = json.loads(shown.stdout.splitlines()[-1])[0]["objects"]
    assert [thing["class_name"] for thing in found if thing["score"] > 0.5] == ["person"] * 3 + ["bus"]


def test_a_mirror_may_come_from_the_environment(mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMEWIRE_MODELS_FROM", mirror)
    shown = CliRunner().invoke(app, ["models", "get", "yunet"])
    assert shown.exit_code == 0
    assert Path(shown.stdout.split()[0]) == path_of("yunet")


def test_a_folder_serves_as_a_mirror(data_dir: Path, folder: Path) -> None:
    get("yunet", given=str(data_dir / "models" / "more"))
    assert path_of("yunet").is_relative_to(folder)


def test_a_missing_model_says_the_command() -> None:
    with pytest.raises(ModelError, match='run "framewire models get deimv2-femto"'):
        find_model("deimv2-femto")
    with pytest.raises(ModelError, match="export it: yolo export model=yolo11n.pt"):
        find_model("yolo11n")
    with pytest.raises(ModelError, match="did you mean deimv2-femto"):
        find_model("deimv2-femtoo")


def test_a_file_of_that_name_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yunet").mkdir()
    (tmp_path / "yunet" / "mine.onnx").write_bytes(b"x")
    assert find_model("yunet") == Path("yunet/mine.onnx")


@pytest.mark.parametrize("text", ["yolo11n.onnx", "../deimv2-femto", "demo/", "", "deimv2-femto.onnx"])
def test_a_path_is_not_taken_for_a_name(text: str) -> None:
    assert find_named(text) is None


def test_a_model_without_a_hash_is_never_fetched() -> None:
    with pytest.raises(ConfigError, match="its hash is unknown: export it"):
        get("yolo11n", given="http://127.0.0.1:1/")


def test_a_file_changed_since_is_refused_by_path(mirror: str) -> None:
    place = Path(get("yunet", given=mirror)["path"])
    place.write_bytes(place.read_bytes()[:-1] + b"x")
    with pytest.raises(ConfigError, match="content has changed"):
        path_of("yunet")


def test_the_page_about_models_has_every_model_and_its_score() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "models.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert rows.keys() == CATALOGUE.keys()
    for name, model in CATALOGUE.items():
        scores = [f"{value:.3f}" for value in (model.map50, model.map50_95) if value is not None]
        assert all(score in rows[name] for score in (*scores, model.licence)), rows[name]
