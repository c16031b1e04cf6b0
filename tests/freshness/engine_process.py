"""The engine as users run it: `framewire run` in its own process, read by a ZeroMQ subscriber."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from engine.subscriber import NoMessageError, Subscriber
from engine.wire import FrameMessage
from tests.freshness.ages import Ages
from tests.freshness.growth import Growth

CHECKOUT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "from pipelines.entry import main; main()", "run", "--json"]
START_S = 60.0
END_S = 10.0


class EngineProcess:
    """A running engine; use it in a `with` block.

    Args:
        sources: URI by name.
        settings: `key=value`, in the form of `--set`.
        model: in the form of `--model`.

    Attributes:
        address: where it publishes.
        summary: the summary that it printed at its end.
        log: what it wrote to stderr, once it has ended.
        stop_s: time from SIGINT to its end.
        left_behind: processes of the engine that outlived it.
    """

    def __init__(self, sources: Mapping[str, str], *settings: str, model: str = "motion") -> None:
        self.address = f"tcp://127.0.0.1:{free_port()}"
        command = [*COMMAND, "--publish", self.address, "--model", model]
        for name, uri in sources.items():
            command += ["--source", f"{name}={uri}"]
        for setting in settings:
            command += ["--set", setting]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in `end`
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._errors, text=True, cwd=CHECKOUT, start_new_session=True
        )
        self.summary: dict[str, Any] = {}
        self.log = ""
        self.stop_s = float("nan")
        self.left_behind = 0

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if not self.summary:
            self._process.kill()
            self._process.communicate()
            self._errors.close()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def subscriber(self, topics: Sequence[str] = ("v1/frame/",)) -> Subscriber:
        """Return a subscriber that has received its first message, so that the engine is at work.

        Raises:
            NoMessageError: nothing came for a minute, or the engine has ended.
        """
        subscriber = Subscriber(self.address, topics)
        try:
            subscriber.receive(START_S)
        except NoMessageError as error:
            subscriber.close()
            self._errors.seek(0)
            raise NoMessageError(f"{error}; the engine said: {self._errors.read()[-2000:]}") from error
        return subscriber

    def end(self) -> dict[str, Any]:
        """Interrupt it as Ctrl-C does, and return its summary."""
        children = psutil.Process(self.pid).children(recursive=True)
        begun = time.monotonic()
        self._process.send_signal(signal.SIGINT)
        output, _ = self._process.communicate(timeout=END_S)
        self.stop_s = time.monotonic() - begun
        self.left_behind = sum(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
        self._errors.seek(0)
        self.log = self._errors.read()
        self._errors.close()
        assert output.strip(), f"the engine printed no summary: {self.log}"
        self.summary = json.loads(output.splitlines()[-1])
        return self.summary


def frames(subscriber: Subscriber, seconds: float) -> Iterator[FrameMessage | None]:
    """Yield frame messages as they arrive for this many seconds, and None at least once a second."""
    end = time.monotonic() + seconds
    pause_due = time.monotonic() + 1.0
    while (now := time.monotonic()) < end:
        try:
            message = subscriber.receive(max(min(pause_due, end) - now, 0.0))
        except NoMessageError:
            message = None
        if isinstance(message, FrameMessage):
            yield message
        if time.monotonic() >= pause_due:
            pause_due += 1.0
            yield None


def watch(
    subscriber: Subscriber,
    growth: Growth,
    ages: Ages,
    seconds: float,
    note: Callable[[FrameMessage], None] = lambda message: None,
) -> Iterator[tuple[float, float]]:
    """Record ages and samples for a time; yield the seconds since the start and the engine's MB every second.

    `note` receives each frame message.
    """
    for message in frames(subscriber, seconds):
        if message is not None:
            ages.add(message.latency_ms)
            note(message)
            continue
        growth.sample()
        elapsed_s, rss_mb = growth.samples[-1][:2]
        yield elapsed_s, rss_mb


def free_port() -> int:
    """Return a TCP port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
