"""The audit of dependencies lists what is installed, and reports only what it audited as audited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
AUDIT = CHECKOUT / "tools" / "audit.py"
REPORT = """import json, sys, pathlib
names = [line.split("==") for line in pathlib.Path(sys.argv[-1]).read_text().split()]
"""


def _audit(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, str(AUDIT), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )


def _with_pip_audit(folder: Path, tail: str) -> None:
    """Put a program in the place of pip-audit, as its service is on the network."""
    (folder / "pip_audit.py").write_text(REPORT + tail)


@pytest.fixture(autouse=True)
def _installed() -> None:
    metadata = pytest.importorskip("importlib.metadata")
    try:
        metadata.distribution("framewire")
    except metadata.PackageNotFoundError:
        pytest.skip("framewire is not installed: pip install -e .")


def test_every_package_of_the_base_install_has_an_acceptable_licence(tmp_path: Path) -> None:
    done = _audit(tmp_path, "--licences")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"numpy", "pyzmq", "pydantic"} <= {line.split(" ")[0] for line in done.stdout.splitlines()}


@pytest.mark.parametrize(
    ("tail", "code", "message"),
    [
        pytest.param("print(json.dumps({'dependencies': []}))", 3, "not audited", id="an empty report"),
        pytest.param("sys.exit('no route to host')", 3, "not audited: no route to host", id="no service"),
        pytest.param("print('<html>')", 3, "not audited", id="not a report"),
        pytest.param(
            "print(json.dumps({'dependencies': [{'name': n, 'version': v, 'vulns': []} for n, v in names[1:]]}))",
            3,
            "not audited: ",
            id="one package left out",
        ),
        pytest.param(
            "print(json.dumps({'dependencies': [{'name': n, 'skip_reason': 'x'} for n, v in names]}))",
            3,
            "not audited: ",
            id="all skipped",
        ),
        pytest.param(
            "print(json.dumps({'dependencies': [{'name': n, 'version': v, 'vulns': []} for n, v in names]}))",
            0,
            "0 vulnerabilities",
            id="nothing found",
        ),
        pytest.param(
            "print(json.dumps({'dependencies': [{'name': n, 'version': v, 'vulns': "
            "[{'id': 'CVE-1', 'fix_versions': ['9']}]} for n, v in names]}))",
            1,
            "CVE-1, fixed in 9",
            id="something found",
        ),
    ],
)
def test_only_a_complete_report_without_findings_passes(tmp_path: Path, tail: str, code: int, message: str) -> None:
    _with_pip_audit(tmp_path, tail)
    done = _audit(tmp_path, "--vulnerabilities")
    assert done.returncode == code, done.stdout + done.stderr
    assert message in done.stdout


def test_a_bill_of_materials_that_lacks_a_package_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "cyclonedx_py.py").write_text(
        "import json, pathlib, sys\n"
        "out = sys.argv[sys.argv.index('-o') + 1]\n"
        "pathlib.Path(out).write_text(json.dumps({'components': [{'name': 'numpy'}]}))\n"
    )
    out = tmp_path / "build" / "sbom.json"
    done = _audit(tmp_path, "--sbom", str(out))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "missing" in done.stdout
    parts: dict[str, Any] = json.loads(out.read_text())
    assert parts["components"]
