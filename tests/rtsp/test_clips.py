"""Clips from a real camera that paints the time into its frames: the first frame shown is the wanted one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import av
import pytest

from engine.clock import NS_PER_S
from engine.data import Run, SourceInfo, SourceStatus
from engine.events.media.cut import Clip, Wanted, cut
from engine.sinks.camera_video.record_process import RingOptions
from engine.sinks.camera_video.recordings import Recordings, record_plan
from engine.video.options import SourceOptions
from tests.freshness.pixel_clock import moment_us
from tests.rtsp_server import RtspServer

pytestmark = pytest.mark.rtsp
FPS = 25
FRAME_NS = NS_PER_S // FPS
TOLERANCE_NS = 2 * FRAME_NS  # one frame, and as much for a busy machine that paints late
BEFORE_NS = 5 * NS_PER_S
KINDS = ("continuous", "events")


class Site:
    """One camera with keyframes every 2 s, recorded all the time and around events."""

    def __init__(self, server: RtspServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        options = SourceOptions(backoff_s=0.2, backoff_max_s=0.4, read_timeout_s=2.0)
        self.recordings = Recordings(
            {
                "continuous": record_plan(server.url, "continuous", folder, options, segment_s=4.0),
                "events": record_plan(server.url, "events", folder, options, ring=RingOptions(8.0, 2.0)),
            }
        )
        self._is_over = threading.Event()
        self._ticker = threading.Thread(target=self._tick)

    def start(self) -> None:
        self.recordings.open(Run("test", 0, "model", ()))
        for name in KINDS:
            self.recordings.status(SourceStatus(SourceInfo(name, "rtsp://x", is_live=True), "connecting"))
        self._ticker.start()

    def _tick(self) -> None:
        while not self._is_over.wait(0.1):
            self.recordings.tick()

    def close(self) -> None:
        self._is_over.set()
        self._ticker.join()
        self.recordings.close()

    def wait_for(self, name: str, is_so: Callable[[dict[str, object]], bool]) -> None:
        deadline = time.monotonic() + 40
        while not is_so(figures := self.recordings.summary().get(name, {})):
            assert time.monotonic() < deadline, figures
            time.sleep(0.05)

    def clip_of(self, name: str, began_ns: int, ended_ns: int) -> Clip:
        """Cut a clip, waiting until the recording reaches its end."""
        deadline = time.monotonic() + 40
        wanted = Wanted(self.folder / name, began_ns - BEFORE_NS, ended_ns, self.folder / "clips" / name)
        while not (clip := cut(wanted)).is_final:
            assert time.monotonic() < deadline, clip
            time.sleep(0.2)
        return clip


@pytest.fixture(scope="module")
def camera(rtsp_available: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One camera for all tests, as a ring fills only with time."""
    server = RtspServer(pixel_clock=True, fps=FPS, gop=2 * FPS)
    made = Site(server, tmp_path_factory.mktemp("site"))
    made.start()
    yield made
    made.close()
    server.kill()


@pytest.fixture
def site(camera: Site) -> Site:
    """The camera, with a ring that reaches back far enough."""
    camera.wait_for("events", lambda r: r.get("state") == "ready" and float(str(r.get("ring_s", 0))) > 6)
    return camera


def painted(path: Path) -> list[int]:
    """Return the wall clock that each frame shows when a player plays the clip."""
    offset_ns = time.time_ns() - time.monotonic_ns()
    found = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            with suppress(av.error.InvalidDataError):  # a camera that is killed leaves half a frame
                found += [moment_us(frame.to_ndarray(format="bgr24")) for frame in packet.decode()]
    assert None not in found
    return [moment * 1000 + offset_ns for moment in found if moment is not None]


def test_a_clip_begins_and_ends_on_the_wanted_frame(site: Site) -> None:
    began_ns = time.time_ns()
    site.recordings.hold("events", 1.0)
    time.sleep(1.0)
    ended_ns = time.time_ns()
    for name in KINDS:
        clip = site.clip_of(name, began_ns, ended_ns)
        assert (clip.state, clip.reason, clip.sync) == ("exact", "", "rtcp"), name
        shown = painted(clip.paths[0])
        assert abs(shown[0] - (began_ns - BEFORE_NS)) <= TOLERANCE_NS, name
        assert abs(shown[-1] - ended_ns) <= TOLERANCE_NS, name
        assert len(shown) == pytest.approx(6 * FPS, abs=3), name
    site.wait_for("events", lambda figures: figures["state"] == "ready")
    assert sum(path.stat().st_size for path in (site.folder / "events").glob("*.mp4")) < 2_000_000


def test_a_gap_in_the_recording_is_told_with_its_length(site: Site) -> None:
    began_ns = time.time_ns()
    before = site.recordings.summary()["events"]["reconnects"]
    site.recordings.hold("events", 12.0)
    time.sleep(1.0)
    site.server.kill()
    time.sleep(4.0)
    site.server.start()
    site.wait_for("events", lambda figures: figures["state"] == "recording" and figures["reconnects"] != before)
    time.sleep(2.5)  # whoever joins second waits for a keyframe
    ended_ns = time.time_ns()
    for name in KINDS:
        clip = site.clip_of(name, began_ns, ended_ns)
        shown = painted(clip.paths[0])
        gap_ns = max(b - a for a, b in pairwise(shown))
        assert gap_ns > 4 * NS_PER_S
        assert clip.state == "partial", name
        assert clip.reason.startswith("no video for "), name
        assert abs(float(clip.reason.split()[3]) - gap_ns / NS_PER_S) < 0.15, (clip.reason, gap_ns)


def test_an_event_after_the_camera_has_died_still_has_what_came_before(site: Site) -> None:
    """A person who breaks a camera is visible only before that."""
    before = site.recordings.summary()["events"]["packets"]
    site.server.kill()
    died_ns = time.time_ns()
    site.wait_for("events", lambda figures: figures["state"] == "offline")
    site.recordings.hold("events", 0.5)
    site.wait_for("events", lambda figures: figures["packets"] != before)
    clip = cut(Wanted(site.folder / "events", died_ns - 4 * NS_PER_S, died_ns, site.folder / "clips" / "last"))
    shown = painted(clip.paths[0])
    assert abs(shown[0] - (died_ns - 4 * NS_PER_S)) <= TOLERANCE_NS
    assert died_ns - shown[-1] < NS_PER_S
    site.server.start()
