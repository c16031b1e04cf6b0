"""Loading optional packages, and keeping them quiet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine import optional
from engine.errors import MissingDependencyError
from engine.optional import TELEMETRY, require

QUIET_IMPORT = """
import json, sys
seen = []
sys.addaudithook(lambda event, args: seen.append(event) if event.startswith(("socket.", "subprocess.")) else None)
from engine.optional import require
require("openvino").Core()
print(json.dumps([seen, sorted(name for name in sys.modules if "telemetry" in name and "openvino.tools" not in name)]))
"""


def test_importing_openvino_opens_no_socket_and_writes_no_client_id(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "CI"}  # which switches telemetry off
    done = subprocess.run(
        [sys.executable, "-c", QUIET_IMPORT],
        env=environment | {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "MissingDependencyError" in done.stderr:
        pytest.skip("OpenVINO has no wheel for this processor")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[], []]
    assert list(tmp_path.iterdir()) == []


def test_telemetry_packages_stay_importable_by_others() -> None:
    before = {name: sys.modules.get(name) for name in TELEMETRY}
    require("json")
    assert {name: sys.modules.get(name) for name in TELEMETRY} == before
    assert all(name not in sys.modules or sys.modules[name] is not None for name in TELEMETRY)


def test_missing_package_names_the_extra_that_brings_it() -> None:
    with pytest.raises(MissingDependencyError, match=r'pip install "(\.|framewire)\[nothing\]"'):
        require("no_such_package_anywhere", extra="nothing")


def test_threads_that_import_at_one_time_keep_telemetry_out_until_the_last_is_done() -> None:
    inside, leave = threading.Barrier(2), threading.Event()

    def first() -> None:
        with optional._without_telemetry:
            inside.wait(30)

    def last() -> None:
        with optional._without_telemetry:
            inside.wait(30)
            leave.wait(30)

    threads = [threading.Thread(target=first), threading.Thread(target=last)]
    for thread in threads:
        thread.start()
    threads[0].join()
    assert optional.TELEMETRY[0] in sys.modules
    assert sys.modules[optional.TELEMETRY[0]] is None
    leave.set()
    threads[1].join()
    assert sys.modules.get(optional.TELEMETRY[0], ...) is not None
