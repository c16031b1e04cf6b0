"""Reports what is usable on this machine, and how to get each missing part."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.errors import MissingDependencyError
from engine.optional import install, require

if TYPE_CHECKING:
    from engine.backends.cuda.probe import CudaProbe
    from engine.backends.tensorrt.api import Library

Verdict = Literal["ok", "missing", "broken"]
NEEDED = ("python", "opencv", "decode", "protocols", "try")


@dataclass(frozen=True, slots=True)
class Finding:
    """One part of the machine: whether it is usable, what was found, and the remedy if it is not."""

    part: str
    verdict: Verdict
    found: str
    remedy: str = ""
    is_needed: bool = False


def readiness(findings: Sequence[Finding]) -> tuple[bool, str]:
    """Return whether a run would work here, with one line that says so or names the obstacle."""
    faults = [one for one in findings if one.is_needed and one.verdict != "ok"]
    if faults:
        return False, "Not ready: " + "; ".join(f"{one.part}: {one.found}" for one in faults)
    try_it = next((one.found for one in findings if one.part == "try"), "")
    return True, f"Ready: {try_it or 'what a run needs is here'}; what is missing below is optional"


def examine() -> list[Finding]:
    """Return one finding per part, including parts that cannot be examined."""
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("python", _python),
        ("opencv", _opencv),
        ("decode", _decode),
        ("protocols", _protocols),
        ("try", _try),
        ("decoders", _decoders),
        ("onnxruntime", _onnxruntime),
        ("openvino", _openvino),
        ("gpu", _gpu),
        ("packages", _packages),
        ("display", _display),
        ("cameras", _cameras),
    ]
    findings: list[Finding] = []
    for part, check in checks:
        try:
            findings += check()
        except MissingDependencyError as error:
            needed = part in NEEDED
            findings.append(Finding(part, "missing", str(error), "pip install --upgrade framewire", needed))
        except Exception as error:  # noqa: BLE001 - a doctor survives what it examines
            found = f"{type(error).__name__}: {error}"
            findings.append(Finding(part, "broken", found, "reinstall the package named", part in NEEDED))
    return [replace(one, is_needed=one.is_needed or one.part in NEEDED) for one in findings]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> list[Finding]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return [Finding("python", "ok", found)]


def _opencv() -> list[Finding]:
    cv2 = require("cv2")
    build = cv2.getBuildInformation()
    line = next((line.strip() for line in build.splitlines() if line.strip().startswith("GStreamer")), "GStreamer: NO")
    has_gstreamer = "YES" in line
    return [
        Finding("opencv", "ok", f"{cv2.__version__}"),
        Finding(
            "opencv gstreamer",
            "ok" if has_gstreamer else "missing",
            " ".join(line.split()),
            ""
            if has_gstreamer
            else "only for csi:// and Jetson decoders: use the OpenCV of JetPack (Dockerfile.jetson)",
        ),
    ]


def _decode() -> list[Finding]:
    av = require("av")
    wanted = ("h264", "hevc", "av1", "vp9", "mjpeg", "mpeg4")
    have = [codec for codec in wanted if codec in av.codecs_available]
    lacking = [codec for codec in wanted if codec not in have]
    verdict: Verdict = "missing" if lacking else "ok"
    found = f"PyAV {av.__version__}, decodes {', '.join(have)}"
    return [Finding("decode", verdict, found, f"no {', '.join(lacking)}: pip install --upgrade av" if lacking else "")]


def _protocols() -> list[Finding]:
    from engine.video.network import missing_protocols

    lacking = missing_protocols()
    found = f"HTTP, HLS, RTSP, RTMP, UDP, TCP; not in the FFmpeg of PyAV: {', '.join(lacking) or 'nothing'}"
    remedy = "let an ffmpeg that has it convert the stream: ffmpeg -i URL -c copy -f mpegts udp://127.0.0.1:5000"
    return [Finding("protocols", "ok", found, remedy if lacking else "")]


def _try() -> list[Finding]:
    """Decode a frame of the demo clip and detect its objects, as a run does."""
    from engine.assets import demo_clip, demo_model
    from engine.detection.load import load_detector
    from engine.sources.open import open_source

    frames = iter(open_source(str(demo_clip())))
    frame = next(frames)
    frames.close()  # type: ignore[attr-defined]  # every source is a generator
    with load_detector(demo_model(), performance="latency") as detector:
        (found,) = detector.detect([frame])
        what = f"decoded a frame of the demo clip and found {len(found)} objects with {detector.backend}"
    remedy = "" if len(found) else "reinstall framewire and the backend named"
    return [Finding("try", "ok" if len(found) else "broken", what, remedy)]


def _decoders() -> list[Finding]:
    from engine.video.fallback import why_not

    findings = []
    for decoder in ("nvdec", "vaapi", "jetson"):
        reason, part = why_not(decoder), f"decoder {decoder}"
        if reason is None:
            findings.append(Finding(part, "ok", "may work here: this shows only when a camera is opened"))
            continue
        found, _, remedy = reason.removeprefix(f"{decoder}: ").partition("; ")
        findings.append(Finding(part, "missing", found, remedy or "nothing to do: only a Jetson has this decoder"))
    return findings


def _onnxruntime() -> list[Finding]:
    ort = require("onnxruntime")
    return [Finding("onnxruntime", "ok", f"{ort.__version__}, {', '.join(ort.get_available_providers())}")]


def _openvino() -> list[Finding]:
    if _version("openvino") is None:
        return [Finding("openvino", "missing", "not installed", "pip install openvino (x86-64; about twice as fast)")]
    from engine.backends.openvino import shared_core

    core = shared_core()
    devices = ", ".join(core.available_devices)
    capabilities = ", ".join(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return [Finding("openvino", "ok", f"{_version('openvino')}, devices {devices}, CPU does {capabilities}")]


def _gpu() -> list[Finding]:
    from engine.backends.cuda.probe import probe_cuda, why_no_access

    probe = probe_cuda()
    usable = probe.reason is None
    found, _, remedy = str(probe).rpartition(": ") if not usable else (str(probe), "", "")
    findings = [Finding("nvidia gpu", "ok" if usable else "missing", found, remedy)]
    closed = why_no_access()
    if closed is not None:
        what, _, how = closed.partition(": ")
        findings.append(Finding("gpu device nodes", "missing", what, how))
    extras: tuple[tuple[Library, str], ...] = (("tensorrt", "tensorrt"), ("tensorrt_rtx", "rtx"))
    findings += [_tensorrt(library, extra, probe) for library, extra in extras]
    cuda = {name: _version(name) for name in ("pycuda", "cuda-bindings")}
    have = ", ".join(f"{name} {version}" for name, version in cuda.items() if version)
    remedy = "" if have else f"{install('rtx')} (cuda-bindings) or {install('tensorrt')} (pycuda)"
    findings.append(Finding("cuda for python", "ok" if have else "missing", have or "not installed", remedy))
    return findings


def _tensorrt(library: Library, extra: str, probe: CudaProbe) -> Finding:
    from engine.backends.tensorrt.api import installed_libraries, installed_version, why_not_library

    part = library.replace("_", "-")
    version = installed_version(library)
    if library not in installed_libraries():
        return Finding(part, "missing", "not installed", install(extra))
    if probe.reason is not None:
        remedy = "it cannot run before there is a usable GPU: see nvidia gpu"
        return Finding(part, "broken", version or "installed", remedy)
    obstacle, _, remedy = (why_not_library(probe, library) or "").rpartition(": ")
    return Finding(part, "broken" if obstacle else "ok", obstacle or version or "installed", remedy)


def _packages() -> list[Finding]:
    names = ("framewire", "numpy", "pyzmq", "lap", "supervision", "msgspec")
    return [Finding("packages", "ok", ", ".join(f"{name} {_version(name) or 'absent'}" for name in names))]


def _display() -> list[Finding]:
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if display or sys.platform in ("darwin", "win32"):
        return [Finding("display", "ok", display or sys.platform)]
    return [Finding("display", "missing", "no DISPLAY", "--show needs a desktop; use --save OUT.mp4 instead")]


def _cameras() -> list[Finding]:
    devices = sorted(Path("/dev").glob("video*"))
    if devices:
        return [Finding("cameras", "ok", ", ".join(str(device) for device in devices))]
    return [
        Finding(
            "cameras", "missing", "no /dev/video*", "plug one in, or pass it to the container: --device /dev/video0"
        )
    ]
