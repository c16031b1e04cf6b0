"""Which CUDA compiler is used where several are installed; stand-ins made here take the place of NVIDIA's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from engine.backends.cuda import compile as cuda_compile
from engine.backends.cuda.compile import compile_kernels
from engine.errors import ModelError
from tests.backends.cuda.processor_kernels import compiler


def _nvrtc(folder: Path, name: str, *flags: str) -> str:
    source, library = Path(__file__).parent / "fake_nvrtc.c", folder / name
    subprocess.run([compiler(), "-x", "c", "-shared", "-fPIC", *flags, "-o", library, source], check=True)
    return str(library)


def _offer(monkeypatch: pytest.MonkeyPatch, *places: str) -> None:
    monkeypatch.setattr(cuda_compile, "_nvrtc_places", lambda: iter(places))
    monkeypatch.setattr(cuda_compile.shutil, "which", lambda *args, **options: None)


def test_a_compiler_that_does_not_know_the_gpu_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, good = _nvrtc(tmp_path, "old.so", "-DREFUSES"), _nvrtc(tmp_path, "good.so")
    _offer(monkeypatch, "libnvrtc-that-is-not-there.so", old, good)
    assert compile_kernels((12, 0)).startswith(b"image of the kernels")


def test_where_every_compiler_refuses_the_last_log_is_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _offer(monkeypatch, _nvrtc(tmp_path, "old.so", "-DREFUSES"))
    with pytest.raises(ModelError, match="do not compile for sm_120: invalid value for --gpu-architecture"):
        compile_kernels((12, 0))


def test_a_compiler_newer_than_the_driver_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, fitting = _nvrtc(tmp_path, "new.so", "-DMAJOR=14"), _nvrtc(tmp_path, "fitting.so", "-DMAJOR=13")
    _offer(monkeypatch, new, fitting)
    assert compile_kernels((8, 9), (13, 0)).startswith(b"image of the kernels")
    _offer(monkeypatch, new)
    with pytest.raises(ModelError, match=r"NVRTC 14\.0, and this driver runs CUDA 13.*nvidia-cuda-nvrtc<14"):
        compile_kernels((8, 9), (13, 0))


def test_wheels_come_before_the_loader_and_the_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda_nvrtc/lib/libnvrtc.so.12", "cu13/lib/libnvrtc.so.13"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(cuda_compile.importlib.util, "find_spec", lambda name: spec)
    places = list(cuda_compile._nvrtc_places())
    assert [Path(place).name for place in places[:2]] == ["libnvrtc.so.13", "libnvrtc.so.12"]
    assert places[2] == "libnvrtc.so.13"


@pytest.mark.parametrize(
    ("driver", "fits"), [((13, 0), True), ((12, 6), False), (None, True)], ids=["13.0", "12.6", "unknown"]
)
def test_nvcc_is_used_last_and_only_if_the_driver_runs_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: tuple[int, int] | None, fits: bool
) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo "Cuda compilation tools, release 13.2, V13.2.51"; exit; }\n'
        'while [ "$1" != -o ]; do shift; done; printf cubin > "$2"\n'
    )
    nvcc.chmod(0o755)
    _offer(monkeypatch, _nvrtc(tmp_path, "old.so", "-DREFUSES"))
    monkeypatch.setattr(cuda_compile.shutil, "which", lambda name, path=None: str(nvcc))
    if fits:
        assert compile_kernels((8, 9), driver) == b"cubin"
    else:
        with pytest.raises(ModelError, match=r"nvcc is from CUDA 13\.2, and this driver runs CUDA 12 code at most"):
            compile_kernels((8, 9), driver)
