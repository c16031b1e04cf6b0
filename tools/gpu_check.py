#!/usr/bin/env python3
"""Check and measure the GPU path on this machine with one command, and write a report.

usage: gpu_check.py --model yolov8n.onnx [--model ...] [--images FOLDER] [--minutes 10] [--budget SECONDS]
                    [--only WORD ...] [--output docs/measurements/NAME] [--dry-run]

`--dry-run` prints the plan, about how long each section takes, and the files that the machine needs; it needs no GPU.

Each section runs in its own process with its own time limit, and gpu_check.json and gpu_check.md are rewritten after
each, so that a crash, a hang or the end of the time leaves the earlier results. The most informative sections come
first: the machine itself, the kernels, graphs and memory without TensorRT, whether TensorRT works, equality with ONNX
Runtime, starts and graphs, speed (bare TensorRT, the engine on 1080p frames, latency), the whole pipeline, faults, the
GPU tests, and minutes of watching the GPU's memory. If TensorRT refuses the GPU, its message is kept and the rest of
its sections are skipped. `--budget` ends the check in time, also in the middle of a section.
Exit code 0 if every check passed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.backends.cuda.probe import probe_cuda
from engine.backends.tensorrt.backend import why_not
from engine.backends.tensorrt.precision import Precision
from engine.errors import EngineError
from tools.gpu import gpu_experiments as experiments
from tools.gpu import gpu_families as families
from tools.gpu import gpu_kernels as kernels
from tools.gpu import gpu_sections as sections
from tools.gpu.device import CHECKOUT, Device, Facts

BATCHES = (1, 8, 32)
ANSWER = "TensorRT's answer"
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
THIS_MACHINE = Device()


@dataclass(frozen=True)
class Section:
    """One part of the check.

    Attributes:
        name: heading in the report.
        run: returns the facts.
        limit_s: time after which it is killed.
        usual_s: our estimate for a desktop GPU; nothing has been measured yet.
        needs_tensorrt: whether it is skipped if TensorRT does not work.
    """

    name: str
    run: Callable[[], Facts]
    limit_s: float
    needs_tensorrt: bool = True
    usual_s: float = 30


@dataclass
class Finding:
    """The result of a section.

    Attributes:
        name: of the section.
        verdict: ok; missed (a target was not reached); failed; skipped.
        facts: those that the section returned, or why there are none.
    """

    name: str
    verdict: str = "ok"
    facts: Facts = field(default_factory=dict)


@dataclass
class Report:
    """The findings so far, rewritten to `folder` after each."""

    folder: Path
    findings: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Add a finding and write the report."""
        self.findings.append(finding)
        print(f"  {finding.verdict}: {json.dumps(finding.facts, default=str)}", flush=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps([asdict(one) for one in self.findings], indent=2)
        (self.folder / "gpu_check.json").write_text(content + "\n")
        (self.folder / "gpu_check.md").write_text(self.markdown())

    @property
    def held(self) -> bool:
        """Whether every section passed."""
        return all(finding.verdict == "ok" for finding in self.findings)

    def markdown(self) -> str:
        """Return the findings as a page."""
        lines = ["# GPU check", "", "Made by `tools/gpu_check.py`.", ""]
        for finding in self.findings:
            lines += [f"## {finding.name}: {finding.verdict}", ""]
            rows = finding.facts.get("table")
            if rows:
                lines += ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
                lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows] + [""]
            lines += [f"- {key}: {value}" for key, value in finding.facts.items() if key != "table"]
            lines.append("")
        return "\n".join(lines)


