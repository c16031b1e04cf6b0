"""The commands that install what `framewire doctor` reports as missing, for this system."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.video.gstreamer import is_jetson
from pipelines.doctor import Finding

_OS_RELEASE = Path("/etc/os-release")
_FAMILIES = {"debian": "apt", "ubuntu": "apt", "fedora": "dnf", "rhel": "dnf", "arch": "pacman", "alpine": "apk"}
_COMMAND = re.compile(r"pip install [^;()]+")
_DOCKER_GROUPS = re.compile(r"docker run(?: --group-add \d+)+")
_USER_GROUPS = re.compile(r"usermod -aG [\w,.-]+")


@dataclass(frozen=True, slots=True)
class System:
    """What kind of machine this is.

    Attributes:
        packages: its package manager: `apt`, `dnf`, `pacman`, `apk`, `brew`; empty if unknown.
        is_container: whether this runs in a container, where drivers and devices come from the host.
        is_wsl: whether it is Linux inside Windows.
        is_jetson: whether it is an NVIDIA Jetson.
    """

    packages: str
    is_container: bool = False
    is_wsl: bool = False
    is_jetson: bool = False


_INSTALL = {
    "apt": "sudo apt-get install -y ",
    "dnf": "sudo dnf install -y ",
    "pacman": "sudo pacman -S ",
    "apk": "sudo apk add ",
    "brew": "brew install ",
}
_LIBRARIES: Mapping[str, Mapping[str, str]] = {
    "opencv": {"apt": "libgl1 libglib2.0-0", "dnf": "mesa-libGL glib2", "pacman": "libglvnd glib2"},
    "decoder vaapi": {
        "apt": "intel-media-va-driver mesa-va-drivers vainfo",
        "dnf": "intel-media-driver libva-utils",
        "pacman": "intel-media-driver libva-utils",
    },
    "nvidia gpu": {"apt": "nvidia-driver", "dnf": "akmod-nvidia", "pacman": "nvidia"},
}


def this_system() -> System:
    """Return what kind of machine this is."""
    facts = {}
    if _OS_RELEASE.is_file():
        lines = (line.partition("=") for line in _OS_RELEASE.read_text(errors="replace").splitlines())
        facts = {key: value.strip('"') for key, _, value in lines}
    names = [facts.get("ID", ""), *facts.get("ID_LIKE", "").split()]
    packages = next((_FAMILIES[name] for name in names if name in _FAMILIES), "")
    return System(
        "brew" if platform.system() == "Darwin" else packages,
        any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv")),
        "microsoft" in platform.release().lower(),
        is_jetson(),
    )


def hints(findings: Sequence[Finding], system: System) -> dict[str, list[str]]:
    """Return the commands by part, for the parts that are missing or broken."""
    found = {finding.part: _commands(finding, system) for finding in findings if finding.verdict != "ok"}
    return {part: commands for part, commands in found.items() if commands}


def _commands(finding: Finding, system: System) -> list[str]:
    part = finding.part
    if part == "gpu device nodes":  # its remedy names the groups that own the nodes of this machine
        return _groups(finding.remedy, system)
    if part in ("nvidia gpu", "decoder nvdec") and system.is_jetson:
        return ["# JetPack has the driver: see docs/jetson.md"]
    if system.is_container and part in ("nvidia gpu", "decoder nvdec", "cameras", "decoder vaapi"):
        return [f"# outside the container: docker run {_DEVICES[part]} ..."]
    if part == "nvidia gpu" and system.is_wsl:
        return ["# install NVIDIA's driver in Windows; WSL does not need its own"]
    if part == "cameras":
        return ["sudo usermod -aG video $USER    # then log in again; ls /dev/video* shows what is there"]
    if part == "display":
        return ["# without a desktop: --save OUT.mp4 in place of --show, or ssh -X"]
    packages = _LIBRARIES.get(part, {}).get(system.packages)
    if packages is not None:
        return [_INSTALL[system.packages] + packages]
    return [command.strip().rstrip(".,") for command in _COMMAND.findall(finding.remedy)]


def _groups(remedy: str, system: System) -> list[str]:
    """Return the command of a remedy of `why_no_access` that fits the system."""
    inside, outside = _DOCKER_GROUPS.search(remedy), _USER_GROUPS.search(remedy)
    if system.is_container:
        return [f"# outside the container: {inside[0]} ..."] if inside else []
    return [f"sudo {outside[0]} $USER    # then log in again"] if outside else []


_DEVICES = {
    "nvidia gpu": "--gpus all",
    "decoder nvdec": "--gpus all",
    "cameras": "--device /dev/video0",
    "decoder vaapi": "--device /dev/dri",
}
