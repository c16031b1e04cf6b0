"""Runs the command line many times, each in a fresh process, and imports it once: a server forks for each run.

For commands that print and exit. What a run changes (registered secrets, loaded plug-ins, the environment) ends with
its process, as usual. Tests of signals, of start-up and of anything that lasts start the real command.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SERVER = """
import json, os, sys
import pipelines.cli  # before the first fork, with all that it imports
from pipelines.entry import main

for line in sys.stdin:
    arguments, folder, place = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(place)
        sys.argv = ["framewire", *arguments]
        code = 0
        try:
            main()
        except SystemExit as error:
            code = error.code
        if not isinstance(code, int):
            print(code or "", file=sys.stderr)
            code = 1 if code else 0
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Preforked:
    """The command `framewire`, imported once; a context manager.

    Args:
        environment: variables of all runs, in addition to those of this process.
    """

    def __init__(self, **environment: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def run(self, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Return the exit status, standard output and standard error of `framewire ARGUMENTS`, run in a folder."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps([arguments, self._folder.name, str(folder or Path.cwd())]) + "\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        out, error = (Path(self._folder.name, name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(list(arguments), code, out, error)

    def __enter__(self) -> Preforked:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()
        self._folder.cleanup()