def plan_of_sections(chosen: argparse.Namespace, device: Device = THIS_MACHINE) -> list[Section]:
    """Return the sections, the most informative first."""
    cache, images, smallest = chosen.cache, chosen.images, chosen.model[0]
    memory = partial(sections.steady_memory, device, smallest, chosen.minutes, cache)
    return [
        Section("machine", sections.machine, 60, needs_tensorrt=False, usual_s=5),
        Section(
            "kernels, graphs, memory", partial(sections.cuda_contract, device), 120, needs_tensorrt=False, usual_s=10
        ),
        Section(
            "letterbox kernel", partial(kernels.letterbox_exactness, device), 120, needs_tensorrt=False, usual_s=15
        ),
        Section(
            "letterbox of planes", partial(kernels.planes_exactness, device), 120, needs_tensorrt=False, usual_s=15
        ),
        Section("compute-sanitizer", experiments.sanitizer, 180, needs_tensorrt=False, usual_s=60),
        Section("a waiting thread", partial(experiments.waiting, device), 60, needs_tensorrt=False, usual_s=5),
        Section(ANSWER, partial(sections.answer, device, cache), 180, needs_tensorrt=False, usual_s=20),
        Section("kinds of models", partial(families.families, device, cache), 240, usual_s=60),
        Section("a plan with FP16 inputs", partial(families.halves, device, cache), 120, usual_s=10),
        *(section for model in chosen.model for section in right_boxes(device, model, images, cache)),
        Section("starts", partial(experiments.starts, device, smallest, cache), 300, usual_s=30),
        Section("graphs, early and late", partial(experiments.graphs, device, smallest, cache), 240, usual_s=40),
        *(section for model in chosen.model for section in how_fast(device, model, images, cache)),
        Section("faults: out of memory", partial(experiments.out_of_memory, device, smallest, cache), 180, usual_s=30),
        Section("faults: lost GPU", partial(experiments.lost_gpu, device, smallest, cache), 120, usual_s=15),
        Section("GPU tests", partial(sections.gpu_tests, device), 900, usual_s=90),
        Section("memory", memory, chosen.minutes * 60 + 240, usual_s=chosen.minutes * 60),
    ]


def right_boxes(device: Device, model: Path, images: Path | None, cache: Path) -> Iterator[Section]:
    """Yield the sections that compare what one model finds."""
    name, given = model.stem, (device, model)
    for kind in PRECISIONS:
        yield Section(f"{name}: boxes, {kind}", partial(sections.same_boxes, *given, kind, images, cache), 300)
    yield Section(f"{name}: letterbox, candidates", partial(sections.same_either_way, *given, images, cache), 240)
    yield Section(f"{name}: batch", partial(sections.batch_exactness, *given, images, cache), 240)


def how_fast(device: Device, model: Path, images: Path | None, cache: Path) -> Iterator[Section]:
    """Yield the sections that time one model."""
    name, given = model.stem, (device, model)
    for batch in BATCHES:
        yield Section(f"{name}: speed, batch {batch}", partial(sections.speed, *given, batch, cache), 240, usual_s=40)
    yield Section(f"{name}: INT8 speed", partial(sections.int8_speed, *given, images, cache), 240, usual_s=60)
    yield Section(f"{name}: pipeline, 8 cameras", partial(sections.pipeline, *given, 8, cache), 240, usual_s=40)


def run_here(section: Section) -> Finding:
    """Run a section in this process; a failure is a finding."""
    try:
        facts = section.run()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the other sections still have to run
        words = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
        return Finding(section.name, "failed", {"error": words})
    failed, missed = facts.pop("failed", False), facts.pop("missed", False)
    return Finding(section.name, "failed" if failed else "missed" if missed else "ok", _plain(facts))


