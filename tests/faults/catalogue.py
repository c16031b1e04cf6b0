"""The faults: each inflicts one camera or network fault on a running engine, and returns the result."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.errors import StageError
from engine.sinks.camera_video.recordings import Recordings, record_plan
from engine.sinks.jsonl import JsonlWriter
from engine.sinks.video import VideoWriter
from engine.video.options import SourceOptions
from tests.faults.cameras import transport_stream
from tests.faults.lab import VICTIM, Lab, Outcome, examine
from tests.faults.proxy import FaultProxy
from tests.faults.udp_proxy import UdpProxy
from tests.media import encode_clip, mjpeg_camera, numbered_images
from tests.rtsp_server import RtspServer

Fault = Callable[[], Outcome]
SIZE = "320x240"
PART_FRAMES = 100
FILLER = "filler"


@dataclass
class Bench:
    """Servers and proxies of one fault, closed at its end."""

    stack: ExitStack = field(default_factory=ExitStack)

    def server(self, **arguments: Any) -> RtspServer:
        """Start a camera."""
        server = RtspServer(**{"size": SIZE, **arguments})
        self.stack.callback(server.kill)
        return server

    def proxy(self, server: RtspServer) -> FaultProxy:
        """Put a proxy before a camera."""
        proxy = FaultProxy(server.port)
        self.stack.callback(proxy.close)
        return proxy

    def healthy(self) -> str:
        """Start the healthy camera."""
        return self.server(pattern="ball").url


@contextmanager
def bench() -> Iterator[Bench]:
    """Yield a bench and close it afterwards."""
    held = Bench()
    with held.stack:
        yield held


def address(proxy: FaultProxy) -> str:
    """Return the address of a camera behind a proxy."""
    return f"rtsp://127.0.0.1:{proxy.port}/stream"


def nothing() -> None:
    """Do nothing."""


def server_away(seconds: float) -> Outcome:
    """The camera loses power and comes back."""
    with bench() as b:
        server, healthy = b.server(), b.healthy()
        lab = Lab(server.url, healthy)
        return examine(lab, server.kill, server.start, during_s=seconds)


def by_proxy(begin: Callable[[FaultProxy], None], end: Callable[[FaultProxy], None], seconds: float) -> Outcome:
    """Apply a fault to the network between camera and engine."""
    with bench() as b:
        proxy = b.proxy(b.server())
        lab = Lab(address(proxy), b.healthy())
        return examine(lab, lambda: begin(proxy), lambda: end(proxy), during_s=seconds)


def frozen(seconds: float = 8.0) -> Outcome:
    """The connection stays open without any data, for longer than the read limit."""
    return by_proxy(FaultProxy.freeze, FaultProxy.thaw, seconds)


def half_open(seconds: float = 7.0) -> Outcome:
    """The camera forgets the connection without closing it, as after a restart behind a firewall."""
    return by_proxy(FaultProxy.lose, lambda proxy: None, seconds)


def cut_and_refused(seconds: float = 4.0) -> Outcome:
    """The connection is closed, and so are new ones."""

    def begin(proxy: FaultProxy) -> None:
        proxy.refuse(True)
        proxy.cut()

    return by_proxy(begin, lambda proxy: proxy.refuse(False), seconds)


def jitter(seconds: float = 5.0) -> Outcome:
    """Each piece of the stream is up to 200 ms late."""

    def set_to(jitter_s: float) -> Callable[[FaultProxy], None]:
        return lambda proxy: setattr(proxy, "jitter_s", jitter_s)

    return by_proxy(set_to(0.2), set_to(0.0), seconds)


def throttled(seconds: float = 5.0) -> Outcome:
    """The network carries a fraction of what the camera sends."""

    def set_to(rate: float | None) -> Callable[[FaultProxy], None]:
        return lambda proxy: setattr(proxy, "bytes_per_s", rate)

    return by_proxy(set_to(4000.0), set_to(None), seconds)


def corrupt_bytes(seconds: float = 5.0) -> Outcome:
    """One byte in 5000 is replaced."""

    def set_to(part: float) -> Callable[[FaultProxy], None]:
        return lambda proxy: setattr(proxy, "corrupt", part)

    return by_proxy(set_to(1 / 5000), set_to(0.0), seconds)


def by_udp(seconds: float = 5.0, **trouble: float) -> Outcome:
    """The network loses or reorders UDP packets for a while."""
    with bench() as b:
        proxy = UdpProxy(b.server(gop=10).port)
        b.stack.callback(proxy.close)
        lab = Lab(f"rtsp://127.0.0.1:{proxy.port}/stream", b.healthy(), transport="udp")

        def begin() -> None:
            vars(proxy).update(trouble)

        outcome = examine(lab, begin, lambda: vars(proxy).update(dict.fromkeys(trouble, 0)), during_s=seconds)
        return replace(outcome, notes=(f"{proxy.lost} packets lost, {proxy.reordered} late by {proxy.late_by}",))


def disk_full_while_recording(seconds: float = 7.0) -> Outcome:
    """The disk that the victim's main stream is recorded to is full for a while."""
    with bench() as b, small_disk() as disk:
        sub, main = b.server(), b.server(size="640x480", kbps=300)
        plan = record_plan(main.url, VICTIM, disk, SourceOptions(), segment_s=1)
        recordings = Recordings({VICTIM: plan})
        told: list[str] = []

        def begin() -> None:
            fill(disk)

        def end() -> None:
            told.append(recordings.summary()[VICTIM]["reason"].replace(str(disk), "DISK"))
            (disk / FILLER).unlink()

        outcome = examine(Lab(sub.url, b.healthy(), recordings), begin, end, during_s=seconds, after_s=7.0)
        figures = recordings.summary()[VICTIM]
        told += [f"write errors: {figures['write_errors']}", f"files before and after: {figures['segments']}"]
        return replace(outcome, notes=tuple(told))


