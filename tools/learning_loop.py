"""Closes the loop on one camera: collect, label, train, test, deploy to a running engine.

On the first half of a clip frames are chosen by the model in use (where it is least sure), a stronger model plays the
person who labels, and a detector is trained on them. The second half, labelled in the same way, is the test. The new
model is released if it is no worse than the one in use, and deployed to an engine that runs on the clip, by a canary.

    python tools/learning_loop.py --clip vtest.avi --teacher yolo11n_int8_openvino_model \
        --arch yolox-nano --base yolox_nano.onnx --budget 10m --spoil dark:5

`--spoil KIND:STRENGTH` degrades the camera (see framewire eval --corruptions): everything the models get is degraded.
The labels come from the original frames, because the teacher stands in for a person, who is less easily misled by
noise.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.clock import pause
from engine.data import Frame
from engine.detection.load import load_detector
from engine.errors import ConfigError
from engine.sources.open import open_source
from pipelines.learning.release.deploy import DeployRequest, deploy
from pipelines.learning.release.release import ReleaseRequest, release
from pipelines.learning.testing.corruptions import corrupt
from pipelines.learning.train.options import Augment, parse_budget
from pipelines.learning.train.run import TrainRequest, default_options, train
from pipelines.running.control import ask
from pipelines.scoring.detect import evaluate_detect

PERSON = "person"
TEACHER_SCORE = 0.4
LEAST_SPACING = 3
TEST_EVERY = 8


def unsure(scores: np.ndarray) -> float:
    """Return how uncertain a model is about a frame: the sum of how close its (N,) scores are to its threshold."""
    return float((1 - np.abs(np.clip(scores, 0, 1) - 0.35) / 0.65).clip(0).sum())


def chosen(frames: list[Frame], model: str, count: int) -> list[Frame]:
    """Return the frames about which the model is least certain, no two of them adjacent."""
    with load_detector(model, score_threshold=0.1, classes=[PERSON]) as detector:
        doubt = [unsure(detector.detect([frame])[0].score) for frame in frames[::2]]
    taken: list[int] = []
    for index in np.argsort(-np.array(doubt)).tolist():
        if all(abs(index - other) * 2 >= LEAST_SPACING for other in taken):
            taken.append(index)
        if len(taken) == count:
            break
    return [frames[index * 2] for index in sorted(taken)]


def spoilt(frames: list[Frame], spoil: str | None) -> list[Frame]:
    """Return the frames as a worse camera would deliver them."""
    if spoil is None:
        return frames
    kind, _, strength = spoil.partition(":")
    return [replace(f, image=corrupt(f.image, kind, int(strength), name=str(f.frame_id))) for f in frames]


def recorded(given: argparse.Namespace, folder: Path) -> Path:
    """Write the second half, as the worse camera gives it, as a clip for the engine; return its path."""
    clean, path = list(islice(open_source(str(given.clip)), 0, None, given.every)), folder / "camera.avi"
    frames = spoilt(clean[len(clean) // 2 :], given.spoil)
    size = (frames[0].width, frames[0].height)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, size)
    for frame in frames:
        writer.write(frame.image)
    writer.release()
    return path


def write(clean: list[Frame], frames: list[Frame], teacher: str, folder: Path, part: str) -> int:
    """Write frames and the people that the teacher finds on their clean versions; return how many."""
    for kind in ("images", "labels"):
        (folder / kind / part).mkdir(parents=True, exist_ok=True)
    people = 0
    with load_detector(teacher, score_threshold=TEACHER_SCORE, classes=[PERSON]) as detector:
        for source, frame in zip(clean, frames, strict=True):
            [found] = detector.detect([source])
            name = f"{frame.frame_id:05d}"
            cv2.imwrite(str(folder / "images" / part / f"{name}.jpg"), frame.image, [cv2.IMWRITE_JPEG_QUALITY, 92])
            scale = np.array([frame.width, frame.height] * 2)
            box = found.xyxy / scale
            rows = np.concatenate(((box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]), axis=1)
            text = "\n".join("0 " + " ".join(f"{value:.6f}" for value in row) for row in rows.tolist())
            (folder / "labels" / part / f"{name}.txt").write_text(text)
            people += len(rows)
    return people


def person_scores(model: str, folder: Path) -> dict[str, float]:
    """Return the AP50 and AP50-95 of people on the test part."""
    images, labels = folder / "images" / "test", folder / "labels" / "test"
    found = evaluate_detect(model, images, labels).per_class[PERSON]
    return {"ap50": round(found.ap50, 4), "ap50_95": round(found.ap50_95, 4)}


def canary(old: str, new: Path, clip: Path, folder: Path, watch_s: float) -> dict[str, Any]:
    """Deploy to an engine that plays the clip on two cameras; return the outcome and the accounting of its frames."""
    control, stream = f"ipc://{folder}/control.sock", f"ipc://{folder}/stream.sock"
    words = [sys.executable, "-m", "pipelines", "run", "--model", old, "--control", control, "--json"]
    words += ["--set", f"publish.address={stream}", "--set", "detector.classes=[person]"]
    for number, name in enumerate(("gate", "door")):
        words += ["--source", f"{name}={clip}", "--set", f"sources.{number}.realtime=true"]
        words += ["--set", f"sources.{number}.loop=true"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        try:
            wait_for(control)
            request = DeployRequest(new, stream, ("door",), watch_s=watch_s)
            outcome = deploy(request, lambda values: ask(control, values, 60.0), print)
            pause(3)
        finally:
            run.send_signal(signal.SIGINT)
            text = run.communicate(timeout=120)[0]
    sources = json.loads(text.splitlines()[-1])["sources"]
    lost = {name: s["captured"] - s["published"] - sum(s["dropped"].values()) for name, s in sources.items()}
    return {"deployed": outcome["deployed"], "reason": outcome["reason"], "unaccounted": lost}


def wait_for(control: str) -> None:
    """Wait until the engine publishes frames of all sources. Raises `ConfigError` after two minutes."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            states = ask(control, {"command": "status"}, 2.0)["sources"].values()
        except ConfigError:
            states = []
        if states and all(state["published"] for state in states):
            return
        pause(0.5)
    raise ConfigError("the engine does not start")


