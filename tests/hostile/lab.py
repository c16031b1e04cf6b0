"""A live engine with a healthy camera and a healthy subscriber, an attack on it, and the results.

The engine is `framewire run` in its own process. The healthy camera is synthetic and keeps real time; the subscriber
counts the frames that arrive from it, so a freeze anywhere between capture and socket shows. An attack is a function
of the running `Engine`. `Lab.play` measures before, during and after, ends the run by SIGINT, and returns a `Verdict`.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from engine.subscriber import NoMessageError, Subscriber
from engine.wire import FrameMessage
from tests.freshness.engine_process import free_port
from tests.hostile.processes import Usage, usage
from tests.patience import AT_ONCE_S

HEALTHY = "healthy"
HEALTHY_FPS = 10
HEALTHY_URI = f"synthetic://?realtime=1&fps={HEALTHY_FPS}&width=160&height=120"
CHECKOUT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "from pipelines.entry import main; main()", "run", "--json"]
START_S = 120.0
WATCH_S = 3.0
SETTLE_S = 20.0
END_S = 30.0
MEMORY_MB = 10.0
SHARE = 0.95
FREEZE_S = 1.0


@dataclass(frozen=True)
class Verdict:
    """The effect of an attack on an engine and on its healthy camera.

    Attributes:
        alive: whether the engine was still running after the attack.
        healthy_share: frames of the healthy camera that arrived during the attack, as a share of those due.
        longest_gap_s: longest wait between two of them.
        base: what the process tree held before the attack.
        peak_mb: most memory seen during the attack.
        after: what it held at the end of the settling time, or once it was back.
        stop_s: from SIGINT to the end of the process.
        exit_code: of the engine; 130 after SIGINT.
        summary: the summary that it printed; empty if it printed none.
        left_behind: processes of the engine that outlived it.
        errors: its stderr.
        notes: what the attack itself returned.
    """

    alive: bool
    healthy_share: float
    longest_gap_s: float
    base: Usage
    peak_mb: float
    after: Usage
    stop_s: float
    exit_code: int | None
    summary: Mapping[str, Any]
    left_behind: int
    errors: str
    notes: Any = None

    @property
    def kept_mb(self) -> float:
        """Memory that was not released."""
        return self.after.memory_mb - self.base.memory_mb

    @property
    def is_accounted(self) -> bool:
        """Whether every captured frame of every source was published or is counted as dropped."""
        sources = self.summary.get("sources", {}).values()
        return bool(sources) and all(s["captured"] == s["published"] + sum(s["dropped"].values()) for s in sources)

    def faults(
        self, *, memory_mb: float = MEMORY_MB, share: float = SHARE, freeze_s: float = AT_ONCE_S
    ) -> dict[str, Any]:
        """Return each promise that is broken, by name with the figure; empty if all are kept.

        Ctrl-C has `AT_ONCE_S` and a freeze `freeze_s`, rather than the promised second: see `tests.patience`.
        """
        checks: dict[str, tuple[bool, Any]] = {
            "alive": (self.alive, self.errors[-2000:]),
            "healthy camera": (self.healthy_share >= share, round(self.healthy_share, 3)),
            "freeze": (self.longest_gap_s <= freeze_s, f"{self.longest_gap_s:.2f} s"),
            "memory": (self.kept_mb <= memory_mb, f"{self.base.memory_mb:.0f} -> {self.after.memory_mb:.0f} MB"),
            "descriptors": (
                self.after.descriptors <= self.base.descriptors + 2,
                (self.base.descriptors, self.after.descriptors),
            ),
            "threads": (self.after.threads <= self.base.threads + 1, (self.base.threads, self.after.threads)),
            "stop": (self.stop_s <= AT_ONCE_S, f"{self.stop_s:.2f} s"),
            "exit code": (self.exit_code == 130, self.exit_code),
            "summary": (bool(self.summary), self.errors[-2000:]),
            "accounting": (self.is_accounted, self.summary.get("sources")),
            "left behind": (self.left_behind == 0, self.left_behind),
            "traceback": ("Traceback" not in self.errors, self.errors[-3000:]),
        }
        return {name: figure for name, (holds, figure) in checks.items() if not holds}

    def __str__(self) -> str:
        memory = f"memory {self.base.memory_mb:.0f} / {self.peak_mb:.0f} / {self.after.memory_mb:.0f} MB"
        healthy = f"healthy {self.healthy_share:.3f}, longest gap {self.longest_gap_s:.2f} s"
        return f"alive {self.alive}, {healthy}, {memory} (base / peak / after), stop {self.stop_s:.2f} s"


class Engine:
    """A running engine under attack: its process and its addresses."""

    def __init__(self, sources: Mapping[str, str], settings: Sequence[str], arguments: Sequence[str], model: str):
        self.folder = tempfile.TemporaryDirectory(prefix="fw-hostile-")
        self.publish = f"tcp://127.0.0.1:{free_port()}"
        self.control = f"ipc://{self.folder.name}/control"
        command = [*COMMAND, "--publish", self.publish, "--model", model, "--control", self.control]
        for name, uri in {HEALTHY: HEALTHY_URI, **sources}.items():
            command += ["--source", f"{name}={uri}"]
        for setting in settings:
            command += ["--set", setting]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in `close`
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=CHECKOUT,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it is still running."""
        return self.process.poll() is None

    def ask(self, request: dict[str, Any], timeout_s: float = 10.0) -> dict[str, Any]:
        """Send one control request and return the answer. Raises `ConfigError`."""
        from pipelines.running.control import ask

        return ask(self.control, request, timeout_s)

    def source(self, name: str) -> dict[str, Any]:
        """Return the status of a source from `ctl status`."""
        found: dict[str, Any] = self.ask({"command": "status"})["sources"][name]
        return found

    def readers(self) -> list[psutil.Process]:
        """Return its child processes that still run."""
        children = psutil.Process(self.pid).children(recursive=True)
        return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]

    def errors(self) -> str:
        """Return its stderr so far."""
        self._errors.seek(0)
        return self._errors.read()

    def close(self) -> None:
        """Kill what is left of it."""
        if self.alive:
            self.process.kill()
        self.process.communicate()
        self._errors.close()
        self.folder.cleanup()


