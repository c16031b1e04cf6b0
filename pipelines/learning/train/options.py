"""Options of training: what to train, on which data, for how long."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from engine.errors import ConfigError

ULTRALYTICS = ("yolo11n", "yolo11s", "yolo26n", "yolov8n")
"""Trained by Ultralytics (AGPL-3.0), from its checkpoints or from scratch."""
OWN_DETECTORS = ("deimv2-femto", "deimv2-atto", "yolox-nano", "yolox-tiny", "yolox-s", "fasterrcnn-r50")
DETECTORS = (*OWN_DETECTORS, *ULTRALYTICS)
CLASSIFIERS = ("resnet50", "cnn")
ROBUST = ("none", "noise", "adversarial")
S_PER_MIN = 60.0
MIN_PER_H = 60.0
DEIMV2_SIDE = 224


@dataclass(frozen=True, slots=True)
class Augment:
    """Random changes of each training image, by torchvision's transforms.

    Attributes:
        flip: probability of a mirror image.
        colour: strength of changes of brightness, contrast and saturation; hue changes by a tenth of it.
        scale: smallest and largest zoom.
        translate: largest shift, as a share of the image.
        crop: probability of a crop that keeps objects.
        distort: probability of an elastic distortion.
        mosaic: probability that four images become one.
    """

    flip: float = 0.5
    colour: float = 0.3
    scale: tuple[float, float] = (0.7, 1.3)
    translate: float = 0.1
    crop: float = 0.0
    distort: float = 0.0
    mosaic: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.flip, self.colour, self.translate, self.crop, self.distort, self.mosaic)
        if not all(0 <= share <= 1 for share in shares) or not 0.1 <= self.scale[0] <= self.scale[1] <= 4:
            raise ConfigError("augment: expected shares between 0 and 1, and a scale between 0.1 and 4, smallest first")


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train.

    Attributes:
        arch: one of `DETECTORS` or `CLASSIFIERS`.
        base: ONNX file or checkpoint to begin with; None: from scratch.
        size: rows and columns of the input; None: the architecture's.
        minutes: time to train; None: until the epochs are done.
        epochs: passes over the images; None: until the minutes are over.
        batch: images per step.
        lr: learning rate of the pretrained part; new parts learn 7 times as fast.
        freeze: `backbone` leaves the pretrained features unchanged.
        robust: `noise` or `adversarial` training of classifiers.
        epsilon: largest change of a pixel for that, as a share of its range.
        seed: of every random choice.
        augment: random changes of the images.
    """

    arch: str
    base: str | None = None
    size: int | None = None
    minutes: float | None = None
    epochs: float | None = None
    batch: int = 4
    lr: float = 3e-4
    freeze: str = "none"
    robust: str = "none"
    epsilon: float = 0.1
    seed: int = 0
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        if self.arch not in (*DETECTORS, *CLASSIFIERS):
            raise ConfigError(f"arch {self.arch!r}: expected one of {', '.join((*DETECTORS, *CLASSIFIERS))}")
        if (self.minutes is None) == (self.epochs is None):
            raise ConfigError("give the budget as minutes or as epochs, such as 10m or 30e")
        if self.size is not None and (self.size % 32 or not 32 <= self.size <= 1280):
            raise ConfigError(f"size {self.size}: expected a multiple of 32 between 32 and 1280")
        if self.arch.startswith("deimv2") and self.size is not None and self.size < DEIMV2_SIDE:
            raise ConfigError(
                f"size {self.size}: {self.arch} needs {DEIMV2_SIDE} or more, to have cells for its queries"
            )
        if not 1 <= self.batch <= 256 or not 0 < self.lr <= 1 or not 0 < self.epsilon <= 1:
            raise ConfigError("expected batch from 1 to 256, and lr and epsilon above 0 and at most 1")
        if self.freeze not in ("none", "backbone"):
            raise ConfigError(f"freeze {self.freeze!r}: expected none or backbone")
        if self.robust not in ROBUST or (self.robust != "none" and self.arch not in CLASSIFIERS):
            raise ConfigError(f"robust {self.robust!r}: expected {', '.join(ROBUST)}; classifiers only")

    @property
    def is_detector(self) -> bool:
        """Whether it finds boxes."""
        return self.arch in DETECTORS

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def options_from(values: dict[str, Any]) -> TrainOptions:
    """Return the options from the result of `as_dict`."""
    augment = dict(values["augment"])
    augment["scale"] = tuple(augment["scale"])
    return TrainOptions(**{**values, "augment": Augment(**augment)})


def parse_budget(text: str) -> dict[str, float]:
    """Return `minutes` or `epochs` from `10m`, `90s`, `1h` or `30e`.

    Raises:
        ConfigError: it is something else, or not above 0.

    >>> parse_budget("90s"), parse_budget("30e")
    ({'minutes': 1.5}, {'epochs': 30.0})
    """
    units = {"s": ("minutes", 1 / S_PER_MIN), "m": ("minutes", 1.0), "h": ("minutes", MIN_PER_H), "e": ("epochs", 1.0)}
    try:
        key, factor = units[text[-1:]]
        amount = float(text[:-1]) * factor
    except (KeyError, ValueError):
        amount = 0.0
    if not 0 < amount < 1e6:
        raise ConfigError(f"budget {text!r}: expected minutes or epochs, such as 10m or 30e")
    return {key: amount}