def learn(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Collect, label, train and test; return the results and the model."""
    clean = list(islice(open_source(str(given.clip)), 0, None, given.every))
    frames = spoilt(clean, given.spoil)
    half, data = len(frames) // 2, folder / "data"
    places = {frame.frame_id: place for place, frame in enumerate(frames)}
    picked = [places[frame.frame_id] for frame in chosen(frames[:half], given.model, given.frames)]
    tested = range(half, len(frames), max(1, TEST_EVERY // given.every))
    people = {
        part: write([clean[i] for i in rows], [frames[i] for i in rows], given.teacher, data, part)
        for part, rows in (("train", picked), ("test", tested))
    }
    (data / "data.yaml").write_text(f"names: [{PERSON}]\n")
    before = person_scores(given.model, data)
    print(f"{len(picked)} frames to learn from, {len(tested)} to test, people: {people}; before: {before}", flush=True)
    augment = Augment(scale=(0.8, 1.25), translate=0.1)
    budget = parse_budget(given.budget)
    wanted = default_options(given.arch, base=given.base, size=given.size, augment=augment, **budget)
    result = train(TrainRequest(data, folder / "runs", wanted), lambda fields: print(fields, flush=True))
    after = person_scores(result["model"], data)
    asked = ReleaseRequest(Path(result["run"]), data, folder / "releases", "see its base", against=given.model)
    released = release(asked)
    kept = {"frames": len(picked), "tested": len(tested), "people": people, "steps": result["steps"]}
    found = {**kept, "before": before, "after": after, "released": released["released"], "gate": released["checks"]}
    return {**found, "release": released.get("folder")}


def _options() -> argparse.Namespace:
    """Parse the command line."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--clip", required=True, type=Path)
    options.add_argument("--teacher", required=True)
    options.add_argument("--arch", default="deimv2-femto")
    options.add_argument("--base", required=True)
    options.add_argument("--model", default="demo", help="in use now")
    options.add_argument("--frames", type=int, default=80)
    options.add_argument("--budget", default="10m")
    options.add_argument("--size", type=int, default=416)
    options.add_argument("--every", type=int, default=1, help="use every n-th frame of the clip")
    options.add_argument("--spoil", default=None, help="KIND:STRENGTH, such as dark:5")
    options.add_argument("--watch", type=float, default=15.0)
    options.add_argument("--out", type=Path, default=None)
    return options.parse_args()


def main() -> None:
    """Run the loop and print its results as JSON."""
    given = _options()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        found, outcome = learn(given, folder), {}
        if found["released"]:
            clip = recorded(given, folder) if given.spoil else given.clip
            outcome = canary(given.model, Path(found["release"]), clip, folder, given.watch)
    print(json.dumps({**found, **outcome}))


if __name__ == "__main__":
    main()
