"""What `import engine` offers, and what it costs."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys

import pytest

import engine

HEAVY = {"torch", "tensorrt", "pycuda", "matplotlib", "supervision", "openvino", "onnxruntime", "cv2", "av", "scipy"}


def modules_after(code: str) -> set[str]:
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_loads_nothing_heavy() -> None:
    assert not modules_after("import engine") & (HEAVY | {"numpy", "zmq"})


def test_subscriber_needs_only_pyzmq_numpy_and_msgspec() -> None:
    assert not modules_after("from engine import Subscriber, subscribe") & HEAVY


def test_every_public_name_loads_and_is_documented() -> None:
    assert sorted(engine.__all__) == sorted(engine._HOMES)
    for name in engine.__all__:
        value = getattr(engine, name)
        assert value.__doc__, name
        assert name in dir(engine)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        engine.Nonsense  # noqa: B018


@pytest.mark.parametrize("package", ["engine", "pipelines"])
def test_every_module_imports_without_optional_packages(package: str) -> None:
    names = [m.name for m in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")]
    blocked = ["torch", "tensorrt", "tensorrt_rtx", "pycuda", "cuda", "ultralytics", "trackers"]
    code = "import sys, importlib\n" + f"for name in {blocked}: sys.modules[name] = None\n"
    code += f"for name in {names}: importlib.import_module(name)\n"
    subprocess.run([sys.executable, "-c", code], check=True)
