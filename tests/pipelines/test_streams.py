"""Standard streams that are closed, full, gone or ASCII-only: a run works, and no traceback is ever printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
SOURCE = "synthetic://?count=20&width=160&height=120"
RUN = f"-m pipelines run --source '{SOURCE}' --set detector.model=motion --publish none"


def shell(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in which `$FW` is the command line with its run."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "FW": f"{sys.executable} {RUN}", **variables}
    command = command.replace("$FW", environment["FW"])
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=folder, env=environment, capture_output=True, timeout=100,
        text=True, encoding="utf-8",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param("$FW --json >&- 2>err", 0, id="stdout closed"),
        pytest.param("$FW --json 2>&- >out", 0, id="stderr closed"),
        pytest.param("$FW --jsonl lines <&- >&- 2>&-", 0, id="all closed"),
        pytest.param("$FW --json >/dev/full 2>err", 1, id="no space for the result"),
        pytest.param("$FW --json 2>/dev/full >out", 0, id="no space for the progress"),
    ],
)
def test_a_run_ends_as_it_should_whatever_its_streams(tmp_path: Path, command: str, code: int) -> None:
    done = shell(command, tmp_path)
    assert done.returncode == code
    texts = {name: (tmp_path / name).read_text() for name in ("err", "out", "lines") if (tmp_path / name).exists()}
    assert "Traceback" not in "".join(texts.values())
    assert "Exception" not in "".join(texts.values())
    if "out" in texts:
        assert json.loads(texts["out"].splitlines()[-1])["sources"]
    if "lines" in texts:
        assert len(texts["lines"].splitlines()) == 20  # nothing printed went into the file
    if code:
        assert "cannot write to stdout: No space left on device" in texts["err"]


def test_a_reader_that_has_seen_enough_is_no_matter_of_disk_space(tmp_path: Path) -> None:
    many = RUN.replace("count=20", "count=3000")
    done = shell(f"{sys.executable} {many} --jsonl - 2>err | head -n 2", tmp_path)
    assert len(done.stdout.splitlines()) == 2
    told = (tmp_path / "err").read_text()
    assert "Traceback" not in told
    assert "space" not in told


def test_a_result_is_json_in_any_encoding(tmp_path: Path) -> None:
    named = RUN.replace(f"'{SOURCE}'", f"'Küche={SOURCE}'")
    done = shell(f"{sys.executable} {named} --json", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "Küche" in json.loads(done.stdout.splitlines()[-1])["sources"]
    plain = shell(f"{sys.executable} {named} --json", tmp_path, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert plain.returncode == 0, plain.stderr
    assert "Küche" in json.loads(plain.stdout.splitlines()[-1])["sources"]


def test_version_and_quiet(tmp_path: Path) -> None:
    assert shell(f"{sys.executable} -m pipelines --version", tmp_path).stdout.startswith("framewire ")
    quiet = shell(f"{sys.executable} {RUN.replace('pipelines run', 'pipelines --quiet run')} --json", tmp_path)
    assert quiet.returncode == 0
    assert quiet.stderr == ""


def test_a_working_folder_that_is_gone_is_no_traceback(tmp_path: Path) -> None:
    """As in a shell whose folder was deleted: what needs no folder works, and what does says so."""
    leave = f"gone = {str(tmp_path / 'gone')!r}; os.mkdir(gone); os.chdir(gone); os.rmdir(gone)"
    begin = f"import os; {leave}; from pipelines.entry import main; main()"
    command = [sys.executable, "-c", begin, "run", "--source", "synthetic://?count=3", "--model", "motion"]
    command += ["--publish", "none"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    command += ["--save", "out.mp4"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert done.returncode
    assert "Traceback" not in done.stderr
    assert "out.mp4" in done.stderr
