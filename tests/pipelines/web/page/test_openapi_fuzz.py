"""schemathesis against the page's OpenAPI document: no request, however strange, makes the server fail."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipelines.serving.test_openapi_fuzz import CHECKS
from tests.pipelines.web.page.site import Site
from tests.pipelines.web.page.test_history import RULES

SECONDS = int(os.environ.get("FRAMEWIRE_FUZZ_S", "60"))


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 900)
@pytest.mark.skipif(not importlib.util.find_spec("schemathesis"), reason="needs schemathesis: pip install schemathesis")
def test_no_request_of_the_document_makes_the_page_fail(tmp_path: Path) -> None:
    settings = [f"events.folder={tmp_path / 'events'}", f"rules={RULES}"]
    places = ["--line", "cam.middle=0.5,0.0,0.5,1.0", "--zone", "cam.all=0.02,0.02,0.98,0.02,0.98,0.98,0.02,0.98"]
    with Site(*places, *(word for each in settings for word in ("--set", each))) as site:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{site.url}api/v1/openapi.json"]
        options = ["--checks", CHECKS, "--max-time", str(SECONDS), "--max-examples", "100000", "--no-color"]
        options += ["--phases", "coverage,fuzzing", "--request-timeout", "20"]
        options += ["--exclude-path-regex", "(/mjpeg|/events/stream)$"]  # answers that never end
        done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
        assert not [line for line in site.log if "failed" in line]
        assert site.get("sources")[0] == 200
