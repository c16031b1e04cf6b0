#!/usr/bin/env python3
"""Make docs/images/demo.webp, the animation at the top of the README, from the embedded clip.

The frames are those that `framewire demo --save` writes, with the embedded model, default tracker and real overlay,
scaled down to keep the file below 2 MB, and shown at the speed of the clip.

usage: make_demo_animation.py [--output docs/images/demo.webp] [--every 1] [--width 576] [--quality 45]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
from PIL import Image

from engine import Overlay, Pipeline, load_detector, open_source
from engine.assets import demo_clip, demo_model
from engine.tracking.registry import tracker_by_name

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "images" / "demo.webp"
MAX_BYTES = 2_000_000
CLIP_FPS = 10


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--skip", type=int, default=40, help="number of frames to skip at the start of the clip")
    parser.add_argument("--frames", type=int, default=120, help="number of frames of the clip to show")
    parser.add_argument("--every", type=int, default=1, help="keep every n-th frame")
    parser.add_argument("--width", type=int, default=576, help="width of the animation in pixels")
    parser.add_argument("--quality", type=int, default=45, help="WebP quality, 1 to 100")
    return parser.parse_args()


def main() -> None:
    """Write the animation and print its size.

    Raises:
        SystemExit: the file is too large for the README.
    """
    chosen = _options()
    drawn = islice(drawn_frames(chosen.width), chosen.skip, chosen.skip + chosen.frames, chosen.every)
    first, *others = drawn
    first.save(
        chosen.output,
        save_all=True,
        append_images=others,
        duration=1000 * chosen.every // CLIP_FPS,
        loop=0,
        quality=chosen.quality,
        method=6,
    )
    size = chosen.output.stat().st_size
    print(f"{chosen.output.name}: {1 + len(others)} frames, {size / 1e6:.2f} MB")
    if size > MAX_BYTES:
        raise SystemExit(f"the file is larger than {MAX_BYTES} bytes: lower --frames, --width or --quality")


def drawn_frames(width: int) -> Iterator[Image.Image]:
    """Yield every frame of the embedded clip with its tracks drawn, scaled to a width in pixels."""
    overlay = Overlay()
    with Pipeline(
        open_source(str(demo_clip())), load_detector(str(demo_model())), tracker_by_name("steady")
    ) as pipeline:
        for packet in pipeline:
            image = overlay.draw(packet)
            height = round(image.shape[0] * width / image.shape[1])
            small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            yield Image.fromarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))


if __name__ == "__main__":
    main()
