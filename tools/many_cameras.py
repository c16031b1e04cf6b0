#!/usr/bin/env python3
"""Run many cameras on a detector that is too slow for all of them, and print each one's share and what grew.

usage: tools/many_cameras.py [--cameras 16] [--minutes 5] [--kind synthetic|rtsp] [--model demo] [--csv FILE] [--json]
       tools/many_cameras.py --carry CLIP [--model M] [--set KEY=VALUE ...] [--minutes 0.5] [--speed 1]
                             [--warm-up SECONDS] [--json]
The engine is `framewire run` in its own process, watched from outside. Exit code 1 if one camera got less than 0.9 of
another's share, frames went missing, processes were left behind, or memory, threads or descriptors grew.

`--carry` finds the largest number of cameras that this machine can handle: each plays the clip in a loop at its own
rate, and a number can be handled if the p99 age at publishing stays below 1 s and less than 1 % of the frames are
dropped. The cameras begin at keyframes spread over the clip, as no two real cameras show the same at once. Settings
for all of them: `--set each.motion_gate={}`, `--set each.detect_hz=auto`; other keys are those of `framewire run
--set`. On a machine that is too slow for several cameras, `--speed 0.2` plays the clip at a fifth of its rate.
Each trial is judged after `--warm-up` seconds, in which windows load their models.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import av

from tests.freshness.ages import plain
from tests.freshness.many_cameras import ManyCameras, many_cameras
from tests.rtsp_server import RtspServer, missing_server

SIZE, FPS = (320, 240), 10
MIN_FAIRNESS = 0.9
MAX_AGE_MS, MAX_DROPPED = 1000.0, 0.01


@contextmanager
def uris(kind: str, count: int, fps: int) -> Iterator[dict[str, str]]:
    """Serve the cameras and yield their addresses by name."""
    if kind == "synthetic":
        scene = f"synthetic://?width={SIZE[0]}&height={SIZE[1]}&fps={fps}&realtime=1"
        yield {f"cam{number}": f"{scene}&seed={number}" for number in range(count)}
        return
    if missing_server():
        sys.exit(missing_server())
    with closing(RtspServer(size=f"{SIZE[0]}x{SIZE[1]}", fps=fps, gop=fps, kbps=300, mounts=count)) as server:
        yield {f"cam{number}": f"{server.url}{number or ''}" for number in range(count)}


def camera_settings(settings: Sequence[str], count: int) -> list[str]:
    """Return the settings of a run, with those of `each` camera written out.

    >>> camera_settings(["each.loop=true", "detector.size=640"], 2)
    ['sources.0.loop=true', 'sources.1.loop=true', 'detector.size=640']
    """
    found: list[str] = []
    for setting in settings:
        name, _, key = setting.partition(".")
        found += [f"sources.{number}.{key}" for number in range(count)] if name == "each" else [setting]
    return found


def is_carried(report: ManyCameras) -> bool:
    """Return whether the results are young and complete: p99 below 1 s, less than 1 % dropped, no camera silent."""
    age_ms = max((part.p99 for part in report.ages), default=MAX_AGE_MS)
    dropped = report.captured - report.published
    return age_ms < MAX_AGE_MS and dropped < MAX_DROPPED * report.captured and not report.silent


def largest(is_good: Callable[[int], bool], most: int, first: int = 1) -> int:
    """Return the largest number up to `most` that is good, given that all smaller ones are; 0 if none is good.

    `first` is tried first.

    >>> largest(lambda count: count <= 11, 64), largest(lambda count: count <= 11, 64, first=20)
    (11, 11)
    """
    good, bad, count = 0, most + 1, first
    while bad - good > 1:
        good, bad = (count, bad) if is_good(count) else (good, count)
        count = min(2 * good, most) if bad > most else (good + bad) // 2
    return good


def rotated(clip: Path, folder: Path, share: float, speed: float = 1.0) -> Path:
    """Write a copy of a clip that begins at the keyframe nearest to a share of it, and ends where that one is.

    Packets are copied, not encoded again; their times are those of a clip that plays at this speed.
    """
    with av.open(str(clip)) as file:
        stream = file.streams.video[0]
        packets = [packet for packet in file.demux(stream) if packet.size]
        assert stream.average_rate
        assert stream.time_base
        step = round(1 / (stream.average_rate * stream.time_base) / speed)
        begins = [number for number, packet in enumerate(packets) if packet.is_keyframe]
        begin = min(begins, key=lambda number: abs(number - share * len(packets)))
        path = folder / f"{begin}.mkv"
        if path.exists():
            return path
        with av.open(str(path), "w") as copy:
            output = copy.add_stream_from_template(stream)
            first = packets[0].dts or 0
            for number, packet in enumerate(packets[begin:] + packets[:begin]):
                delay = 0 if packet.pts is None or packet.dts is None else packet.pts - packet.dts
                packet.dts = first + number * step
                packet.pts = packet.dts + round(delay / speed)
                packet.stream = output
                copy.mux(packet)
    return path


def carry(args: argparse.Namespace) -> int:
    """Return how many cameras that show this clip can be handled, and print each trial."""
    with tempfile.TemporaryDirectory() as folder:
        shares = [number / args.cameras for number in range(args.cameras)]
        clips = [rotated(Path(args.carry), Path(folder), share, args.speed) for share in shares]
        return _carry(clips, args)


def _carry(clips: Sequence[Path], args: argparse.Namespace) -> int:
    seconds = 60 * args.minutes

    def is_good(count: int) -> bool:
        # every n-th of them, so that a few cameras are spread over the clip as well
        addresses = {f"cam{number}": str(clips[number * len(clips) // count]) for number in range(count)}
        chosen = camera_settings(["each.realtime=true", "each.loop=true", *args.set], count)
        report = many_cameras(addresses, seconds, *chosen, model=args.model, part_s=seconds, warm_up_s=args.warm_up)
        is_ok = is_carried(report)
        rates, age = f"{report.fps:.1f} of {report.captured_fps:.1f} fps", report.ages[-1] if report.ages else "-"
        print(f"{count} cameras: {rates}, age {age}: {'carried' if is_ok else 'too many'}", file=sys.stderr)
        return is_ok

    return largest(is_good, len(clips), args.first)


def show(report: ManyCameras) -> bool:
    """Print a report; return whether it passes."""
    print(f"{report.cameras} cameras: {report.captured_fps:.1f} fps arrived, {report.fps:.1f} fps processed, ", end="")
    print(f"least / most frames per camera {report.fairness:.3f}")
    for number, part in enumerate(report.ages, 1):
        print(f"  minute {number:2}: age at publishing {part}")
    for slope in report.slopes:
        print(f"  {slope}")
    print(f"  accounted {report.is_accounted}, stopped in {report.stop_s:.2f} s, left behind {report.left_behind}")
    flat = all(slope.is_flat for slope in report.slopes)
    return report.fairness >= MIN_FAIRNESS and report.is_accounted and not report.left_behind and flat


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--carry", metavar="CLIP", help="find how many cameras with this clip can be handled")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="with --carry: of the run")
    parser.add_argument("--cameras", type=int, default=16, help="with --carry: at most")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--first", type=int, default=1, help="with --carry: the number of cameras to try first")
    parser.add_argument("--warm-up", type=float, default=0.0, metavar="SECONDS", help="with --carry: not judged")
    parser.add_argument("--speed", type=float, default=1.0, help="with --carry: of the clip")
    parser.add_argument("--kind", choices=("synthetic", "rtsp"), default="synthetic")
    parser.add_argument("--fps", type=int, default=FPS, help="of each camera")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--csv", type=Path, help="write the samples of memory, threads and descriptors")
    parser.add_argument("--json", action="store_true", help="print one JSON line at the end")
    return parser.parse_args()


def main() -> int:
    """Run, and report."""
    args = _options()
    if args.carry:
        carried = carry(args)
        print(json.dumps({"clip": args.carry, "speed": args.speed, "carried": carried, "settings": args.set}))
        return 0
    with uris(args.kind, args.cameras, args.fps) as addresses:
        report = many_cameras(addresses, 60 * args.minutes, model=args.model, csv=args.csv, say=print)
    is_good = show(report)
    if args.json:
        print(json.dumps(plain(report)))
    return 0 if is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
