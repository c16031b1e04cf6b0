"""Models by name: what a name stands for, where its file comes from, and where it is stored on this machine.

Nothing here opens a connection. `framewire models get NAME` downloads a file; afterwards a model name works wherever a
path does. A file enters the user's folder only if it matches the hash in this table, so every file in it has been
verified.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from engine.assets import DEMO_MODEL, FACE_MODEL, asset

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_GITHUB = "https://raw.githubusercontent.com"
FOLDER_VARIABLE = "FRAMEWIRE_MODELS"


@dataclass(frozen=True, slots=True)
class Download:
    """Where the file of a model comes from.

    Attributes:
        address: pinned to a commit, so that its content cannot change.
        sha256: of the file, computed from it.
        bytes: size of the file.
    """

    address: str
    sha256: str
    bytes: int

    @property
    def file_name(self) -> str:
        """Name of the file, as its authors wrote it."""
        return self.address.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class NamedModel:
    """One model of the catalogue. A value that was not measured, or is not published, is None.

    Attributes:
        name: what the user writes.
        task: `detect`, `faces`, `classify`, `reid` or `pose`.
        licence: of the weights, as their origin states it.
        origin: who trained it.
        classes: number of classes.
        size_wh: width and height of the model's frame.
        map50: measured with `framewire eval detect` on 128 COCO images, see docs/models.md.
        map50_95: likewise.
        ms: per image on one thread of OpenVINO. All were measured in one run, so compare their ratios.
        download: where `models get` finds the file; None if the user has to export it.
        asset: name of the file that comes with the package; empty for all others.
        export: how to make the file; empty if it comes with the package or can be downloaded.
        use: the option that takes the name, if not `--model`.
        note: what a user must know.
    """

    name: str
    task: str
    licence: str
    origin: str
    classes: int | None = None
    size_wh: tuple[int, int] | None = None
    map50: float | None = None
    map50_95: float | None = None
    ms: float | None = None
    download: Download | None = None
    asset: str = ""
    export: str = ""
    use: str = "--model NAME"
    note: str = ""

    def path(self) -> Path | None:
        """Return where the file is, or where `models get` puts it; None if the user has to export it.

        The folder carries the start of the hash, so that each version has its own file.
        """
        if self.asset:
            return asset(self.asset)
        if self.download is None:
            return None
        return models_folder() / f"{self.name}-{self.download.sha256[:8]}" / self.download.file_name

    def how_to_get(self) -> str:
        """Return the command that obtains the file.

        >>> CATALOGUE["deimv2-femto"].how_to_get()
        'run "framewire models get deimv2-femto" (4.1 MB, Apache-2.0)'
        """
        if self.download is None:
            return f"export it: {self.export}"
        return f'run "framewire models get {self.name}" ({self.download.bytes / 1e6:.1f} MB, {self.licence})'


def models_folder() -> Path:
    """Return the user's folder of models: `FRAMEWIRE_MODELS`, else the data folder of the XDG specification."""
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given).expanduser()
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "framewire" / "models"


def find_named(text: str) -> Path | None:
    """Return the file of a downloaded model, or None if no such name or no such file exists.

    >>> find_named("clip.onnx") is None
    True
    """
    model = CATALOGUE.get(text)
    place = None if model is None else model.path()
    return place if place is not None and place.is_file() else None


def why_missing(text: str) -> str | None:
    """Return how to get the model that a text names or nearly names, or None if it looks like a path.

    >>> why_missing("deimv2-femo")
    'no such model; did you mean deimv2-femto? "framewire models list" shows all names'
    >>> why_missing("folder/yolo11n.onnx") is None
    True
    """
    if model := CATALOGUE.get(text):
        return f"not on this machine yet: {model.how_to_get()}"
    close = difflib.get_close_matches(text, CATALOGUE, n=1, cutoff=0.75) if _NAME.fullmatch(text) else []
    if not close:
        return None
    return f'no such model; did you mean {close[0]}? "framewire models list" shows all names'


def is_sound(model: NamedModel) -> bool:
    """Return whether a row names exactly one way to obtain the file; a download needs address, hash and size."""
    found = model.download
    if [bool(model.asset), bool(model.export), found is not None].count(True) != 1:
        return False
    if found is None:
        return True
    return found.address.startswith("https://") and _SHA256.fullmatch(found.sha256) is not None and found.bytes > 0


_DEIM = f"{_GITHUB}/Kazuhito00/DEIMv2-ONNX-Sample/f88d4382abca74edb26ed4c7f46190ac40da0ea5/model"
_TRACKING = f"{_GITHUB}/Kazuhito00/MOT-Tracking-by-Detection-Pipeline/e50a76b8b430b778276e7fd04fd4cafd5d45eab2"
_FACES = f"{_GITHUB}/ShiqiYu/libfacedetection.train/0047ac24afb1a50a0c6105001c89d1b5b805dbf1/onnx"
_CORAL = f"{_GITHUB}/google-coral/test_data/104342d2d3480b3e66203073dac24f4e2dbb4c41"
_AGPL = "AGPL-3.0: a service built on it must offer its source, or needs a licence from Ultralytics"

