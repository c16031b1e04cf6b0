"""The WebSocket: images and boxes of one frame, on demand; bad and slow viewers affect no one else."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from engine.sources.synthetic import number_in_image
from engine.video.read_image import decode_image
from tests.imaging.markers import READABLE, correlation, scene
from tests.media import encode_clip
from tests.pipelines.web.page.site import PATIENCE_S, Site

HEADER = struct.Struct(">BBHIqq")
BOTH = {"cam": {"boxes": True, "jpeg": {"fps": 10, "w": 640}}}


@pytest.fixture
def viewer(site: Site) -> Iterator[ClientConnection]:
    with connect(f"ws://127.0.0.1:{site.port}/api/v1/live", max_size=None, compression=None) as made:
        yield made


def watch(viewer: ClientConnection, wishes: dict[str, Any]) -> None:
    viewer.send(json.dumps({"watch": wishes}))


def received(viewer: ClientConnection, until: Any) -> list[Any]:
    """Return messages up to the one that `until` accepts: texts as objects, images as bytes."""
    found: list[Any] = []
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        data = viewer.recv(timeout=PATIENCE_S)
        found.append(json.loads(data) if isinstance(data, str) else data)
        if until(found[-1]):
            return found
    raise AssertionError(f"it did not arrive in {PATIENCE_S} s")


def kinds(messages: list[Any]) -> set[str]:
    return {"jpeg" if isinstance(m, bytes) else m["schema"].split("/")[0] for m in messages}


def test_a_new_viewer_learns_the_state_of_every_source(viewer: ClientConnection) -> None:
    seen = received(viewer, lambda m: isinstance(m, dict) and m["schema"].startswith("framewire.heartbeat"))
    states = {m["source_id"]: m["state"] for m in seen if m["schema"].startswith("framewire.status")}
    assert states == {"cam": "live", "yard": "live"}
    assert not kinds(seen) & {"framewire.frame", "jpeg"}, "nothing was asked for"


def test_each_picture_comes_with_the_boxes_of_its_own_frame(viewer: ClientConnection) -> None:
    watch(viewer, BOTH)
    pictures: list[bytes] = []
    seen = received(viewer, lambda m: isinstance(m, bytes) and (pictures.append(m) or len(pictures) == 6))
    seen += received(viewer, lambda m: isinstance(m, dict) and m["schema"].startswith("framewire.frame"))
    frames = {m["frame_id"] for m in seen if isinstance(m, dict) and m["schema"].startswith("framewire.frame")}
    (index,) = [m["sources"] for m in seen if isinstance(m, dict) and m["schema"] == "index"]
    for picture in pictures:
        kind, _, source, epoch, frame_id, captured = HEADER.unpack_from(picture)
        assert (kind, source, epoch) == (1, index["cam"], 0)
        assert captured > 0
        image = decode_image(np.frombuffer(picture[HEADER.size :], np.uint8))
        assert number_in_image(image) == frame_id
    numbers = [HEADER.unpack_from(picture)[4] for picture in pictures]
    assert numbers == sorted(set(numbers))
    assert frames >= set(numbers[1:])


def test_what_is_no_longer_watched_stops(viewer: ClientConnection) -> None:
    watch(viewer, BOTH)
    received(viewer, lambda m: isinstance(m, bytes))
    watch(viewer, {})
    received(viewer, lambda m: isinstance(m, dict) and m["schema"] == "index")
    for _ in range(3):  # what was on its way arrives before this
        rest = received(viewer, lambda m: isinstance(m, dict) and m["schema"].startswith("framewire.heartbeat"))
    assert not kinds(rest) & {"framewire.frame", "jpeg"}


@pytest.mark.parametrize(
    "message",
    [
        "",
        "[]",
        "null",
        '{"watch": 1}',
        '{"watch": {"cam": {"jpeg": {"fps": 0}}}}',
        '{"watch": {}, "open": "/etc"}',
        "[" * 9000,
    ],
    ids=lambda message: message[:30],
)
def test_nonsense_ends_only_its_own_connection(site: Site, viewer: ClientConnection, message: str) -> None:
    viewer.send(message)
    with pytest.raises(ConnectionClosed) as closed:
        received(viewer, lambda _: False)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    assert site.get("sources")[0] == 200


def test_a_message_of_ten_megabytes_is_not_taken(site: Site, viewer: ClientConnection) -> None:
    with suppress(ConnectionClosed, OSError):
        viewer.send("x" * 10_000_000)
    with pytest.raises((ConnectionClosed, OSError)):
        received(viewer, lambda _: False)
    assert site.get("system")[1]["web_max_rss_mb"] < 200


def test_a_viewer_that_never_reads_costs_the_others_nothing(site: Site) -> None:
    address = f"ws://127.0.0.1:{site.port}/api/v1/live"
    lazily = connect(address, compression=None, max_queue=1, close_timeout=0.1)
    with lazily as lazy, connect(address, max_size=None) as other:
        watch(lazy, BOTH)
        watch(other, BOTH)
        pictures: list[int] = []

        def enough(message: Any) -> bool:
            if isinstance(message, bytes):
                pictures.append(HEADER.unpack_from(message)[4])
            return len(pictures) >= 20

        received(other, enough)
        assert pictures == sorted(pictures)
        assert pictures[-1] - pictures[0] <= 40, "it missed more than half"


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}])
def test_other_sites_and_hosts_cannot_connect(site: Site, headers: dict[str, str]) -> None:
    address = f"ws://127.0.0.1:{site.port}/api/v1/live"
    with pytest.raises((InvalidStatus, ConnectionClosed)), connect(address, additional_headers=headers) as viewer:
        viewer.recv(timeout=PATIENCE_S)


def test_live_pictures_and_stills_do_not_show_what_privacy_hides(tmp_path: Path) -> None:
    """A17: two cameras of people who carry a pattern, one of them with privacy."""
    clip = encode_clip(tmp_path / "walk.mp4", [scene(n) for n in range(16)], rate=10, options={"crf": "4"})
    words = ["--model", "tests.pipelines.web.page.truth:CoatDetector", "--set", "sources.1.privacy={mode: blur}"]
    words += [word for n in (0, 1) for key in ("loop", "realtime") for word in ("--set", f"sources.{n}.{key}=true")]
    found = {}
    with Site(*words, sources={"open": str(clip), "hidden": str(clip)}) as site:
        for name in ("open", "hidden"):
            status, _, still = site.ask("GET", f"/api/v1/sources/{name}/still.jpg?w=640")
            assert status == 200
            address = f"ws://127.0.0.1:{site.port}/api/v1/live"
            with connect(address, max_size=None, compression=None) as viewer:
                watch(viewer, {name: {"boxes": True, "video": True, "jpeg": {"fps": 10, "w": 640}}})
                seen = [received(viewer, lambda m: isinstance(m, bytes))[-1] for _ in range(12)]
            assert {message[0] for message in seen} == {1}, "video passes nowhere but as pictures"
            pictures = [decode_image(np.frombuffer(jpeg, np.uint8)) for jpeg in (still, *(m[24:] for m in seen))]
            found[name] = max(map(correlation, pictures))
    assert found["open"] > READABLE > found["hidden"]
