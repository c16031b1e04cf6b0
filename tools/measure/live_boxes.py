#!/usr/bin/env python3
"""Measure how often the boxes on the page belong to the frame that is on the screen: acceptance E2.

usage: python tools/measure/live_boxes.py [--samples 100] [--fps 10]

A camera whose frames show their number is displayed in Debian's Chromium, once as its own H.264 and once as JPEGs, and
sampled at moments unrelated to its frames. A sample is right if every box of the frame overlaps its object by 95 %.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.sources.synthetic import SyntheticSource, scene_from_uri
from tests.pipelines.web.page.browsing import SPY, chromium
from tests.pipelines.web.page.screen import Sample, samples, share_right
from tests.pipelines.web.page.site import SCENE, Site
from tests.rtsp_server import RtspServer, missing_server

BOXES = ".overlay[data-frame]:not([data-frame=''])"
CLIP_FRAMES = 600


def write_clip(path: Path, fps: int) -> Path:
    """Write frames that show their number as a camera sends them."""
    source = SyntheticSource(scene_from_uri(SCENE))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18", "g": str(2 * fps)})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for number in range(CLIP_FRAMES):
            frame = av.VideoFrame.from_ndarray(np.asarray(source.image(number)), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def looked_at(uri: str, count: int, tile: str) -> list[Sample]:
    """Return what the page of one camera shows."""
    with Site(sources={"gate": uri}) as site, chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.add_init_script(SPY)
        page.goto(f"{site.url}#/live/gate")
        page.wait_for_selector(tile, timeout=60_000)
        page.wait_for_selector(BOXES, timeout=60_000)
        page.wait_for_timeout(3000)
        return samples(page, "gate", SCENE, count)


def summary(seen: list[Sample]) -> dict[str, Any]:
    """Return the share of samples that are right, and by how many frames the others are off."""
    wrong = [each for each in seen if not each.is_right]
    return {
        "samples": len(seen),
        "right": round(share_right(seen), 3),
        "of_video": sum(each.is_video for each in seen),
        "frames": len({each.number for each in seen}),
        "marked_as_earlier": sum(each.is_dashed for each in wrong),
        "frames_off": dict(Counter(str(each.drawn_of - each.number) for each in wrong)),
    }


def main() -> int:
    """Measure both ways, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--fps", type=int, default=10)
    given = parser.parse_args()
    if missing_server():
        sys.exit(missing_server())
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(Path(folder) / "numbered.mp4", given.fps)
        camera = RtspServer(codec="h264", file=clip, gop=2 * given.fps, kbps=4000)
        try:
            video = looked_at(camera.url, given.samples, ".tile[data-video]")
        finally:
            camera.kill()
    pictures = looked_at(SCENE, given.samples, ".tile[data-shown]")
    print(json.dumps({"video": summary(video), "pictures": summary(pictures)}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