def disk_full_while_saving(seconds: float = 4.0) -> Outcome:
    """The disk for the annotated video and for the messages fills up, and stays full."""
    with bench() as b, small_disk() as disk:
        lab = Lab(
            b.server().url, b.healthy(), VideoWriter(disk / "out.mp4", per_source=True), JsonlWriter(disk / "out")
        )
        outcome = examine(lab, lambda: fill(disk), nothing, during_s=seconds)
        try:
            lab.pipeline.wait(0)
        except StageError as error:
            return replace(outcome, notes=(str(error).replace(str(disk), "DISK"),))
        return outcome


class NotPlayableError(Exception):
    """A fault cannot be run on this machine; says what is missing."""


@contextmanager
def small_disk(size: str = "2m") -> Iterator[Path]:
    """Mount an in-memory file system of a few megabytes."""
    with tempfile.TemporaryDirectory() as folder:
        line = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotPlayableError(f"a small disk cannot be mounted here ({done.stderr.strip()}): run as root")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> None:
    """Fill a disk completely."""
    with suppress(OSError), (disk / FILLER).open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def changed_server(**arguments: Any) -> Outcome:
    """The camera is reconfigured and comes back with another frame size."""
    with bench() as b:
        server = b.server()
        lab = Lab(server.url, b.healthy())

        def end() -> None:
            server.arguments = {**server.arguments, **arguments}
            server.start()

        return examine(lab, server.kill, end, during_s=1.0)


def change_in_stream(codecs: tuple[str, str], sizes: tuple[int, int]) -> Outcome:
    """The frame size changes within a connection."""
    with bench() as b, tempfile.TemporaryDirectory() as folder:
        clips = [_clip(Path(folder), part, codecs[part % 2], sizes[part % 2]) for part in range(8)]
        port = b.stack.enter_context(transport_stream(clips, PART_FRAMES / 25))
        lab = Lab(f"tcp://127.0.0.1:{port}", b.healthy())
        return examine(lab, nothing, nothing, during_s=5.0)


