#!/usr/bin/env python3
"""Measure the time from the start of `framewire run` to its first published frame, apart from loading the model.

usage: python tools/measure/startup.py [--source CLIP] [--model MODEL] [--rounds 7] [--python OTHER/bin/python]

Each round starts a process, and subscribes until the first frame arrives. The model is then loaded by a process that
does nothing else: reading the file, importing the backend, compiling. Byte code is cached, as in an installed package.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import zmq

WAIT_S = 60
RUN = "from pipelines.entry import main; main()"
LOAD = """
import sys, time
import engine.detection.load, engine.flow.pipeline
started = time.perf_counter(), time.process_time()
detector = engine.detection.load.load_detector(sys.argv[1])
detector.open()
print(time.perf_counter() - started[0], time.process_time() - started[1], flush=True)
detector.close()
"""


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(value) for value in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def first_frame(python: str, source: str, model: str, env: dict[str, str]) -> tuple[float, float]:
    """Return the seconds, and the seconds of CPU time, until a run has published its first frame."""
    with zmq.Context() as context, context.socket(zmq.SUB) as socket, tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{folder}/stream"
        socket.setsockopt(zmq.RECONNECT_IVL, 1)
        socket.setsockopt(zmq.LINGER, 0)
        socket.subscribe("v1/frame/")
        socket.connect(address)
        words = ["-q", "run", "--source", source, "--model", model, "--publish", address]
        began = time.perf_counter()
        process = subprocess.Popen([python, "-c", RUN, *words], stdout=subprocess.DEVNULL, env=env)
        try:
            if not socket.poll(1000 * WAIT_S):
                raise SystemExit(f"no frame within {WAIT_S} s")
            return time.perf_counter() - began, cpu_s(process.pid)
        finally:
            process.kill()
            process.wait()


def model_load(python: str, model: str, env: dict[str, str]) -> tuple[float, float]:
    """Return the seconds, and the seconds of CPU time, that loading a model takes."""
    done = subprocess.run([python, "-c", LOAD, model], capture_output=True, text=True, check=True, env=env)
    wall, cpu = done.stdout.splitlines()[-1].split()
    return float(wall), float(cpu)


def medians(rounds: list[tuple[float, float]]) -> list[float]:
    """Return the median of each column."""
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def measure(python: str, source: str, model: str, rounds: int) -> dict[str, Any]:
    """Return medians over the rounds, the first of which only fills the caches."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        starts, loads = [], []
        for _ in range(rounds + 1):
            starts.append(first_frame(python, source, model, env))
            loads.append(model_load(python, model, env) if model != "motion" else (0.0, 0.0))
    (start, start_cpu), (load, load_cpu) = (
        [statistics.median(part) for part in zip(*all_[1:], strict=True)] for all_ in (starts, loads)
    )
    return {
        "first_frame_s": round(start, 3),
        "model_load_s": round(load, 3),
        "first_frame_less_load_s": round(start - load, 3),
        "first_frame_cpu_s": round(start_cpu, 2),
        "model_load_cpu_s": round(load_cpu, 2),
        "first_frame_s_runs": [round(one[0], 3) for one in starts[1:]],
    }


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="synthetic://?width=640&height=480&fps=25", help="a clip or an address")
    parser.add_argument("--model", default="motion", help="motion loads no model")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--python", default=sys.executable, help="of another environment, to compare with")
    args = parser.parse_args()
    print(json.dumps(measure(args.python, args.source, args.model, args.rounds), indent=2))


if __name__ == "__main__":
    main()
