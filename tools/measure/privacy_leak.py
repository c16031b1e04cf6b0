"""Measure what privacy leaves visible: the share of people, by ground truth, that a blurred frame still shows.

    FRAMEWIRE_DATA=... python tools/measure/privacy_leak.py [--model MODEL] [--images 128]

Prints the tables of docs/privacy.md. The sequences of MOT15 have no images here, so noise is blurred, with the public
detections of each sequence (Faster R-CNN), some of them left out at random. The photographs of COCO are blurred one by
one with a detector's own results. There is no ground truth for faces: those that the embedded model finds with a high
score on a photograph are searched for on a smaller version of it.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.boxes import Boxes
from engine.data import Detections, Frame, Packet, Run, Tracks
from engine.detection.load import class_ids, load_detector
from engine.imaging.faces import FACE
from engine.imaging.privacy import Privacy, PrivacyRules
from engine.tracking.registry import tracker_by_name
from engine.video.read_image import read_image
from pipelines.build.privacy import build_faces
from pipelines.config.file import load_config
from pipelines.scoring.mot import MotRows, read_mot

SEQUENCES = ("TUD-Campus", "TUD-Stadtmitte")
SIZE = (480, 640, 3)
FPS = 25
SCALES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18)
HEIGHTS = (6, 9, 13, 20, 40)
SURE = 0.6
MISSED = (0.0, 0.2, 0.4, 0.6)
RULES = {
    "this frame only": PrivacyRules(hold_s=0.0),
    "hold 1 s (default)": PrivacyRules(),
    "and delay 0.5 s": PrivacyRules(delay_s=0.5),
}


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="detector for the photographs")
    parser.add_argument("--images", type=int, default=128, help="number of photographs")
    return parser.parse_args()


def main() -> None:
    """Print the tables."""
    arguments = _options()
    folder = Path(os.environ.get("FRAMEWIRE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    for name in SEQUENCES:
        print(
            f"\n{name}: share of person pixels left clear (and the blurred area without people, as a share of theirs)"
        )
        print(f"| detections missed | {' | '.join(RULES)} |\n|---|{'---|' * len(RULES)}")
        for missed in MISSED:
            cells = [_percent(leak_of_sequence(folder / "mot" / name, rules, missed)) for rules in RULES.values()]
            print(f"| {missed:.0%} | {' | '.join(cells)} |")
    print(f"\nCOCO photographs, {arguments.model}: share of the pixels of person boxes left clear, in percent")
    for floor in (0.25, 0.1, 0.05):
        leak, over = leak_of_images(folder / "images" / "coco128_train", arguments.model, floor, arguments.images)
        print(f"| score_floor {floor} | {leak:.1%} | {over:.1%} of the rest blurred |")
    print("\nCOCO photographs, class face: faces of this height, and the share of their pixels left clear")
    for low, high, count, leak in leak_of_faces(folder / "images" / "coco128_train", arguments.images):
        print(f"| {low} to {high} pixels | {count} | {leak:.1%} |")


def _percent(shares: tuple[float, float]) -> str:
    return f"{shares[0]:.2%} ({shares[1]:.0%})"


def leak_of_sequence(folder: Path, rules: PrivacyRules, missed: float, seed: int = 0) -> tuple[float, float]:
    """Return the share of person pixels left visible, and the blurred area without people as a share of them."""
    truth, rng = read_mot(folder / "gt" / "gt.txt"), np.random.default_rng(seed)
    privacy, noise = Privacy(rules), rng.integers(0, 256, SIZE, np.uint8)
    given = _packets(read_mot(folder / "det" / "det.txt"), truth.last_frame, missed, noise, rng)
    clear = people = over = 0
    shown = [packet for packet in given for packet in privacy.take(packet)] + privacy.end()
    for packet in shown:
        of_people = _mask(truth.xyxy[truth.at(packet.frame.frame_id)].astype(np.float32), SIZE)
        unchanged = (packet.frame.image == noise).all(axis=2)
        clear += int((unchanged & of_people).sum())
        over += int((~unchanged & ~of_people).sum())
        people += int(of_people.sum())
    return clear / people, over / people


def _packets(
    found: MotRows, last: int, missed: float, image: NDArray[np.uint8], rng: np.random.Generator
) -> Iterator[Packet]:
    tracker, run = tracker_by_name("steady"), Run("leak", 0, "", ("person",))
    for number in range(1, last + 1):
        rows = found.at(number)
        kept = rng.random(rows.stop - rows.start) >= missed
        boxes, score = found.xyxy[rows][kept], found.score[rows][kept]
        detections = Detections(boxes, score, np.zeros(len(boxes), np.int32))
        time_ns = number * 1_000_000_000 // FPS
        frame = Frame(image, "leak", number, time_ns, 0, time_ns, "file")
        yield Packet(frame, detections, tracker.update(detections, time_ns), run)


def leak_of_images(folder: Path, model: str, floor: float, count: int) -> tuple[float, float]:
    """Return the share of person pixels left visible on photographs, and the blurred share of all other pixels."""
    privacy = Privacy(PrivacyRules(score_floor=floor))
    clear = people = over = others = 0
    with load_detector(model) as detector:
        person = class_ids(["person"], detector.class_names)
        detector.also_find(person, floor)
        run = Run("leak", 0, model, detector.class_names)
        for path in sorted((folder / "images").iterdir())[:count]:
            image = np.asarray(read_image(path), np.uint8)
            truth = _labels(folder / "labels" / f"{path.stem}.txt", image.shape)
            if not len(truth):
                continue
            [found] = detector.detect([Frame(image, path.stem)])
            marked = privacy.hide(Packet(Frame(_noise(image.shape), path.stem), found, Tracks.empty(), run))
            unchanged = (marked.frame.image == _noise(image.shape)).all(axis=2)
            of_people = _mask(truth, image.shape)
            clear += int((unchanged & of_people).sum())
            over += int((~unchanged & ~of_people).sum())
            people, others = people + int(of_people.sum()), others + int((~of_people).sum())
    return clear / people, over / others


def leak_of_faces(folder: Path, count: int) -> Iterator[tuple[int, int, int, float]]:
    """Yield, by height of faces: smallest and largest in pixels, number, and the share of their pixels left visible."""
    faces = build_faces(load_config(None, {}))
    privacy, run = Privacy(PrivacyRules(classes=(FACE,)), faces=faces), Run("leak", 0)
    heights, clear, people = np.zeros(len(HEIGHTS), int), np.zeros(len(HEIGHTS), int), np.zeros(len(HEIGHTS), int)
    for path in sorted((folder / "images").iterdir())[:count]:
        photo = np.asarray(read_image(path), np.uint8)
        packet = Packet(Frame(photo, path.stem), Detections.empty(), Tracks.empty(), run)
        truth = faces.find(packet, SURE, follow=False).xyxy
        for scale in SCALES if len(truth) else ():
            small = np.asarray(cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
            shown = privacy.hide(replace(packet, frame=Frame(small, path.stem))).frame.image
            unchanged = (shown == small).all(axis=2)
            for box in truth * scale:
                row = int(np.searchsorted(HEIGHTS, box[3] - box[1], side="right")) - 1
                mask = _mask(box[None], small.shape)
                if row >= 0:
                    heights[row] += 1
                    clear[row] += int((unchanged & mask).sum())
                    people[row] += int(mask.sum())
    for row, (low, high) in enumerate(itertools.pairwise((*HEIGHTS, 640))):
        yield low, high, int(heights[row]), clear[row] / max(people[row], 1)


def _noise(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def _labels(path: Path, shape: tuple[int, ...]) -> Boxes:
    """Return the boxes of people in a YOLO label file, in pixels."""
    rows = np.loadtxt(path, ndmin=2) if path.exists() and path.stat().st_size else np.zeros((0, 5))
    boxes = rows[rows[:, 0] == 0, 1:] * np.tile((shape[1], shape[0]), 2)
    return np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), axis=1).astype(np.float32)


def _mask(boxes: Boxes, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    mask = np.zeros(shape[:2], np.bool_)
    for x1, y1, x2, y2 in boxes.round().astype(int).clip(0).tolist():
        mask[y1:y2, x1:x2] = True
    return mask


if __name__ == "__main__":
    main()
