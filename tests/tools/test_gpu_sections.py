"""The sections of the GPU check on the fake GPU: each runs, leaves nothing behind, and fails on its fault."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.backends.base import BackendOptions
from engine.backends.cuda.probe import probe_cuda
from engine.backends.tensorrt.backend import TensorRtBackend
from engine.errors import ModelError
from engine.testing.tensorrt import FakePlan
from tests.tools.fake_device import FakeDevice, OneGpu, small_detector
from tools import gpu_check
from tools.gpu import gpu_experiments as experiments
from tools.gpu.device import Device
from tools.gpu_check import Finding, run_here

SANITIZER = """#!/bin/sh
while [ "$1" != -c ]; do shift; done
case "$2" in *cuda_contract*) echo held;; *) echo "not the contract"; exit 9;; esac
"""
SECTIONS = [section.name for section in gpu_check.plan_of_sections(gpu_check.parse(["--model", "small.onnx"]))]


def agrees(facts: dict[str, Any], batch: int) -> bool:
    """Whether the figures of a speed section agree with each other."""
    rows = facts["table"]
    for row in rows:
        bare_fps = 1000 * batch / min(row["bare ms"], float(row["bare graph ms"]))
        assert row["bare fps"] == pytest.approx(bare_fps, rel=0.05)
        assert row["ratio"] == pytest.approx(row["engine fps, 1080p"] / row["bare fps"], abs=0.002)
        assert row["p99 ms"] >= row["p50 ms"] > 0
    return [row["letterbox"] for row in rows] == ["cpu", "gpu"]


WANTED: Mapping[str, Callable[[dict[str, Any]], bool]] = {
    "a waiting thread": lambda facts: set(facts) == {"waited ms", "processor share"},
    "letterbox of planes": lambda facts: (
        len(facts["table"]) == 12 and facts["table"][0]["largest difference, levels"] < 4
    ),
    "compute-sanitizer": lambda facts: facts == {"memcheck": "held", "racecheck": "held"},
    "kinds of models": lambda facts: len(facts["table"]) == 8,
    "a plan with FP16 inputs": lambda facts: facts["results"] == "float16",
    "small: boxes, fp16": lambda facts: facts["boxes"] == 8,
    "small: letterbox, candidates": lambda facts: facts["candidates and letterbox"] == "8 of 8 images equal to the bit",
    "small: batch": lambda facts: (facts["boxes"], facts["max_difference_px"]) == (8, 0.0),
    "small: speed, batch 1": lambda facts: agrees(facts, 1),
    "small: speed, batch 8": lambda facts: agrees(facts, 8),
    "small: INT8 speed": lambda facts: facts["quantised"] == 1,
    "graphs, early and late": lambda facts: (
        [row["kernels"][:5] for row in facts["table"]] == ["eager"] * 3 + ["the l"] * 3
        and all(row["graph ms"] >= 0 and row["capturable"] for row in facts["table"])
    ),
    "faults: lost GPU": lambda facts: "ILLEGAL_ADDRESS" in facts["a bad address"] and facts["closing"] == "nothing",
    "faults: out of memory": lambda facts: (
        all("is used up" in word for word in facts["errors"])
        and (facts["boxes there"], facts["MiB not given back"]) == (1, 0.0)
    ),
    "memory": lambda facts: facts["batches"] == 2 and facts["grown_mib"] < 0.1,
}
"""What the facts must contain, beyond the verdict."""


def finding_of(name: str, folder: Path, device: Device) -> Finding:
    chosen = gpu_check.parse(["--model", str(small_detector(folder)), "--cache", str(folder / "plans")])
    chosen.minutes = 0.0
    return run_here(next(one for one in gpu_check.plan_of_sections(chosen, device) if one.name == name))


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_runs_on_the_fake_gpu_and_leaves_it_usable(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "compute-sanitizer").write_text(SANITIZER)
    (tmp_path / "compute-sanitizer").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    fake = FakeDevice("tensorrt_rtx")
    finding = finding_of(name, tmp_path, fake.device())
    assert fake.gpu.live == 0, "it left something on the GPU"
    if name == "GPU tests" and probe_cuda().reason is not None:
        assert finding.verdict == "failed", "without a GPU nothing of it runs, which must not pass"
        assert "skipped" in finding.facts["summary"]
        return
    assert finding.verdict in ("ok", "missed"), finding.facts
    assert WANTED.get(name, bool)(finding.facts), finding.facts


Spoil = Callable[[pytest.MonkeyPatch, FakeDevice], Device]


def answers(change: Callable[[int, NDArray[Any]], None]) -> Spoil:
    """Change what plans return; `change` gets the number of the plan's context and each output."""

    def spoil(monkeypatch: pytest.MonkeyPatch, fake: FakeDevice) -> Device:
        create, contexts = FakePlan.create_context, count()

        def wrong(plan: FakePlan) -> object:
            inner, number = plan._respond, next(contexts)

            def spoilt(feeds: Mapping[str, Any]) -> list[Any]:
                outputs = [np.array(output) for output in inner(feeds)]
                for output in outputs:
                    change(number, output)
                return outputs

            plan._respond = spoilt
            return create(plan)

        monkeypatch.setattr(FakePlan, "create_context", wrong)
        return fake.device()

    return spoil


