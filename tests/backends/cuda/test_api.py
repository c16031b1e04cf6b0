"""The CUDA packages on a test driver, each in its own process, and the fake, held to one contract."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.backends.cuda import bindings as cuda_bindings
from engine.backends.cuda import driver as cuda
from engine.backends.cuda import pycuda as cuda_pycuda
from engine.backends.cuda.driver import available_packages, open_cuda
from engine.backends.cuda.probe import CudaProbe, Gpu
from engine.errors import ConfigError, MissingDependencyError, ModelError
from engine.testing.cuda import FakeCuda
from tests.backends.cuda.cuda_contract import check
from tests.backends.cuda.processor_kernels import FLAGS, compiler, processor_source

CHECKOUT = Path(__file__).resolve().parents[3]


def installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a libcuda.so.1 that also has every symbol that pycuda wants to see."""
    folder = tmp_path_factory.mktemp("driver")
    text = (Path(__file__).parent / "fake_driver.c").read_text()
    stubs = "".join(f'extern "C" int {name}() {{ return UNSUPPORTED; }}\n' for name in sorted(wanted() - named(text)))
    (folder / "driver.cpp").write_text(processor_source() + text + stubs)
    command = [compiler(), "-O1", *FLAGS, "-o", "libcuda.so.1", "driver.cpp", "-ldl"]
    subprocess.run(command, check=True, cwd=folder)
    compiler_source = Path(__file__).parent / "fake_nvrtc.c"
    command = [compiler(), "-x", "c", "-shared", "-fPIC", "-o", folder / "libnvrtc.so.13", compiler_source]
    subprocess.run(command, check=True)
    (folder / "image").write_bytes(b"image of a kernel")
    return folder


def named(text: str) -> set[str]:
    return set(re.findall(r"\bint (cu[A-Z]\w+)\(", text))


def wanted() -> set[str]:
    """Return the driver's functions that pycuda is linked against, which must exist for it to load."""
    spec = importlib.util.find_spec("pycuda")
    folders = spec.submodule_search_locations if spec else None
    libraries = [path for folder in folders or () for path in Path(folder).glob("_driver*.so")]
    return {name.decode() for path in libraries for name in re.findall(rb"\0(cu[A-Z]\w+)(?=\0)", path.read_bytes())}


@pytest.mark.parametrize(
    ("package", "module"), [("cuda-bindings", "cuda.bindings"), ("pycuda", "pycuda")], ids=["cuda-bindings", "pycuda"]
)
def test_a_package_keeps_the_contract(driver: Path, package: str, module: str):
    if not installed(module):
        pytest.skip(f"{package} is not installed: pip install {package}")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-m", "tests.backends.cuda.cuda_contract", package, str(driver / "image")]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=CHECKOUT, env=environment, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "all of the contract holds\n"


def test_the_fake_keeps_the_contract():
    fake = FakeCuda()
    check(fake, b"image")
    assert fake.live == 0


GPU = Gpu(0, "Some GPU", (8, 9), "GPU-1", 1 << 30, False)


@pytest.mark.parametrize("broken", ["init", "Device", "retain_primary_context"])
def test_a_driver_that_refuses_pycuda_is_an_error_with_its_words(monkeypatch: pytest.MonkeyPatch, broken: str):
    class Error(Exception):
        """As `pycuda.driver.Error`."""

    def call(name: str, result: object = None) -> object:
        if name == broken:
            raise Error(f"{name} failed: unknown error")
        return result

    device = SimpleNamespace(retain_primary_context=lambda: call("retain_primary_context"))
    driver = SimpleNamespace(
        init=lambda: call("init"), Device=lambda index: call("Device", device), Error=Error, MemoryError=MemoryError
    )
    monkeypatch.setattr(cuda_pycuda, "require", lambda module, hint: driver)
    monkeypatch.setattr(cuda_pycuda, "DriverCalls", lambda: None)
    with pytest.raises(ModelError, match=f"CUDA failed: {broken} failed: unknown error"):
        cuda_pycuda.PyCuda(GPU)


def test_without_a_gpu_the_reason_is_the_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda, "probe_cuda", lambda: CudaProbe(reason="no NVIDIA driver: install it"))
    with pytest.raises(ConfigError, match="no NVIDIA driver: install it"):
        open_cuda()


def test_a_gpu_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda, "probe_cuda", lambda: CudaProbe((GPU,), (13, 0)))
    with pytest.raises(ConfigError, match="GPU 2: there are 1, counted from 0"):
        open_cuda(2)


def test_without_a_package_both_remedies_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda, "probe_cuda", lambda: CudaProbe((GPU,), (13, 0)))
    monkeypatch.setattr(cuda, "IMPLEMENTATIONS", (("no.such.package", "no.such.module:Api"),))
    assert available_packages() == ()
    with pytest.raises(MissingDependencyError, match=r"\[rtx\].*pycuda"):
        open_cuda()


def test_a_package_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda, "probe_cuda", lambda: CudaProbe((GPU,), (13, 0)))
    monkeypatch.setattr(cuda, "IMPLEMENTATIONS", (("json", "engine.backends.no_such_module:Api"),))
    with pytest.raises(MissingDependencyError, match=r"json does not load.*\[rtx\]"):
        open_cuda()


@pytest.mark.parametrize(
    ("version", "is_refused"),
    [("12.6.0", True), ("12.9.1", True), ("13.0.0", True), ("12.9.2", False), ("13.0.1", False), ("13.5.0", False)],
)
def test_cuda_bindings_that_would_stop_all_threads_are_passed_over(
    monkeypatch: pytest.MonkeyPatch, version: str, is_refused: bool
):
    monkeypatch.setattr(cuda_bindings.importlib.metadata, "version", lambda name: version)
    monkeypatch.setattr(cuda, "probe_cuda", lambda: CudaProbe((GPU,), (13, 0)))
    monkeypatch.setattr(cuda, "IMPLEMENTATIONS", (("json", "tests.backends.cuda.test_api:OldBindings"),))
    if is_refused:
        with pytest.raises(MissingDependencyError, match=rf"cuda-bindings {version} .*>=12\.9\.2,!=13\.0\.0"):
            open_cuda()
    else:
        open_cuda()


class OldBindings:
    """Begins as `CudaBindings` does."""

    def __init__(self, gpu: Gpu) -> None:
        cuda_bindings.refuse_old_versions()


def test_the_extra_asks_for_the_versions_that_are_not_refused():
    text = (CHECKOUT / "pyproject.toml").read_text()
    oldest, refused = (".".join(map(str, version)) for version in (cuda_bindings.OLDEST, cuda_bindings.REFUSED))
    assert f'"cuda-bindings>={oldest},!={refused},<14"' in text
