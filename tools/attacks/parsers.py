"""Parsers to attack in a worker process: each surface yields one try after another."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tools.attacks.damage import mutated

CHECKOUT = Path(__file__).resolve().parents[2]


class Try(NamedTuple):
    """One input, and the function that parses it."""

    body: bytes
    act: Callable[[], object]


Surface = Callable[[random.Random, Path], Iterator[Try]]


def wire(rng: random.Random, folder: Path) -> Iterator[Try]:
    """Messages of the stream."""
    from engine.errors import WireError
    from engine.wire import decode, encode
    from tests.wire.samples import SAMPLES

    bodies = [encode(message, encoding) for message in SAMPLES.values() for encoding in ("json", "msgpack")]
    while True:
        body = mutated(rng, rng.choice(bodies))
        yield Try(body, partial(promised, WireError, partial(decode, body)))


def config(rng: random.Random, folder: Path) -> Iterator[Try]:
    """Configuration files."""
    from engine.errors import ConfigError
    from pipelines.config.file import load_config

    goods = [path.read_bytes() for path in sorted((CHECKOUT / "configs").glob("*.yaml"))]
    place = folder / "config.yaml"
    while True:
        body = mutated(rng, rng.choice(goods))
        place.write_bytes(body)
        yield Try(body, partial(promised, ConfigError, partial(load_config, str(place), {})))


def images(rng: random.Random, folder: Path) -> Iterator[Try]:
    """Image files of every supported format."""
    import cv2
    import numpy as np

    from engine.video.read_image import read_image

    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    goods = [
        (s, cv2.imencode(f".{s}", pixels)[1].tobytes()) for s in ("jpg", "png", "bmp", "tif", "webp", "jp2", "ppm")
    ]
    while True:
        suffix, good = rng.choice(goods)
        place, body = folder / f"image.{suffix}", mutated(rng, good)
        place.write_bytes(body)
        yield Try(body, partial(promised, (ValueError, OSError), partial(read_image, place)))


def _load(model: Path) -> None:
    """Load a model in a child process, and wait for its end."""
    from engine.backends.base import BackendOptions
    from engine.backends.trial import Trial

    trial = Trial("openvino", model, BackendOptions())
    while not trial.poll(1.0):
        pass


def models(rng: random.Random, folder: Path) -> Iterator[Try]:
    """Model files: parsed by the engine, and loaded by the library in the child that tries them."""
    from engine.backends.files.base import read_model_file
    from engine.errors import ModelError
    from tests.hostile.test_models import detector_file

    good = detector_file(folder / "good.onnx").read_bytes()[:2000]  # the graph; a truncated weight is damage too
    whole = (folder / "good.onnx").read_bytes()
    for number in itertools.count():
        place, body = folder / "model.onnx", mutated(rng, good)
        place.write_bytes(body + whole[2000:])
        yield Try(body, partial(promised, ModelError, partial(read_model_file, place)))
        if number % 500 == 0:
            yield Try(body, partial(_load, place))


def promised(kinds: Any, act: Callable[[], object]) -> None:
    """Run `act`; errors of these kinds are valid answers to bad input."""
    try:
        act()
    except kinds:
        return


PARSERS: dict[str, Surface] = {"wire": wire, "config": config, "images": images, "models": models}
