"""Models that OpenVINO compiled are kept for the next start, in a folder that only the user can write to."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

import engine.backends.compiled_models as compiled_module
from engine.assets import demo_model
from engine.backends.compiled_models import compiled_models
from engine.backends.openvino import OpenVinoBackend


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "framewire" / "compiled"


def load() -> None:
    backend = OpenVinoBackend(demo_model())
    backend.open()
    backend.close()


def test_the_second_start_reads_what_the_first_one_wrote(folder: Path) -> None:
    pytest.importorskip("openvino", reason="pip install openvino")
    load()
    (first,) = folder.glob("*.blob")
    assert folder.stat().st_mode & 0o777 == 0o700
    written = first.stat()
    load()
    assert [(each.name, each.stat().st_mtime_ns) for each in folder.glob("*.blob")] == [
        (first.name, written.st_mtime_ns)
    ]


@pytest.mark.parametrize("left", [0, 100, 100_000], ids=["empty", "a header", "half"])
def test_a_damaged_compiled_model_is_compiled_again(folder: Path, left: int) -> None:
    pytest.importorskip("openvino", reason="pip install openvino")
    load()
    (blob,) = folder.glob("*.blob")
    whole = blob.stat().st_size
    os.chmod(blob, 0o600)
    os.truncate(blob, left)
    load()
    assert blob.stat().st_size > 0.9 * whole  # it also holds a description of some length


def test_a_folder_that_others_can_write_is_not_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with caplog.at_level(logging.WARNING):
        assert compiled_models() is None
    assert "chmod 700" in caplog.text


def test_a_cache_that_cannot_be_made_only_warns(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.parent.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert compiled_models() is None
    assert "compiled models are not kept" in caplog.text


def test_what_was_read_longest_ago_is_removed_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_module, "MAX_BYTES", 250)
    folder.mkdir(parents=True, mode=0o700)
    for age, name in enumerate("dcba"):
        (folder / name).write_bytes(bytes(100))
        os.utime(folder / name, (1000 - age, 0))
    assert compiled_models() == folder
    assert sorted(path.name for path in folder.iterdir()) == ["c", "d"]
