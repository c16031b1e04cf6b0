"""Compare Framewire with Ultralytics' own loop: the same OpenVINO model, clip and machine, measured alternately.

usage: python tools/bench_peers.py --clip CLIP --model X_openvino_model --peer-python VENV/bin/python [--rounds 3]

`--peer-python` is a Python with ultralytics, torch and torchvision. Each round runs the bare backend, our pipeline and
`YOLO(model).track(clip, stream=True)` (ByteTrack, nothing drawn or saved) in sequence, each in a new process, so that
other load on the machine affects all of them. Prints one JSON object with every round and the ratios of the medians:
of frames per second, and of the CPU time per frame, which other load changes less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

PEER = """
import json, resource, sys, time
from ultralytics import YOLO
model = YOLO(sys.argv[2], task="detect")
frames, started = 0, None
for result in model.track(sys.argv[1], stream=True, tracker="bytetrack.yaml", verbose=False, conf=0.25):
    frames += 1
    if frames == 20:  # the first frames load and warm up
        started, cpu = time.perf_counter(), time.process_time()
print(json.dumps({"fps": (frames - 20) / (time.perf_counter() - started), "frames": frames,
                  "cpu_ms": 1e3 * (time.process_time() - cpu) / (frames - 20),
                  "max_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""
OURS = "from pipelines.cli import main; main()"


def last_json(command: list[str]) -> dict[str, Any]:
    """Return the last JSON object that a command prints."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def _round(args: argparse.Namespace) -> dict[str, float]:
    """Run both programs once."""
    ours = last_json([sys.executable, "-c", OURS, "bench", "--source", args.clip, "--model", args.model, "--json"])
    peer = last_json([args.peer_python, "-c", PEER, args.clip, args.model])
    return {
        "raw_fps": ours["raw_fps"],
        "framewire_fps": ours["pipeline_fps"],
        "framewire_to_raw": ours["ratio"],
        "framewire_cpu_ms": ours["cpu_ms_per_frame"],
        "framewire_rss_mb": ours["max_rss_mb"],
        "ultralytics_fps": round(peer["fps"], 2),
        "ultralytics_cpu_ms": round(peer["cpu_ms"], 2),
        "ultralytics_rss_mb": round(peer["max_rss_mb"], 1),
    }


def main() -> int:
    """Run the rounds and print the results."""
    args = _options()
    rounds = []
    for _ in range(args.rounds):
        rounds.append(_round(args))
        print(json.dumps(rounds[-1]), file=sys.stderr)
    median = {key: round(statistics.median(row[key] for row in rounds), 3) for key in rounds[0]}
    ratio = round(median["framewire_fps"] / median["ultralytics_fps"], 3)
    cpu = round(median["ultralytics_cpu_ms"] / median["framewire_cpu_ms"], 3)
    print(json.dumps({"rounds": rounds, "median": median, "framewire_to_ultralytics": ratio, "cpu_ratio": cpu}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