_MODELS = (
    NamedModel(
        "demo", "detect", "Apache-2.0", "RangiLyu NanoDet-g", 80, (416, 416),
        map50=0.482, map50_95=0.341, ms=32.1, asset=DEMO_MODEL, note="for trying things out",
    ),
    NamedModel(
        "centerface", "faces", "MIT", "Star-Clouds CenterFace", 1, (640, 640), ms=50.7, asset=FACE_MODEL,
        note="faces from about 10 pixels, with landmarks; for privacy",
    ),
    NamedModel(
        "deimv2-femto", "detect", "Apache-2.0", "Intellindust DEIMv2, exported by Kazuhito00", 80, (416, 416),
        map50=0.564, map50_95=0.402, ms=19.8,
        download=Download(
            f"{_DEIM}/deimv2_hgnetv2_femto_coco.onnx",
            "c6ad358f750132b891165e034c2ba507abefc5ebe1c1d2732a0acbcacc47e52c", 4116144,
        ),
        note="the best below 20 MB; needs no NMS, which would lose objects in crowds",
    ),
    NamedModel(
        "deimv2-atto", "detect", "Apache-2.0", "Intellindust DEIMv2, exported by Kazuhito00", 80, (320, 320),
        map50=0.431, map50_95=0.300, ms=10.6,
        download=Download(
            f"{_DEIM}/deimv2_hgnetv2_atto_coco.onnx",
            "b114aa6610ac7c2bd9b3186ffb001afa872430db957407ef2473f7148d00646e", 2248408,
        ),
        note="the fastest",
    ),
    NamedModel(
        "yolox-nano", "detect", "Apache-2.0", "Megvii YOLOX, exported by Kazuhito00", 80, (416, 416),
        map50=0.508, map50_95=0.327, ms=17.6,
        download=Download(
            f"{_GITHUB}/Kazuhito00/YOLOX-ONNX-TFLite-Sample/3d4f1119d0694200671c08069ecb847aa0d8495a/model/yolox_nano.onnx",
            "695e750a5d5754bb5a8d5325643b59282191a7e7a564e435a415fd3c578eab14", 3660092,
        ),
    ),
    NamedModel(
        "nanodet-m", "detect", "Apache-2.0", "RangiLyu NanoDet, exported by Kazuhito00", 80, (416, 416),
        map50=0.502, map50_95=0.335, ms=32.8,
        download=Download(
            f"{_TRACKING}/Detector/nanodet/model/nanodet_m_416.onnx",
            "08b62b9ee4a7878e7a64d6ef4faf3074322c033a0252c83a20f41b86c76e8146", 3802805,
        ),
    ),
    NamedModel(
        "yunet", "faces", "Apache-2.0", "ShiqiYu libfacedetection.train", 1, (640, 640), ms=11.7,
        download=Download(
            f"{_FACES}/yunet_s_640_640.onnx",
            "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4", 232589,
        ),
        note="the same file as face_detection_yunet_2023mar of OpenCV's model zoo (MIT there)",
    ),
    NamedModel(
        "person-reid-0288", "reid", "Apache-2.0", "Intel Open Model Zoo, converted by PINTO0309", None, (128, 256),
        download=Download(
            f"{_TRACKING}/Tracker/person_reid/model/person-reidentification-retail-0288.onnx",
            "f3966d905e7232026aa8b814c328231a7b45c5b6b4dd32f886894223c4441b80", 813323,
        ),
        use="--set tracker.parameters.appearance=NAME",
        note="loads; not scored",
    ),
    NamedModel(
        "mobilenet-v2", "classify", "Apache-2.0", "Google, Coral test data", 1001, (224, 224),
        download=Download(
            f"{_CORAL}/mobilenet_v2_1.0_224_quant.tflite",
            "7aad0c74c5e3c06e5eb3c827e13304fdd68a83da6087d92ee169c24ff9fd4776", 3610798,
        ),
        use="--set second_stage.model=NAME",
        note="ImageNet's 1000 classes, preceded by one for the background",
    ),
    NamedModel(
        "yolox-tiny", "detect", "Apache-2.0", "Megvii YOLOX", 80, (416, 416),
        export="in a clone of Megvii-BaseDetection/YOLOX: "
        "python tools/export_onnx.py -n yolox-tiny -c yolox_tiny.pth --output-name yolox_tiny.onnx",
    ),
    NamedModel(
        "dfine-n", "detect", "Apache-2.0", "Peterande D-FINE", 80, (640, 640),
        export="in a clone of Peterande/D-FINE: "
        "python tools/deployment/export_onnx.py --check -c configs/dfine/dfine_hgnetv2_n_coco.yml -r dfine_n_coco.pth",
    ),
    NamedModel(
        "rtdetr-r18", "detect", "Apache-2.0", "lyuwenyu RT-DETR", 80, (640, 640),
        export="in rtdetr_pytorch of a clone of lyuwenyu/RT-DETR: "
        "python tools/export_onnx.py -c configs/rtdetr/rtdetr_r18vd_6x_coco.yml -r CHECKPOINT.pth --check",
    ),
    NamedModel(
        "yolo11n", "detect", "AGPL-3.0", "Ultralytics", 80, (640, 640),
        export="yolo export model=yolo11n.pt format=onnx", note=_AGPL,
    ),
    NamedModel(
        "yolo11s", "detect", "AGPL-3.0", "Ultralytics", 80, (640, 640),
        export="yolo export model=yolo11s.pt format=onnx", note=_AGPL,
    ),
    NamedModel(
        "yolo26n", "detect", "AGPL-3.0", "Ultralytics", 80, (640, 640),
        export="yolo export model=yolo26n.pt format=onnx", note=_AGPL,
    ),
)  # fmt: skip
CATALOGUE: Mapping[str, NamedModel] = MappingProxyType({model.name: model for model in _MODELS})
"""All models by name."""
