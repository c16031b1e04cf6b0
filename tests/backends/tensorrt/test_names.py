"""Every TensorRT name that our code uses exists in 10.3, 10.13, 11.4 and RTX 1.7, or is checked before it is used."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from engine.backends.tensorrt import api, build_plan, loaded_plan, runtime_cache
from engine.backends.tensorrt.api import installed_libraries, load_tensorrt

VERSIONS = ("10.3", "10.13", "11.4", "rtx1.7")
MODULES = (api, loaded_plan, build_plan)
CLASS_BY_VARIABLE = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "parser": "OnnxParser",
    "error": "ParserError",
    "tensor": "ITensor",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "cache": "ITimingCache",
    "plan": "IHostMemory",
}
ASKED_FOR_FIRST = {
    ("BuilderFlag", "FP16"),
    ("BuilderFlag", "INT8"),
    ("BuilderFlag", "REQUIRE_USER_ALLOCATION"),
    ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
}
OUR_OWN = {("ILogger", "__init__"), ("IProgressMonitor", "__init__")}


def uses() -> tuple[set[str], set[tuple[str, str]], set[tuple[str, str]]]:
    """Return names of the package, members of its enumerations and classes, and members of its objects, as used."""
    names: set[str] = set()
    members: set[tuple[str, str]] = set()
    calls: set[tuple[str, str]] = set()
    for module in MODULES:
        tree = ast.parse(Path(str(module.__file__)).read_text())
        aliases = {
            node.targets[0].id: node.value.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Attribute)
            and is_package(node.value.value)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute):
                continue
            if is_package(node.value):
                names.add(node.attr)
            elif isinstance(node.value, ast.Attribute) and is_package(node.value.value):
                members.add((node.value.attr, node.attr))
            elif isinstance(node.value, ast.Name) and node.value.id in aliases:
                members.add((aliases[node.value.id], node.attr))
            elif (variable := variable_of(node.value)) in CLASS_BY_VARIABLE:
                calls.add((CLASS_BY_VARIABLE[variable], node.attr))
    return names, members - OUR_OWN, calls


def is_package(node: ast.expr) -> bool:
    """Whether this is `module` or `trt.module`, which is how our code calls the package."""
    return (isinstance(node, ast.Name) and node.id == "module") or (
        isinstance(node, ast.Attribute)
        and node.attr == "module"
        and isinstance(node.value, (ast.Name, ast.Attribute))
        and variable_of(node.value) == "trt"
    )


def variable_of(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr.lstrip("_") if isinstance(node, ast.Attribute) else ""


@pytest.fixture(params=VERSIONS)
def surface(request: pytest.FixtureRequest, data_dir: Path) -> dict[str, dict[str, dict[str, object]]]:
    path = data_dir / "trt_api" / f"api_{request.param}.json"
    if not path.is_file():
        pytest.skip(f"no list of names at {path}")
    return json.loads(path.read_text())


def test_the_uses_are_found():
    names, members, calls = uses()
    assert {"Builder", "OnnxParser", "Runtime", "ILogger", "IProgressMonitor"} <= names
    assert {("TensorIOMode", "INPUT"), ("MemoryPoolType", "WORKSPACE"), ("ILogger", "ERROR")} <= members
    assert {("Builder", "build_serialized_network"), ("IExecutionContext", "execute_async_v3")} <= calls
    assert {("Runtime", "deserialize_cuda_engine"), ("ICudaEngine", "get_tensor_profile_shape")} <= calls


def test_every_name_of_the_package_exists(surface):
    names, _, _ = uses()
    assert {name for name in names if name not in surface and not name.startswith("__")} == set()


def test_every_member_exists_or_is_asked_for_first(surface):
    _, members, _ = uses()
    missing = {
        (owner, member)
        for owner, member in members - ASKED_FOR_FIRST
        if member not in {**surface[owner].get("enum", {}), **surface[owner].get("class", {})}
    }
    assert missing == set()


def test_every_call_on_an_object_exists(surface):
    _, _, calls = uses()
    assert {(owner, call) for owner, call in calls if call not in surface[owner]["class"]} == set()


RTX_CLASSES = {"config": "IRuntimeConfig", "cache": "IRuntimeCache", "engine": "ICudaEngine"}
"""Classes by variable in runtime_cache.py, which uses what TensorRT-RTX alone has."""


def uses_of_rtx() -> set[tuple[str, str]]:
    tree = ast.parse(Path(str(runtime_cache.__file__)).read_text())
    found = {
        (RTX_CLASSES[variable], node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and (variable := variable_of(node.value)) in RTX_CLASSES
    }
    return found | {("IExecutionContext", "is_stream_capturable")}


def test_the_uses_of_rtx_are_found():
    assert {
        ("ICudaEngine", "create_runtime_config"),
        ("IRuntimeConfig", "set_runtime_cache"),
        ("IRuntimeConfig", "dynamic_shapes_kernel_specialization_strategy"),
        ("IRuntimeCache", "serialize"),
    } <= uses_of_rtx()


def test_the_runtime_configuration_of_rtx_has_what_we_use(data_dir: Path):
    path = data_dir / "trt_api" / "api_rtx1.7.json"
    if not path.is_file():
        pytest.skip(f"no list of names at {path}")
    surface = json.loads(path.read_text())
    assert {(owner, name) for owner, name in uses_of_rtx() if name not in surface[owner]["class"]} == set()


@pytest.mark.skipif("tensorrt_rtx" not in installed_libraries(), reason="not installed: pip install tensorrt-rtx")
def test_the_installed_rtx_has_what_we_use():
    module = load_tensorrt("tensorrt_rtx").module
    assert [use for use in uses_of_rtx() if not hasattr(getattr(module, use[0]), use[1])] == []
    assert {"EAGER", "LAZY"} <= set(module.DynamicShapesKernelSpecializationStrategy.__members__)