@dataclass
class _Watch:
    """Counts frames of the healthy camera as a subscriber sees them, on its own thread."""

    address: str
    times: list[float] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    first: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with Subscriber(self.address, (f"v1/frame/{HEALTHY}",)) as subscriber:
            while not self.ended.is_set():
                try:
                    message = subscriber.receive(0.2)
                except NoMessageError:
                    continue
                if isinstance(message, FrameMessage):
                    self.times.append(time.monotonic())
                    self.first.set()

    def share(self, start: float, end: float) -> float:
        """Return the frames that came between two moments as a share of those due."""
        count = sum(start <= at < end for at in list(self.times))
        return min(count / max(HEALTHY_FPS * (end - start), 1e-9), 1.0)

    def longest_gap_s(self, start: float, end: float) -> float:
        """Return the longest wait between two frames."""
        moments = [start, *(at for at in list(self.times) if start <= at < end), end]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    def close(self) -> None:
        """End the thread."""
        self.ended.set()
        self._thread.join()


class Lab:
    """Starts an engine for one attack; use it in a `with` block.

    Args:
        sources: cameras in addition to the healthy one, URI by name.
        settings: `key=value`, in the form of `--set`.
        arguments: further words of the command line.
        model: in the form of `--model`.
        ready: cameras that must have published a frame before the base is measured.
    """

    def __init__(
        self,
        sources: Mapping[str, str] | None = None,
        *settings: str,
        arguments: Sequence[str] = (),
        model: str = "motion",
        ready: Sequence[str] = (),
    ) -> None:
        self.engine = Engine(sources or {}, settings, arguments, model)
        self._ready = ready

    def __enter__(self) -> Lab:
        self._watch = _Watch(self.engine.publish)
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._watch.close()
        self.engine.close()

    def _wait_until_ready(self) -> None:
        assert self._watch.first.wait(START_S), f"no frame of the healthy camera: {self.engine.errors()}"
        wait_until(lambda: all(self.engine.source(name)["published"] for name in self._ready), START_S)

    def play(self, attack: Callable[[Engine], Any], *, settle_s: float = SETTLE_S, memory_mb: float = MEMORY_MB) -> Any:
        """Run an attack and return the `Verdict`.

        Args:
            attack: the attack; its result is kept as `notes`.
            settle_s: how long memory, threads and descriptors may take to come back.
            memory_mb: tolerance for memory that has come back.
        """
        time.sleep(WATCH_S)
        base = usage(self.engine.pid)
        peak = _Peak(self.engine.pid)
        begun = time.monotonic()
        notes = attack(self.engine)
        over = time.monotonic()
        if over - begun < WATCH_S:
            time.sleep(WATCH_S - (over - begun))
        over, alive = time.monotonic(), self.engine.alive
        peak_mb = peak.stop()
        after = self._settled(base, settle_s, memory_mb) if alive else base
        share, gap_s = self._watch.share(begun, over), self._watch.longest_gap_s(begun, over)
        return self._end(alive, share, gap_s, base, peak_mb, after, notes)

    def _settled(self, base: Usage, settle_s: float, memory_mb: float) -> Usage:
        """Return what the engine holds once it is back at its base, or at the end of the time for it."""

        def is_back() -> bool:
            now = usage(self.engine.pid)
            within = now.descriptors <= base.descriptors + 2 and now.threads <= base.threads + 1
            return within and now.memory_mb <= base.memory_mb + memory_mb

        wait_until(is_back, settle_s, must=False)
        return usage(self.engine.pid)

    def _end(
        self, alive: bool, share: float, gap_s: float, base: Usage, peak_mb: float, after: Usage, notes: Any
    ) -> Verdict:
        engine = self.engine
        children = psutil.Process(engine.pid).children(recursive=True) if alive else []
        begun = time.monotonic()
        if alive:
            engine.process.send_signal(signal.SIGINT)
        try:
            output, _ = engine.process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            engine.process.kill()
            output, _ = engine.process.communicate()
        stop_s = time.monotonic() - begun
        lines = output.strip().splitlines()
        left = len(_outliving(children))
        code, summary = engine.process.returncode, json.loads(lines[-1]) if lines else {}
        errors = engine.errors()
        return Verdict(alive, share, gap_s, base, peak_mb, after, stop_s, code, summary, left, errors, notes)


