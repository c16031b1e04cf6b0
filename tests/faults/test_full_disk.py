"""A disk that is really full, as a small tmpfs in its own mount namespace: runs continue, and messages say why."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
CAMERA = "synthetic://?fps=30&count=40&width=160&height=120"
RUN = ["run", "--source", f"cam={CAMERA}", "--publish", "none", "--model", "motion", "--json"]
SHELL = """
mount -t tmpfs -o size=600k tmpfs "$0" && mkdir "$0/out" && cd "$0" || exit 99
head -c "$1" /dev/zero > fill 2> /dev/null; shift
exec "$@"
"""


@functools.lru_cache(maxsize=1)
def _why_no_namespace() -> str:
    done = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True, check=False
    )
    return done.stderr


def on_full_disk(folder: Path, *arguments: str, filled: int = 1_000_000) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder on a disk of 600 kB of which `filled` bytes are taken."""
    if why := _why_no_namespace():
        pytest.skip(f"no mount namespace here: {why}")
    program = [sys.executable, "-c", "from pipelines.entry import main; main()"]
    command = ["unshare", "-m", "sh", "-c", SHELL, str(folder), str(filled), *program, *arguments]
    environment = {"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(folder)}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


@pytest.mark.parametrize("filled", [1_000_000, 560_000])
@pytest.mark.parametrize(
    "output",
    [
        pytest.param(["--save", "out/o.mp4"], id="MP4"),
        pytest.param(["--save", "out/o.mkv", "--grid"], id="MKV"),
        pytest.param(["--jsonl", "out/o.jsonl"], id="JSON lines"),
    ],
)
def test_an_output_that_the_user_asked_for_ends_the_run_with_the_reason(
    tmp_path: Path, output: list[str], filled: int
) -> None:
    source = CAMERA.replace("count=40", "count=400").replace("160", "640").replace("120", "480")
    arguments = [argument.replace(CAMERA, source) for argument in RUN]
    done = on_full_disk(tmp_path, *arguments, *output, filled=filled)
    assert done.returncode == 1, done.stderr
    assert "No space left on device: free some space" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("filled", [1_000_000, 580_000, 480_000])
def test_events_wait_and_detection_goes_on_from_the_first_frame(tmp_path: Path, filled: int) -> None:
    done = on_full_disk(tmp_path, *RUN, "--set", "events.folder=out", filled=filled)
    assert done.returncode == 0, done.stderr
    assert "free some space: events wait in memory until it works" in " ".join(done.stderr.split())
    assert '"published": 40' in done.stdout
    assert "Traceback" not in done.stderr


def test_totals_that_cannot_be_saved_end_nothing(tmp_path: Path) -> None:
    line = ("--line", "cam.door=0.5,1,0.5,0")
    done = on_full_disk(tmp_path, *RUN, *line, "--set", "analytics.state=out/state.json")
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command", [pytest.param(["keys", "camera"], id="keys"), pytest.param(["support-bundle"], id="support bundle")]
)
def test_a_verb_that_writes_a_file_says_what_to_do(tmp_path: Path, command: list[str]) -> None:
    done = on_full_disk(tmp_path, *command)
    assert done.returncode in (1, 2), done.stderr
    assert "No space left on device: free some space" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
