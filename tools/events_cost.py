"""Measure what the event log costs: CPU per frame of a clip with four rules, and bytes per track.

usage: python tools/events_cost.py CLIP [--model MODEL] [--repeat 9]

The clip is detected and tracked once. Then its packets go through analytics, alternately without and with a log that
stores events, counts and paths; the CPU time of all threads counts. Images are measured separately, with the frames of
the clip, by the CPU time of the thread that makes them, next to the cost of encoding as many of these frames as JPEG on
an otherwise idle thread. What OpenCV takes once per thread to load its font is left out, and printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from engine import ByteTrack, Line, Pipeline, Zone, load_detector, open_source
from engine.analytics.analyser import SceneAnalyser
from engine.analytics.analytics import Analytics
from engine.analytics.rules import Count, Crossed, Loiter, Presence
from engine.clock import pause
from engine.data import Frame, Packet
from engine.events.log import EventLog
from engine.events.store.place import StorePlace
from engine.events.store.reader import EventReader
from engine.imaging.scene import FONT
from engine.imaging.square import jpeg_of
from pipelines.build.media import build_event_media
from pipelines.config.file import validated

EVERY = 10
"""Every n-th frame is encoded for comparison."""


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--repeat", type=int, default=9)
    return parser.parse_args()


def main() -> int:
    """Print the figures."""
    given = _options()
    packets = tracked(given.clip, given.model)
    without, with_log = [], []
    for _ in range(given.repeat):
        without.append(cpu_ms(packets, None))
        with tempfile.TemporaryDirectory() as folder:
            with_log.append(cpu_ms(packets, StorePlace(folder)))
            figures = kept(StorePlace(folder))
    cost = statistics.median(a - b for a, b in zip(with_log, without, strict=True))
    print(f"{len(packets)} frames, {figures}")
    print(f"analytics with four rules: {statistics.median(without):.4f} ms of CPU per frame")
    print(f"event log:                 {cost:.4f} ms of CPU per frame (bound 0.1)")
    with tempfile.TemporaryDirectory() as folder:
        ms, images, jpeg_ms = images_cpu_ms(packets, given.clip, Path(folder))
    font_ms = font_cpu_ms()
    ms -= font_ms / len(packets)
    each = ms * len(packets) / max(images, 1)
    print(f"images of events:          {ms:.4f} ms of CPU per frame, {images} images, {each:.2f} ms each,")
    print(
        f"                           of which a JPEG alone takes {jpeg_ms:.2f} ms; {font_ms:.0f} ms once for the font"
    )
    return 0 if cost <= 0.1 else 1


def tracked(clip: str, model: str) -> list[Packet]:
    """Return the packets of a clip, with blank images."""
    found = []
    with Pipeline(open_source(clip), load_detector(model), ByteTrack()) as pipeline:
        for packet in pipeline:
            frame = packet.frame
            blank = np.broadcast_to(np.uint8(0), frame.image.shape)
            small = dataclasses.replace(frame, image=blank)
            assert isinstance(small, Frame)
            found.append(dataclasses.replace(packet, frame=small))
    return found


def scene() -> SceneAnalyser:
    """Return a zone and a line with four rules."""
    zone = Zone("yard", [(0.3, 0.3), (0.7, 0.3), (0.7, 1), (0.3, 1)], classes={"person"})
    line = Line("right", [(0.9, 1), (0.9, 0.43)], classes={"person"})
    rules = [
        Presence("intruder", zone="yard", for_s=2, severity="alert"),
        Loiter("loiter", zone="yard", for_s=8, severity="notice"),
        Crossed("entrance", line="right"),
        Count("crowd", zone="yard", at_least=4, for_s=1, severity="alert"),
    ]
    return SceneAnalyser(Analytics([zone], [line], rules))


def cpu_ms(packets: list[Packet], place: StorePlace | None) -> float:
    """Return the CPU of this process per frame."""
    analyser, log = scene(), None if place is None else EventLog(place)
    if log is not None:
        log.open(packets[0].run)
    gc.collect()
    begin, due = time.process_time(), 0
    for packet in packets:
        analysed = analyser.analyse([packet])[0]
        if log is not None:
            log.write(analysed)
            if packet.frame.scene_ns >= due:  # as the pipeline does, once a second
                log.tick()
                due = packet.frame.scene_ns + 1_000_000_000
    if log is not None:
        log.close()
    return (time.process_time() - begin) * 1000 / len(packets)


def cpu_s(work: Callable[[], object]) -> float:
    """Return the CPU seconds that a call takes on this thread."""
    begin = time.thread_time()
    work()
    return time.thread_time() - begin


def font_cpu_ms() -> float:
    """Return the CPU of the first text of a thread."""
    spent_s: list[float] = []
    measure = partial(cv2.getTextSize, "text", FONT, 0.5, 1)
    thread = threading.Thread(target=lambda: spent_s.append(cpu_s(measure)))
    thread.start()
    thread.join()
    return spent_s[0] * 1000


def images_cpu_ms(packets: list[Packet], clip: str, folder: Path) -> tuple[float, int, float]:
    """Return the CPU per frame of the thread that makes images, how many it made, and the cost of one JPEG alone."""
    config = validated({"events": {"folder": str(folder)}}, "options")
    place = StorePlace(folder)
    media, analyser = build_event_media(config, place, None), scene()
    log = EventLog(place, followers=[media])
    log.open(packets[0].run)
    [thread] = [thread for thread in threading.enumerate() if thread.name == "event media"]
    assert thread.ident is not None
    clock, options = time.pthread_getcpuclockid(thread.ident), config.events.snapshots
    jpeg_s: list[float] = []
    for packet, frame in zip(packets, open_source(clip), strict=False):
        shown = dataclasses.replace(packet, frame=dataclasses.replace(packet.frame, image=frame.image))
        log.write(analyser.analyse([shown])[0])
        if len(jpeg_s) < packet.frame.frame_id // EVERY:
            jpeg_s.append(cpu_s(partial(jpeg_of, frame.image, options.max_side, options.quality)))
        pause(0.002)  # the thread takes part, as it does while frames are detected
    spent_s = time.clock_gettime(clock)
    log.close()
    jpeg_ms = statistics.median(jpeg_s) * 1000
    return spent_s * 1000 / len(packets), len(list(folder.rglob("*.jpg"))), jpeg_ms


def kept(place: StorePlace) -> str:
    """Describe the content of a log."""
    with EventReader(place) as reader:
        events = sum(reader.totals().values())
        tracks = [row for source in reader.sources() for row in reader.tracks(source, 0, 2**62)]
    size = sum(len(row.path) for row in tracks) / max(len(tracks), 1)
    total = sum(path.stat().st_size for path in Path(place.folder).iterdir())
    return f"{events} events, {len(tracks)} tracks of {size:.0f} bytes, {total / 1000:.0f} kB on disk"


if __name__ == "__main__":
    sys.exit(main())