def _clip(folder: Path, part: int, codec: str, width: int) -> Path:
    """Return one part of a stream whose time continues."""
    return encode_clip(
        folder / f"{part}.ts",
        numbered_images(PART_FRAMES, width, width * 3 // 4, seed=part),
        codec=codec,
        options={"tune": "zerolatency", "preset": "ultrafast", "g": "25", "threads": "1"},
        first_pts=part * PART_FRAMES,
    )


def mid_gop_join() -> Outcome:
    """The engine joins a stream between two keyframes, which are 2 s apart."""
    with bench() as b:
        server = b.server(gop=50)
        viewer = b.stack.enter_context(_viewer(server.url))
        assert viewer.poll() is None
        lab = Lab(server.url, b.healthy())
        return examine(lab, nothing, nothing, during_s=2.0)


@contextmanager
def _viewer(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Keep a stream alive with another viewer, and wait until it is in the middle of a group of images."""
    import sys

    code = "import av, sys\nfor frame in av.open(sys.argv[1], options={'rtsp_transport': 'tcp'}).decode(video=0): pass"
    with subprocess.Popen([sys.executable, "-c", code, url]) as process:
        time.sleep(1.5)
        yield process
        process.kill()


def rate(fps: int) -> Outcome:
    """A camera with an unusual rate."""
    with bench() as b:
        lab = Lab(b.server(fps=fps, gop=fps).url, b.healthy())
        return examine(lab, nothing, nothing, during_s=4.0)


def unreachable(uri: str) -> Outcome:
    """An address that cannot work, next to one that does."""
    with bench() as b:
        return _hopeless(Lab(uri, b.healthy()), during_s=2.0)


def wrong_password() -> Outcome:
    """The camera refuses the password."""
    with bench() as b:
        server = b.server(user="admin:sesame")
        return _hopeless(Lab(server.url.replace("//", "//admin:wrong@"), b.healthy()), during_s=2.0)


def silent_server() -> Outcome:
    """The camera accepts the connection and sends nothing."""
    with bench() as b, socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        return _hopeless(Lab(f"rtsp://127.0.0.1:{port}/x", b.healthy(), open_timeout_s=2.0), during_s=6.0)


def _hopeless(lab: Lab, during_s: float) -> Outcome:
    """Run with a camera that never delivers anything."""
    lab.log.packets.clear()
    return examine(lab, nothing, nothing, during_s=during_s, recovery_limit_s=0.1, first_limit_s=1.5, since_start=True)


def hanging_reader() -> Outcome:
    """The reader process hangs in a native call, as in a dead DNS or a driver."""
    import psutil

    with bench() as b:
        lab = Lab(b.server().url, b.healthy())

        def begin() -> None:
            psutil.Process(lab.pipeline.sources[0]._reader._child.pid).suspend()  # type: ignore[attr-defined]

        return examine(lab, begin, nothing, during_s=8.0)


def clock_step(step_s: float) -> Outcome:
    """The wall clock of this machine jumps."""
    from engine.video import decode

    real, offset = time.time_ns, [0]
    with bench() as b:
        server = b.server()
        lab = Lab(server.url, b.healthy(), reader="thread")
        decode.time = _SteppedTime(lambda: real() + offset[0])  # type: ignore[attr-defined]
        try:
            return examine(lab, lambda: offset.__setitem__(0, int(step_s * 1e9)), nothing, during_s=3.0)
        finally:
            decode.time = time  # type: ignore[attr-defined]


class _SteppedTime:
    """The module `time` with another wall clock."""

    def __init__(self, time_ns: Callable[[], int]) -> None:
        self.time_ns = time_ns
        self.monotonic_ns = time.monotonic_ns


def engine_stopped(seconds: float = 4.0) -> Outcome:
    """SIGSTOP stops the engine and SIGCONT continues it."""
    with bench() as b:
        lab = Lab(b.server().url, b.healthy())
        line = f"kill -STOP {os.getpid()}; sleep {seconds}; kill -CONT {os.getpid()}"

        def begin() -> None:
            subprocess.run(["sh", "-c", line], check=True)

        return examine(lab, begin, nothing, during_s=0.0)


def mjpeg_freeze() -> Outcome:
    """An MJPEG camera over HTTP freezes for longer than the read limit."""
    with bench() as b, mjpeg_camera(numbered_images(50), fps=25) as camera:
        lab = Lab(camera.url, b.healthy())
        return examine(lab, camera.frozen.set, camera.frozen.clear, during_s=8.0)


FAULTS: Mapping[str, Fault] = {
    "server killed, back after 1 s": lambda: server_away(1),
    "server killed, back after 10 s": lambda: server_away(10),
    "server killed, back after 60 s": lambda: server_away(60),
    "connection cut and refused for 4 s": cut_and_refused,
    "connection frozen for 1 s": lambda: frozen(1),
    "connection frozen for 8 s": frozen,
    "half-open TCP": half_open,
    "30 % packet loss on UDP": lambda: by_udp(loss=0.3),
    "10 % of packets reordered on UDP": lambda: by_udp(late=0.1),
    "200 ms jitter": jitter,
    "throttled to 4 kB/s": throttled,
    "1 byte in 5000 corrupt": corrupt_bytes,
    "resolution change by restart": lambda: changed_server(size="640x480"),
    "resolution change in the stream": lambda: change_in_stream(("libx264", "libx264"), (320, 640)),
    "H.264 to H.265 by restart": lambda: changed_server(codec="h265"),
    "H.264 to H.265 in the stream": lambda: change_in_stream(("libx264", "libx265"), (320, 320)),
    "join between keyframes": mid_gop_join,
    "camera of 1 fps": lambda: rate(1),
    "camera of 120 fps": lambda: rate(120),
    "MJPEG camera frozen for 8 s": mjpeg_freeze,
    "host name unknown": lambda: unreachable("rtsp://no-such-host.invalid/stream"),
    "connection refused": lambda: unreachable("rtsp://127.0.0.1:9/stream"),
    "wrong password": wrong_password,
    "server accepts and says nothing": silent_server,
    "reader hangs in a native call": hanging_reader,
    "disk full while recording": disk_full_while_recording,
    "disk full while saving": disk_full_while_saving,
    "wall clock + 1 h": lambda: clock_step(3600),
    "wall clock - 1 h": lambda: clock_step(-3600),
    "engine stopped for 4 s (SIGSTOP)": engine_stopped,
}
