"""Handle for the RTSP server of `tests/rtsp/server.py`, for tests, the fault table and the soak test."""

from __future__ import annotations

import signal
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).parent / "rtsp" / "server.py"
PACKAGES = (
    "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-bad "
    "gstreamer1.0-plugins-ugly gstreamer1.0-libav"
)
_PROBE = """
import gi
gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0')
from gi.repository import Gst, GstRtspServer
Gst.init(None)
missing = [n for n in ('x264enc', 'x265enc', 'videotestsrc', 'rtph264pay') if Gst.ElementFactory.find(n) is None]
assert not missing, missing
"""


@lru_cache(maxsize=1)
def missing_server() -> str:
    """Return why there is no RTSP server here and how to get it, or an empty string."""
    remedy = f"apt-get install -y {PACKAGES}"
    if not Path(PYTHON).exists():
        return f"no {PYTHON}: {remedy}"
    done = subprocess.run([PYTHON, "-c", _PROBE], capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else f"GStreamer's RTSP server is not installed: {remedy}"


def kill(process: subprocess.Popen[str]) -> None:
    """End a process at once, and close its pipes; harmless when repeated."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


class RtspServer:
    """A running server; arguments are those of the script (`codec="h265"`, `clock=True`, `port=8554`)."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it, on the same port as before."""
        options = {**self.arguments, "port": self.arguments.get("port") or self.port}
        line = [PYTHON, str(SCRIPT)]
        for name, value in options.items():
            flag = f"--{name.replace('_', '-')}"
            line += [flag] if value is True else [flag, str(value)]
        self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        assert words[:1] == ["ready"], f"the RTSP server did not start: {line}"
        self.port = int(words[1])

    @property
    def url(self) -> str:
        """Address of its stream."""
        return f"rtsp://127.0.0.1:{self.port}/stream"

    def command(self, line: str) -> None:
        """Send `drop` or `quit`."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def pause(self) -> None:
        """Freeze it: connections stay open, and nothing arrives."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it continue."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once; harmless when repeated."""
        kill(self._process)

    def close(self) -> None:
        """End it."""
        self.kill()
