"""What every backend must do, on the same small model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.backends.base import Backend, BackendOptions, ImageInput, Pending, TensorSpec
from engine.backends.select import create_backend, why_not
from engine.errors import ConfigError, ModelError
from engine.testing.backend import FakeBackend
from tests.onnx_models import save_byte_model, save_pixel_model

SIDE = 8
Make = Callable[[BackendOptions], Backend]


def fake_backend(options: BackendOptions) -> Backend:
    images = (None, SIDE, SIDE, 3) if options.image else (None, 3, SIDE, SIDE)
    inputs = [TensorSpec("images", images, "uint8" if options.image else "float32")]
    outputs = [TensorSpec("doubled", (None, 3, SIDE, SIDE), "float32"), TensorSpec("means", (None, 3), "float32")]

    def respond(feeds: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.generic], ...]:
        images = feeds["images"].astype(np.float32)
        if options.image:
            images = expected_input(feeds["images"], options.image)
        return images * 2, images.mean(axis=(2, 3))

    return FakeBackend(inputs, outputs, respond, depth=options.depth or 2)


def expected_input(batch: NDArray[np.generic], image: ImageInput) -> NDArray[np.float32]:
    """The normalisation in its naive form, as the reference."""
    channels = batch[..., ::-1] if image.color == "rgb" else batch
    return np.float32((channels - np.array(image.mean)) / np.array(image.std)).transpose(0, 3, 1, 2)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same model on a server: this project's own."""
    for package in ("starlette", "uvicorn", "httptools"):
        pytest.importorskip(package, reason='needs the extra "web": pip install "framewire[web]"')
    from tests.serving import serving, tensor_model

    path = save_pixel_model(tmp_path_factory.mktemp("served") / "pixels.onnx", side=SIDE)
    with serving({"pixels": tensor_model(path, "pixels")}) as here:
        yield f"kserve+http://127.0.0.1:{here.port}/pixels"