def _outliving(children: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that still run a little later: the kernel takes its time for those that were killed."""

    def running() -> list[psutil.Process]:
        return [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]

    wait_until(lambda: not running(), AT_ONCE_S, must=False, every_s=0.02)
    return running()


class _Peak:
    """Samples the memory of a process tree on a thread."""

    def __init__(self, pid: int) -> None:
        self._pid, self._most, self._ended = pid, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(0.1):
            try:
                self._most = max(self._most, usage(self._pid).memory_mb)
            except psutil.Error:
                return

    def stop(self) -> float:
        """Return the most memory seen, in MB."""
        self._ended.set()
        self._thread.join()
        return self._most


def wait_until(holds: Callable[[], Any], limit_s: float, *, must: bool = True, every_s: float = 0.1) -> bool:
    """Wait until `holds` returns something true; return whether it did in time, or fail if it `must`."""
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline:
            assert not must, f"not within {limit_s} s"
            return False
        time.sleep(every_s)
    return True


def played(
    attack: Callable[[Engine], Any], make_lab: Callable[[], Lab], *, tries: int = 2, **arguments: Any
) -> Verdict:
    """Run an attack, and again if only the healthy camera suffered, because a busy machine may be the cause."""
    for _ in range(tries):
        with make_lab() as lab:
            verdict: Verdict = lab.play(attack, **arguments)
        if not verdict.alive or not set(verdict.faults()) & {"healthy camera", "freeze"}:
            break
    return verdict