def _plain(value: Any) -> Any:
    """Return facts in a form that JSON can hold: it has no infinity, the time of a graph that cannot be recorded."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


def run_apart(section: Section, arguments: Sequence[str], left_s: float = math.inf) -> Finding:
    """Run a section in its own process and return its finding; kill it after its limit or at the end of the budget."""
    limit_s = min(section.limit_s, left_s)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        answer, words = Path(folder) / "answer.json", Path(folder) / "words.txt"
        command = [
            sys.executable,
            "-X",
            "faulthandler",
            str(Path(__file__).resolve()),
            *arguments,
            "--section",
            section.name,
        ]
        environment = {**os.environ, "GPU_CHECK_ANSWER": str(answer), sections.TIME_LEFT: str(limit_s)}
        environment["PYTHONPATH"] = os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
        with words.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if answer.is_file():
            return Finding(**json.loads(answer.read_text()))
        if code is None and limit_s < section.limit_s:
            return Finding(section.name, "skipped", {"reason": f"the budget ran out after {limit_s:.0f} s of it"})
        last_words = words.read_text(errors="replace").strip()[-1500:]
        end = f"killed after {limit_s:.0f} s" if code is None else f"ended with code {code}"
        return Finding(section.name, "failed", {"error": end, "last words": last_words})


def check(planned: Sequence[Section], report: Report, arguments: Sequence[str], budget_s: float) -> None:
    """Run the sections one after the other."""
    end = time.monotonic() + budget_s
    obstacle = why_not()
    for section in planned:
        print(f"{section.name} ...", flush=True)
        if section.needs_tensorrt and obstacle is not None:
            report.add(Finding(section.name, "skipped", {"reason": obstacle}))
        elif time.monotonic() > end:
            report.add(Finding(section.name, "skipped", {"reason": f"the budget of {budget_s:.0f} s was spent"}))
        else:
            finding = run_apart(section, arguments, end - time.monotonic())
            report.add(finding)
            if section.name == ANSWER and finding.verdict != "ok":
                obstacle = f'TensorRT does not run the smallest model: see "{ANSWER}"'


def lines_of_plan(planned: Sequence[Section], chosen: argparse.Namespace) -> list[str]:
    """Return the plan as text: the sections in order with their times, and what they need on the machine."""
    lines = [f"{len(planned)} sections, each in its own process; times are estimates, nothing has been measured yet:"]
    begin_s = 0.0
    for number, section in enumerate(planned, 1):
        needs = "TensorRT" if section.needs_tensorrt else "CUDA alone"
        late = "; may not start within the budget" if begin_s > chosen.budget else ""
        begins = f"{begin_s // 60:3.0f}:{begin_s % 60:02.0f}"
        lines.append(
            f"{number:3} {begins} {section.name}: about {section.usual_s:.0f} s, "
            f"at most {section.limit_s:.0f} s, {needs}{late}"
        )
        begin_s += section.usual_s
    most_s = sum(section.limit_s for section in planned)
    lines.append(f"about {begin_s / 60:.0f} minutes in total, at most {most_s / 60:.0f}; {_budget(chosen.budget)}")
    lines.append("files needed on the machine:")
    lines.append(f"  this checkout, without shared data: {_size(_checkout_files())}")
    lines += [f"  {model}: {_size([model]) if model.is_file() else 'not found here'}" for model in chosen.model]
    if chosen.images is not None:
        lines.append(f"  {chosen.images}: images to compare on")
    lines.append(
        "  packages: those of framewire, onnx, cuda-bindings or pycuda, nvidia-cuda-nvrtc, pytest, and tensorrt or"
    )
    lines.append("  tensorrt-rtx; compute-sanitizer comes with the CUDA toolkit")
    reason = probe_cuda().reason
    lines.append(f"here: {reason or probe_cuda()}")
    return lines


def _budget(budget_s: float) -> str:
    if math.isinf(budget_s):
        return "no budget: with --budget SECONDS it ends in time"
    return f"the budget is {budget_s:.0f} s: what does not fit is reported as skipped"


def _checkout_files() -> list[Path]:
    folders = ("engine", "pipelines", "configs", "tools", "tests")
    found = [path for folder in folders for path in (CHECKOUT / folder).rglob("*")]
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]


def _size(files: Sequence[Path]) -> str:
    return f"{sum(file.stat().st_size for file in files) / 2**20:.1f} MiB"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the arguments, checked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, action="append", required=True, help="ONNX file; may be repeated")
    parser.add_argument("--images", type=Path, help="folder of images to compare on; otherwise frames of the demo clip")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the memory loop, if the budget allows")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds after which it ends")
    parser.add_argument(
        "--only", action="append", help="run only sections with this word in their name; may be repeated"
    )
    parser.add_argument("--output", type=Path, default=CHECKOUT / "docs" / "measurements", help="folder")
    parser.add_argument("--cache", type=Path, default=Path("plans"), help="folder for built plans")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and the budget, and run nothing")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    names = [model.stem for model in chosen.model]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:  # sections are found by their name, which contains that of the model
        parser.error(f"--model: two files are called {twice[0]}: rename one")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and write the report."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen = parse(given)
    every = plan_of_sections(chosen)
    planned = [section for section in every if not chosen.only or any(word in section.name for word in chosen.only)]
    if not planned:
        names = ", ".join(section.name for section in every)
        print(f"--only {' '.join(chosen.only)}: no section has this in its name; there are {names}", file=sys.stderr)
        return 1
    if chosen.section is not None:
        answer = Path(os.environ["GPU_CHECK_ANSWER"])
        finding = run_here(next(section for section in planned if section.name == chosen.section))
        written = answer.with_suffix(".part")  # a process killed while writing leaves no partial answer
        written.write_text(json.dumps(asdict(finding)))
        written.replace(answer)
        return 0
    if chosen.dry_run:
        print("\n".join(lines_of_plan(planned, chosen)))
        return 0
    reason = probe_cuda().reason
    if reason is not None:
        print(f"nothing to check here: {reason}", file=sys.stderr)
        return 1
    report = Report(chosen.output)
    check(planned, report, given, chosen.budget)
    print(f"written to {chosen.output}")
    return 0 if report.held else 1


if __name__ == "__main__":
    raise SystemExit(main())
