from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from engine import open_source
from engine.assets import demo_clip
from engine.video.read_image import write_image
from pipelines.models.detect_images import detect_images
from pipelines.serving.requests import AppLimits
from pipelines.web.access import ServerLimits
from tests.fakes import PixelDetector
from tests.onnx_models import save_constant_model
from tests.serving import PLACES, Serving, encoded, model_of, models_of_files, serving
from tests.web_server import PATIENCE_S, ask, talk

LIMITS = AppLimits(image_bytes=200_000, pixels=1_000_000, body_bytes=400_000)
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("models")
    classes = np.array([1.0, 4.0, 2.0, 0.0], np.float32)
    classifier = save_constant_model(folder / "kinds.onnx", [classes], 32, {"names": "{0:'a',1:'b',2:'c',3:'d'}"})
    pixels = model_of(PixelDetector(), "pixels")
    return {**models_of_files("demo", f"kinds={classifier}"), "pixels": pixels}


@pytest.fixture(scope="module")
def here(models: dict[str, Any]) -> Iterator[Serving]:
    with serving(models, limits=LIMITS, server_limits=ServerLimits(head_s=0.5)) as running:
        yield running


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "street.jpg"
    for frame in open_source(str(demo_clip())):
        write_image(path, frame.image)
        break
    return path


def test_detect_finds_what_the_command_finds(here: Serving, models: dict[str, Any], picture: Path) -> None:
    from pipelines.build.detector import build_detector
    from pipelines.config.file import load_config

    detector = build_detector(load_config(None, {"detector.backend": "onnxruntime"}), [])
    [result] = detect_images(detector, [picture])
    expected = result.as_dict(detector.class_names)
    status, _, found = ask(here.port, "/v1/detect", "POST", picture.read_bytes(), JPEG)
    assert status == 200
    assert [found[key] for key in ("model", "width", "height")] == ["demo", expected["width"], expected["height"]]
    assert len(found["objects"]) > 2
    assert [{k: v for k, v in each.items() if k != "track_id"} for each in found["objects"]] == expected["objects"]
    assert {each["track_id"] for each in found["objects"]} == {-1}
    assert set(found["ms"]) == {"decode", "wait", "infer"}


def test_objects_are_chosen_by_score_and_class(here: Serving, picture: Path) -> None:
    data = picture.read_bytes()
    every = ask(here.port, "/v1/detect", "POST", data)[2]["objects"]
    sure = ask(here.port, "/v1/detect?score=0.6&classes=person", "POST", data)[2]["objects"]
    assert sure == [each for each in every if each["score"] >= 0.6 and each["class_name"] == "person"]
    for query, reason in [("score=0.1", "lower --score"), ("score=x", "expected"), ("classes=unicorn", "no class")]:
        status, _, answer = ask(here.port, f"/v1/detect?{query}", "POST", data)
        assert status == 400
        assert reason in answer["error"]


def test_a_classifier_tells_its_classes_best_first(here: Serving) -> None:
    status, _, found = ask(here.port, "/v1/classify", "POST", encoded())
    assert (status, found["model"]) == (200, "kinds")
    assert [each["class_name"] for each in found["classes"]] == ["b", "c", "a", "d"]
    assert sum(each["score"] for each in found["classes"]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/v1/detect?model=nothing", 404, "no model is called"),
        ("/v1/detect?model=kinds", 400, "use /v1/classify"),
        ("/v1/classify?model=demo", 400, "use /v1/detect"),
        ("/v2/models/nothing/infer", 404, "no model is called"),
        ("/v2/models/pixels/infer", 404, "no tensors"),
        ("/v2/models/demo/versions/2/infer", 404, "expected 1"),
        ("/nowhere", 404, "openapi"),
        ("/v1/models", 405, "Not Allowed"),
    ],
)
def test_a_wrong_address_is_explained(here: Serving, path: str, status: int, reason: str) -> None:
    found, _, answer = ask(here.port, path, "POST", encoded())
    assert found == status
    assert reason in answer["error"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"hello", 415),
        (encoded(".bmp"), 415),
        (encoded()[:200], 400),
        (encoded(".png", 2000, 1000), 413),
        (encoded() + bytes(250_000), 413),
        (bytes(10_000_000), 413),
    ],
    ids=["nothing", "text", "other format", "cut", "pixels", "bytes", "10 MB"],
)
def test_a_wrong_image_is_explained(here: Serving, body: bytes, status: int) -> None:
    found, _, answer = ask(here.port, "/v1/detect", "POST", body)
    assert found == status
    assert answer["error"]


def test_a_form_with_a_file_works(here: Serving) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + encoded(value=9) + b"\r\n--x--"
    )
    found = ask(here.port, "/v1/detect?model=pixels", "POST", body, {"Content-Type": "multipart/form-data; boundary=x"})
    assert found[2]["objects"][0]["class_id"] in (8, 9, 10)


