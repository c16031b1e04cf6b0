"""schemathesis against the OpenAPI document: no request, however strange, is answered by a failure of the server."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import models_of_files, serving

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


SECONDS = int(os.environ.get("FRAMEWIRE_FUZZ_S", "60"))


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 900)
@pytest.mark.skipif(not importlib.util.find_spec("schemathesis"), reason="needs schemathesis: pip install schemathesis")
def test_no_request_of_the_document_makes_the_server_fail(tmp_path: Path) -> None:
    with serving(models_of_files("demo")) as here:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{here.port}/openapi.json"]
        options = ["--checks", CHECKS, "--max-time", str(SECONDS), "--max-examples", "100000", "--no-color"]
        options += ["--phases", "coverage,fuzzing"]
        done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
        assert here.server.answers.total() > 50
        assert not [status for status in here.server.answers if status >= 500]
        assert here.server.budget.held == 0
