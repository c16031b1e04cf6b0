"""The example clients in other languages read a live stream, where their toolchain is present."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.publishing import stream

CLIENTS = Path(__file__).resolve().parents[2] / "docs" / "clients"
DEBIAN_CRATES = Path("/usr/share/cargo/registry")
BUILD_S = 180


@pytest.fixture
def address() -> Iterator[str]:
    """A stream of two objects on each frame of a camera called gate."""
    with stream(objects=2, every_s=0.005) as made:
        yield made


def needed(name: str, remedy: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: {remedy}")
    return found


def first_lines(command: list[str], *, folder: Path | None = None, count: int = 4) -> list[str]:
    """Return the first lines that a client prints, and end it."""
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        timer = threading.Timer(60, client.kill)
        timer.start()
        lines = [client.stdout.readline() for _ in range(count)]
        timer.cancel()
        client.kill()
    return lines


def check(lines: list[str]) -> None:
    for line in lines:
        source, frame_id, track, class_name, *_ = line.split()
        assert source == "gate"
        assert int(frame_id) >= 0
        assert (track, class_name) in (("#1", "person"), ("#2", "bicycle"))


def build(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def can(command: list[str], folder: Path, remedy: str) -> None:
    """Skip the test if a step that needs an outside resource fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=BUILD_S, check=False)
    if done.returncode != 0:
        pytest.skip(f"{Path(command[0]).name} failed: {remedy}")


@pytest.mark.parametrize("name", ["minimal.py", "subscriber.mjs", "subscriber.cpp", "rust/subscriber.rs"])
def test_an_example_is_short(name: str) -> None:
    assert len((CLIENTS / name).read_text().splitlines()) < 40


def test_the_python_client_prints_detections(address: str) -> None:
    (line,) = first_lines([sys.executable, str(CLIENTS / "minimal.py"), address], count=1)
    assert line.startswith("gate ")


@pytest.mark.clients
def test_the_cpp_client_prints_detections(address: str, tmp_path: Path) -> None:
    compiler = needed("g++", "apt-get install g++")
    source = CLIENTS / "subscriber.cpp"
    (tmp_path / "probe.cpp").write_text("#include <nlohmann/json_fwd.hpp>\n#include <zmq.h>\n#include <zmq.hpp>\n")
    can([compiler, "-std=c++17", "-M", "probe.cpp"], tmp_path, "apt-get install cppzmq-dev nlohmann-json3-dev")
    build([compiler, "-std=c++17", "-Wall", "-Werror", str(source), "-lzmq", "-o", "client"], tmp_path)
    check(first_lines([str(tmp_path / "client"), address]))


def test_the_node_client_prints_detections(address: str, tmp_path: Path) -> None:
    node, npm = needed("node", "install Node.js 20 or later"), needed("npm", "install npm")
    shutil.copy(CLIENTS / "subscriber.mjs", tmp_path)
    install = [npm, "install", "--no-audit", "--no-fund", "--prefer-offline", "zeromq@6"]
    can(install, tmp_path, "npm install zeromq@6 needs a package registry")
    check(first_lines([node, "subscriber.mjs", address], folder=tmp_path))


@pytest.mark.clients
def test_the_rust_client_prints_detections(address: str, tmp_path: Path) -> None:
    cargo = needed("cargo", "install Rust, or apt-get install cargo")
    shutil.copytree(CLIENTS / "rust", tmp_path, dirs_exist_ok=True)
    if DEBIAN_CRATES.is_dir():
        (tmp_path / ".cargo").mkdir()
        replaced = f'[source.crates-io]\nreplace-with = "debian"\n[source.debian]\ndirectory = "{DEBIAN_CRATES}"\n'
        (tmp_path / ".cargo" / "config.toml").write_text(replaced)
    remedy = "needs crates: apt-get install librust-zmq-dev librust-serde-json-dev libzmq3-dev pkg-config"
    can([cargo, "generate-lockfile"], tmp_path, remedy)
    build([cargo, "build", "--quiet"], tmp_path)
    check(first_lines([str(tmp_path / "target" / "debug" / "subscriber"), address]))
