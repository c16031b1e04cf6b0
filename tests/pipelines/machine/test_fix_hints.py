"""`doctor --fix-hints`: commands of this system for what is missing, nothing for what works."""

from __future__ import annotations

import pytest

from pipelines.doctor import Finding
from pipelines.machine.fix_hints import System, hints, this_system

MISSING = [
    Finding("opencv", "broken", "libGL.so.1", "reinstall the package named"),
    Finding("tensorrt", "missing", "not installed", 'pip install "framewire[tensorrt]" (CUDA toolkit)'),
    Finding("nvidia gpu", "missing", "no NVIDIA driver", "install it"),
    Finding("cameras", "missing", "no /dev/video*", "plug one in"),
    Finding(
        "gpu device nodes",
        "missing",
        "this user is not in the group that owns /dev/dri/renderD128",
        "in a container, docker run --group-add 44 --group-add 994; outside, usermod -aG video,render and log in again",
    ),
    Finding("python", "ok", "3.12"),
]


@pytest.mark.parametrize(
    ("system", "part", "expected"),
    [
        (System("apt"), "opencv", "sudo apt-get install -y libgl1"),
        (System("dnf"), "opencv", "sudo dnf install -y mesa-libGL"),
        (System("apt"), "cameras", "usermod -aG video"),
        (System("apt", is_container=True), "cameras", "--device /dev/video0"),
        (System("apt", is_container=True), "nvidia gpu", "--gpus all"),
        (System("apt", is_wsl=True), "nvidia gpu", "in Windows"),
        (System("apt", is_jetson=True), "nvidia gpu", "JetPack"),
        (System("apt", is_jetson=True), "gpu device nodes", "sudo usermod -aG video,render $USER"),
        (
            System("apt", is_container=True, is_jetson=True),
            "gpu device nodes",
            "# outside the container: docker run --group-add 44 --group-add 994 ...",
        ),
        (System(""), "tensorrt", 'pip install "framewire[tensorrt]"'),
    ],
)
def test_the_commands_fit_the_system(system: System, part: str, expected: str) -> None:
    assert expected in "\n".join(hints(MISSING, system)[part])


def test_what_works_needs_no_command() -> None:
    assert "python" not in hints(MISSING, this_system())
    assert hints([], this_system()) == {}
