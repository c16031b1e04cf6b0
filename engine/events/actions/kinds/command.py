"""Runs a configured program, without a shell, with the message on its standard input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from engine.errors import ConfigError
from engine.events.actions.base import DeliveryError, Notice

TIMEOUT_S = 10.0
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "XDG_RUNTIME_DIR")
"""Variables that the program gets; passwords of cameras are often in others."""


class CommandAction:
    """Runs a program; nothing of a message becomes part of its arguments.

    The message is one line of JSON on standard input, with `key` and, if there is an image, `picture_path`. Status 0
    is success; after any other, and after `timeout_s`, it is run again later.

    Args:
        arguments: the program and its arguments, as given in the configuration.
        timeout_s: limit for one run, after which the program and its child processes are killed.

    Raises:
        ConfigError: the program does not exist.
    """

    def __init__(self, arguments: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> None:
        if not arguments or shutil.which(arguments[0]) is None:
            found = arguments[0] if arguments else "an empty list"
            raise ConfigError(f"command: {found}: there is no such program: give its path and arguments as a list")
        self._arguments, self._timeout_s = list(arguments), timeout_s

    def send(self, notice: Notice) -> None:
        """Run the program and wait for it to finish. Raises `DeliveryError`."""
        body = {**notice.body, "key": notice.key, "picture_path": notice.picture_path}
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        try:
            process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=kept,
                start_new_session=True,
            )
        except OSError as error:
            raise DeliveryError(f"{self._arguments[0]} cannot be run: {error.strerror}") from error
        with process:
            try:
                process.communicate(json.dumps(body).encode() + b"\n", timeout=self._timeout_s)
            except subprocess.TimeoutExpired as error:
                _kill_group(process)
                raise DeliveryError(f"{self._arguments[0]} did not end within {self._timeout_s:g} s") from error
            except OSError:  # it ended without reading its input
                process.wait()
        if process.returncode != 0:
            raise DeliveryError(f"{self._arguments[0]} ended with status {process.returncode}")

    def close(self) -> None:
        """Do nothing: no program runs between messages."""


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the program and its child processes."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