@pytest.fixture(params=["fake", "onnxruntime", "openvino", "kserve"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param == "fake":
        return fake_backend
    if request.param == "kserve":
        place = Path(request.getfixturevalue("address"))
        return lambda options: create_backend("kserve", place, options)
    obstacle = why_not(request.param)
    if obstacle:
        pytest.skip(f"backend {request.param}: {obstacle}")
    path = save_pixel_model(tmp_path / "pixels.onnx", side=SIDE)
    return lambda options: create_backend(request.param, path, options)


@pytest.fixture
def backend(make: Make) -> Iterator[Backend]:
    backend = make(BackendOptions(image=ImageInput((SIDE, SIDE)), depth=2, max_batch=3))
    backend.open()
    yield backend
    backend.close()


def images(seed: int, count: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def finish(pending: Pending) -> list[NDArray[np.generic]]:
    outputs = [output.copy() for output in pending.result()]
    pending.release()
    return outputs


def test_it_is_a_backend(backend: Backend) -> None:
    assert isinstance(backend, Backend)
    assert backend.name
    assert backend.precision


def test_it_tells_its_tensors(backend: Backend) -> None:
    assert [spec.name for spec in backend.inputs] == ["images"]
    assert backend.inputs[0].shape == (None, SIDE, SIDE, 3)
    assert backend.inputs[0].dtype == "uint8"
    assert [spec.name for spec in backend.outputs] == ["doubled", "means"]
    assert [len(spec.shape) for spec in backend.outputs] == [4, 2]
    assert {spec.dtype for spec in backend.outputs} == {"float32"}


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(ImageInput((SIDE, SIDE)), id="rgb in 0 to 1"),
        pytest.param(ImageInput((SIDE, SIDE), "bgr", std=(1.0, 1.0, 1.0)), id="bgr in 0 to 255"),
        pytest.param(
            ImageInput((SIDE, SIDE), "rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)), id="imagenet rgb"
        ),
        pytest.param(ImageInput((SIDE, SIDE), "bgr", (103.53, 0.0, 123.675), (57.375, 1.0, 58.395)), id="uneven bgr"),
    ],
)
def test_pixels_become_the_numbers_that_the_model_wants(make: Make, image: ImageInput) -> None:
    backend = make(BackendOptions(image=image))
    backend.open()
    batch = images(1)
    doubled, means = finish(backend.submit({"images": batch}))
    backend.close()
    expected = expected_input(batch, image)
    np.testing.assert_allclose(doubled, expected * 2, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(means, expected.mean(axis=(2, 3)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_model_that_takes_bytes_gets_them_as_they_are(name: str, tmp_path: Path) -> None:
    """Its own graph divides by 255; the family's mean and std apply to numbers, not to bytes."""
    if obstacle := why_not(name):
        pytest.skip(f"backend {name}: {obstacle}")
    image = ImageInput((SIDE, SIDE), mean=(10.0, 20.0, 30.0))
    backend = create_backend(name, save_byte_model(tmp_path / "bytes.onnx", SIDE), BackendOptions(image=image))
    backend.open()
    pending = backend.submit({"images": np.full((1, SIDE, SIDE, 3), (200, 100, 50), np.uint8)})
    np.testing.assert_allclose(pending.result()[0], [[50, 100, 200]])
    pending.release()
    backend.close()


def test_without_an_image_input_it_takes_tensors_as_the_model_has_them(make: Make) -> None:
    backend = make(BackendOptions())
    backend.open()
    tensor = np.random.default_rng(2).random((1, 3, SIDE, SIDE)).astype(np.float32)
    doubled, _ = finish(backend.submit({"images": tensor}))
    backend.close()
    np.testing.assert_allclose(doubled, tensor * 2, rtol=1e-6)


def test_results_belong_to_their_submission(backend: Backend) -> None:
    first, second = images(3), images(4)
    pending = [backend.submit({"images": first}), backend.submit({"images": second})]
    means = [finish(one)[1] for one in pending]
    np.testing.assert_allclose(means[0], first[..., ::-1].mean(axis=(1, 2)) / 255, atol=1e-4)
    np.testing.assert_allclose(means[1], second[..., ::-1].mean(axis=(1, 2)) / 255, atol=1e-4)


def test_many_submissions_reuse_the_slots(backend: Backend) -> None:
    for seed in range(20):
        batch = images(seed)
        _, means = finish(backend.submit({"images": batch}))
        np.testing.assert_allclose(means, batch[..., ::-1].mean(axis=(1, 2)) / 255, atol=1e-4)


@pytest.mark.parametrize("max_batch", [1, 3], ids=["of fixed size", "of open size"])
def test_an_array_that_is_fed_again_is_read_again(make: Make, max_batch: int) -> None:
    """Backends may keep objects that they made for an array, but not its pixels."""
    backend = make(BackendOptions(image=ImageInput((SIDE, SIDE)), depth=1, max_batch=max_batch))
    backend.open()
    wide = np.empty((1, SIDE, 2 * SIDE, 3), np.uint8)
    scattered, whole = wide[:, :, ::2], backend.empty((1, SIDE, SIDE, 3), np.uint8)
    for seed in range(3):
        for batch in (scattered, whole, images(10 + seed)):
            batch[...] = images(seed)
            _, means = finish(backend.submit({"images": batch}))
            np.testing.assert_allclose(means, images(seed)[..., ::-1].mean(axis=(1, 2)) / 255, atol=1e-4)
    backend.close()


def test_a_refused_feed_takes_no_slot(backend: Backend) -> None:
    for _ in range(backend.depth + 1):
        with pytest.raises(ConfigError, match="the model takes"):
            backend.submit({"images": np.zeros((1, SIDE, SIDE + 1, 3), np.uint8)})
    batch = images(6)
    _, means = finish(backend.submit({"images": batch}))
    np.testing.assert_allclose(means, batch[..., ::-1].mean(axis=(1, 2)) / 255, atol=1e-4)


def test_a_batch_gives_the_results_of_its_images(backend: Backend) -> None:
    batch = images(5, count=3)
    together = finish(backend.submit({"images": batch}))
    for row in range(3):
        alone = finish(backend.submit({"images": batch[row : row + 1]}))
        for left, right in zip(together, alone, strict=True):
            np.testing.assert_allclose(left[row], right[0], rtol=1e-6)


def test_more_than_depth_in_flight_is_refused(backend: Backend) -> None:
    pending = [backend.submit({"images": images(6)}) for _ in range(backend.depth)]
    with pytest.raises(ConfigError, match="in flight"):
        backend.submit({"images": images(6)})
    for one in pending:
        finish(one)
    finish(backend.submit({"images": images(6)}))


def test_a_result_can_be_taken_on_another_thread(backend: Backend) -> None:
    pending = backend.submit({"images": images(7)})
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.extend(finish(pending)))
    thread.start()
    thread.join()
    assert len(taken) == 2


@pytest.mark.parametrize(
    "feeds",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"pictures": images(0)}, id="unknown name"),
        pytest.param({"images": images(0).astype(np.float32)}, id="wrong type"),
        pytest.param({"images": images(0)[:, :4]}, id="wrong size"),
        pytest.param({"images": images(0)[0]}, id="no batch axis"),
    ],
)
def test_feeds_that_do_not_fit_are_refused(backend: Backend, feeds: dict[str, NDArray[np.generic]]) -> None:
    with pytest.raises(ConfigError, match=r"fed .* the model takes"):
        backend.submit(feeds)
    finish(backend.submit({"images": images(8)}))


def test_released_twice_is_released_once(backend: Backend) -> None:
    pending = backend.submit({"images": images(9)})
    pending.result()
    pending.release()
    pending.release()
    kept = [backend.submit({"images": images(9)}) for _ in range(backend.depth)]
    with pytest.raises(ConfigError):
        backend.submit({"images": images(9)})
    for one in kept:
        finish(one)


def test_a_released_result_is_gone(backend: Backend) -> None:
    pending = backend.submit({"images": images(10)})
    finish(pending)
    with pytest.raises(ConfigError, match="released"):
        pending.result()


def test_released_without_a_result_frees_the_slot(backend: Backend) -> None:
    for _ in range(2 * backend.depth):
        backend.submit({"images": images(11)}).release()


def test_opening_and_closing_can_be_repeated(make: Make) -> None:
    backend = make(BackendOptions(image=ImageInput((SIDE, SIDE))))
    for _ in range(2):
        backend.open()
        backend.open()
        finish(backend.submit({"images": images(12)}))
        backend.close()
        backend.close()
    with pytest.raises(ConfigError, match="closed"):
        backend.submit({"images": images(12)})


def test_its_memory_can_be_fed(backend: Backend) -> None:
    batch = backend.empty((1, SIDE, SIDE, 3), np.uint8)
    batch[:] = 51
    _, means = finish(backend.submit({"images": batch}))
    np.testing.assert_allclose(means, 0.2, atol=1e-6)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    "content", [pytest.param(b"not a model", id="text"), pytest.param(b"\x08\x07", id="cut short")]
)
def test_a_broken_file_is_a_model_error(name: str, content: bytes, tmp_path: Path) -> None:
    if obstacle := why_not(name):
        pytest.skip(f"backend {name}: {obstacle}")
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        create_backend(name, path, BackendOptions()).open()