def test_many_clients_each_get_their_own_answer(here: Serving) -> None:
    found: list[tuple[int, int, int]] = []

    def client(value: int) -> None:
        connection = HTTPConnection("127.0.0.1", here.port, timeout=PATIENCE_S)
        for _ in range(10):
            connection.request("POST", "/v1/detect?model=pixels", encoded(".png", value=value))
            answer = connection.getresponse()
            said = json.loads(answer.read())
            found.append((value, answer.status, said["objects"][0]["class_id"] if answer.status == 200 else -1))
        connection.close()

    clients = [threading.Thread(target=client, args=(value,)) for value in range(PLACES)]
    for each in clients:
        each.start()
    for each in clients:
        each.join(PATIENCE_S)
    assert sorted(found) == sorted((value, 200, value) for value in range(PLACES) for _ in range(10))


def test_overload_is_answered_and_leaves_nothing_behind() -> None:
    slow = model_of(PixelDetector(depth=1, work_s=0.01), places=2)
    answers: Counter[int] = Counter()
    waits: list[int] = []

    def client() -> None:
        for _ in range(20):
            status, headers, _ = ask(here.port, "/v1/detect", "POST", encoded())
            answers[status] += 1
            if status == 429:
                waits.append(int(headers["retry-after"]))

    with serving({"model": slow}) as here:
        clients = [threading.Thread(target=client) for _ in range(8)]
        for each in clients:
            each.start()
        for each in clients:
            each.join(PATIENCE_S)
        assert answers.total() == 160
        assert set(answers) == {200, 429}
        assert min(waits) >= 1
        assert dict(here.server.answers) == dict(answers)
        assert here.server.budget.held == 0
        assert ask(here.port, "/v1/detect", "POST", encoded())[0] == 200


def test_slow_clients_do_not_hold_up_others(here: Serving) -> None:
    head = b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx"
    held = [socket.create_connection(("127.0.0.1", here.port), timeout=PATIENCE_S) for _ in range(3 * PLACES)]
    try:
        for client in held:
            client.sendall(head)
        assert ask(here.port, "/v1/detect?model=pixels", "POST", encoded())[0] == 200
        assert b" 408 " in talk(here.port, head).splitlines()[0]
    finally:
        for client in held:
            client.close()


def test_a_strange_host_or_page_is_refused(here: Serving) -> None:
    assert ask(here.port, "/v1/detect", "POST", encoded(), {"Host": "evil.example"})[0] == 421
    assert ask(here.port, "/v1/detect", "POST", encoded(), {"Origin": "https://evil.example"})[0] == 403


def test_the_models_are_listed_with_their_classes(here: Serving) -> None:
    cards = ask(here.port, "/v1/models")[2]["models"]
    assert [(card["name"], card["task"], card["ready"]) for card in cards] == [
        ("demo", "detect", True),
        ("kinds", "classify", True),
        ("pixels", "detect", True),
    ]
    assert cards[1]["class_names"] == ["a", "b", "c", "d"]
    assert ask(here.port, "/v1/health")[2] == {"live": True, "ready": True}


def test_answers_are_as_the_openapi_document_says(here: Serving, picture: Path) -> None:
    document = ask(here.port, "/openapi.json")[2]
    for path, body in (("/v1/detect", picture.read_bytes()), ("/v1/classify", encoded())):
        found = ask(here.port, path, "POST", body)[2]
        schema = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.validate(found, {**schema, "components": document["components"]})
    for path in ("/v1/models", "/v1/health", "/v2", "/v2/models/{name}"):
        found = ask(here.port, path.replace("{name}", "demo"))[2]
        schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.validate(found, {**schema, "components": document["components"]})


def test_the_page_runs_nothing_that_is_not_in_its_own_files(here: Serving) -> None:
    status, headers, page = ask(here.port, "/")
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    text = page.decode()
    assert "<style" not in text
    assert " style=" not in text
    for file in ("page.js", "page.css", "icon.svg"):
        assert f"static/{file}" in text
        status, headers, content = ask(here.port, f"/static/{file}")
        assert status == 200
        assert b"http" not in content.replace(b"http://www.w3.org/2000/svg", b"")
    assert ask(here.port, "/static/../app.py")[0] == 404


def test_tensors_by_json(here: Serving) -> None:
    metadata = ask(here.port, "/v2/models/demo")[2]
    [images] = metadata["inputs"]
    shape = [max(size, 1) for size in images["shape"]]
    body = json.dumps({"inputs": [{**images, "shape": shape, "data": [0] * 9}]}).encode()
    status, _, answer = ask(here.port, "/v2/models/demo/infer", "POST", body)
    assert status == 400
    assert "expected" in answer["error"]


def test_health_is_told_by_status(here: Serving) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/demo/ready", "/v2/models/demo/versions/1/ready"):
        assert ask(here.port, path)[0] == 200
    assert ask(here.port, "/v2")[2]["name"] == "framewire"
    index = json.loads(ask(here.port, "/v2/repository/index", "POST", b"{}")[2])
    assert [row["state"] for row in index] == ["READY"] * 3
    stats = ask(here.port, "/v2/models/pixels/stats")[2]["model_stats"]
    assert stats[0]["name"] == "pixels"
