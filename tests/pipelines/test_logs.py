"""Logs: JSON lines on request, few lines for one cause, never a secret."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from engine.redaction import hide
from pipelines.logs import ANY_CLIENT, MAX_CAUSES, JsonFormatter, RateLimit, json_line


class Now:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def record(template: str, *args: object, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("engine.x", level, "x.py", 1, template, args, None)


def test_a_cause_that_repeats_is_shown_a_few_times_and_then_counted() -> None:
    now = Now()
    limit = RateLimit(3, 60.0, now)
    shown = [limit.filter(record("%s is offline", "gate")) for _ in range(10)]
    assert shown == [True] * 3 + [False] * 7
    assert limit.filter(record("%s is offline", "yard"))
    now.s = 61.0
    later = record("%s is offline", "gate")
    assert limit.filter(later)
    assert json.loads(JsonFormatter().format(later))["message"] == "gate is offline (7 more like this were left out)"


def test_what_strangers_choose_is_one_cause() -> None:
    limit = RateLimit(3, 60.0, Now())
    logger = logging.getLogger("test.strangers")
    shown = []
    for number in range(100):
        name = f"host-{number}"
        made = logger.makeRecord(logger.name, logging.WARNING, "x.py", 1, "refused %r", (name,), None, extra=ANY_CLIENT)
        shown.append(limit.filter(made))
    assert shown == [True] * 3 + [False] * 97


def test_debug_is_not_limited_and_causes_do_not_pile_up() -> None:
    limit = RateLimit(1)
    assert all(limit.filter(record("x", level=logging.DEBUG)) for _ in range(5))
    for n in range(3 * MAX_CAUSES):
        limit.filter(record(f"template {n}"))
    assert len(limit._seen) == MAX_CAUSES


def test_a_line_of_json_has_the_exception_and_no_secret() -> None:
    hide("tulip-4711")
    try:
        raise ValueError("bouquet tulip-4711 refused")
    except ValueError:
        made = logging.LogRecord(
            "engine.x", logging.ERROR, "x.py", 1, "camera\x1b[31m tulip-4711\nline", (), sys.exc_info()
        )
    line = JsonFormatter().format(made)
    fields = json.loads(line)
    assert "\n" not in line
    assert "tulip-4711" not in line
    assert "ValueError: bouquet *** refused" in fields["exception"]
    assert (fields["level"], fields["logger"]) == ("error", "engine.x")
    assert json.loads(json_line("info", "two\nlines"))["level"] == "info"


def test_every_line_on_stderr_is_json_also_progress_and_errors() -> None:
    words = ["run", "--source", "synthetic://?count=20", "--model", "motion", "--publish", "none", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "--log-json", "-v", *words], capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 0, done.stderr
    assert any("not publishing" in line["message"] for line in lines)
    failed = subprocess.run(
        [sys.executable, "-m", "pipelines", "--log-json", "run", "no.yaml"], capture_output=True, text=True, check=False
    )
    (line,) = failed.stderr.splitlines()
    assert json.loads(line)["level"] == "error"
    assert failed.returncode == 2


def test_a_damaged_image_writes_only_lines_of_the_log(tmp_path: Path) -> None:
    """OpenCV writes lines of its own to stderr, which are not JSON."""
    whole = cv2.imencode(".tif", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[1].tobytes()
    for name, data in (
        ("a.tif", whole[: len(whole) // 2]),
        ("b.gif", b"GIF89a\x40\x00\x40\x00\x80\x00\x00" + bytes(9)),
    ):
        (tmp_path / name).write_bytes(data)
        words = ["--log-json", "detect", str(tmp_path / name), "--model", "motion"]
        done = subprocess.run(
            [sys.executable, "-c", "from pipelines.entry import main; main()", *words],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert [json.loads(line)["level"] for line in done.stderr.splitlines()] == ["error"], done.stderr