def all_numbers(_: int, output: NDArray[Any]) -> None:
    output += 1


def last_of_a_batch(_: int, output: NDArray[Any]) -> None:
    output[-1] += len(output) > 1


def moved(_: int, output: NDArray[Any]) -> None:
    output[:, 0] += 30


def moved_in_a_batch(_: int, output: NDArray[Any]) -> None:
    output[:, 0] += 30 * (len(output) > 1)


def moved_a_little_more_each_time(number: int, output: NDArray[Any]) -> None:
    output[:, 0] += number


def closing_raises(monkeypatch: pytest.MonkeyPatch, fake: FakeDevice) -> Device:
    close = TensorRtBackend.close

    def raises(backend: TensorRtBackend) -> None:
        close(backend)
        raise RuntimeError("a binding's own error")

    monkeypatch.setattr(TensorRtBackend, "close", raises)
    return fake.device()


def launching_raises(monkeypatch: pytest.MonkeyPatch, fake: FakeDevice) -> Device:
    def raises(*_: object) -> None:
        raise RuntimeError("a binding's own error")

    monkeypatch.setattr(OneGpu, "launch", raises)
    return fake.device()


def opening_leaks(monkeypatch: pytest.MonkeyPatch, fake: FakeDevice) -> Device:
    def lost(model: Path, options: BackendOptions) -> TensorRtBackend:
        with fake.gpu.current(), suppress(ModelError):
            fake.gpu.allocate(3 << 20)
        return fake.backend(model, options)

    monkeypatch.setattr(experiments, "_fill", lambda api: [])
    return replace(fake.device(), backend=lost)


def inference_leaks(monkeypatch: pytest.MonkeyPatch, fake: FakeDevice) -> Device:
    record = OneGpu.record

    def leaks(gpu: OneGpu, event: int, stream: int) -> None:
        gpu.allocate(9 << 20)
        record(gpu, event, stream)

    monkeypatch.setattr(OneGpu, "record", leaks)
    return fake.device()


def waiting_spins(monkeypatch: pytest.MonkeyPatch, fake: FakeDevice) -> Device:
    """Measured with a simulated clock: on a busy machine, even a spinning thread does not always get the CPU."""
    clock = SimpleNamespace(perf_counter=count(0, 1.0).__next__, process_time=count(0, 0.9).__next__)
    monkeypatch.setattr(experiments, "time", clock)
    return fake.device()


@pytest.mark.parametrize(
    ("name", "spoil", "verdict", "word"),
    [
        pytest.param("kinds of models", answers(all_numbers), "failed", "wrong", id="wrong numbers"),
        pytest.param(
            "kinds of models", answers(last_of_a_batch), "failed", "wrong", id="equal images of a batch differ"
        ),
        pytest.param(gpu_check.ANSWER, answers(all_numbers), "failed", "comes back", id="the smallest model is wrong"),
        pytest.param("a plan with FP16 inputs", answers(all_numbers), "failed", "comes back", id="wrong halves"),
        pytest.param("small: boxes, fp16", answers(moved), "failed", "min_iou", id="moved boxes"),
        pytest.param("small: batch", answers(moved_in_a_batch), "failed", "max_difference_px", id="a wrong batch"),
        pytest.param(
            "small: letterbox, candidates",
            answers(moved_a_little_more_each_time),
            "failed",
            "0 of 8 images",
            id="candidates differ",
        ),
        pytest.param("faults: lost GPU", closing_raises, "failed", "not ours", id="closing raises"),
        pytest.param("faults: lost GPU", launching_raises, "failed", "not ours", id="the first error is not ours"),
        pytest.param("faults: out of memory", opening_leaks, "failed", "MiB", id="opening leaks"),
        pytest.param("memory", inference_leaks, "failed", "grown_mib", id="inference leaks"),
        pytest.param("a waiting thread", waiting_spins, "missed", "processor share", id="waiting spins"),
    ],
)
def test_what_a_section_looks_for_fails_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, spoil: Spoil, verdict: str, word: str
):
    finding = finding_of(name, tmp_path, spoil(monkeypatch, FakeDevice()))
    assert finding.verdict == verdict, finding.facts
    assert word in json.dumps(finding.facts)
