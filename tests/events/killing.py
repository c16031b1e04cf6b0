"""Kills a running engine again and again with SIGKILL, and compares what it sent with what it kept.

usage: python -m tests.events.killing [--kills 50]
"""

from __future__ import annotations

import argparse
import itertools
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml
import zmq

from engine.events.store.place import StorePlace
from engine.events.store.reader import EventFilter, EventReader
from engine.wire import AnalyticsMessage, EventMessage, decode
from engine.wire.messages import FrameMessage

CAMERA = "synthetic://?realtime=1&fps=20&width=320&height=240&objects=4&seed=5"
CONFIG = {
    "sources": [
        {
            "uri": CAMERA,
            "source_id": "gate",
            "zones": {"yard": {"points": [[0, 0], [0.6, 0], [0.6, 1], [0, 1]], "enter_s": 0.1}},
            "lines": {"door": {"points": [[0.5, 1], [0.5, 0]]}},
        }
    ],
    "detector": {"model": "motion"},
    "analytics": {"min_score": 0, "min_seen_s": 0.1},
    "rules": [
        {"name": "intruder", "kind": "presence", "zone": "yard", "for_s": 0.2, "severity": "alert"},
        {"name": "loiter", "kind": "loiter", "zone": "yard", "for_s": 1, "severity": "notice"},
        {"name": "entry", "kind": "line", "line": "door"},
        {"name": "crowd", "kind": "count", "zone": "yard", "at_least": 2, "severity": "alert"},
    ],
}
LATE_NS = 1_500_000_000
"""The log may lack this much before a kill: what it had not committed, and a message that outran it."""


@dataclass
class Told:
    """What one run sent.

    Attributes:
        begins: id of each episode or point, and when it was captured.
        ends: id and captured time of each end.
        last_utc_ns: capture time of the last message.
        totals: capture time and crossings of the analytics messages, in order.
    """

    begins: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    last_utc_ns: int = 0
    totals: list[tuple[int, int]] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)

    def take(self, message: object) -> None:
        if isinstance(message, AnalyticsMessage):
            total = sum(n for by_class in message.lines["door"].values() for n in by_class.values())
            total += sum(message.visits.values())
            self.totals.append((message.captured_utc_ns, total))
        if isinstance(message, EventMessage | AnalyticsMessage | FrameMessage):
            self.last_utc_ns = max(self.last_utc_ns, message.captured_utc_ns or 0)
        if isinstance(message, EventMessage) and isinstance(message.rule, str):
            if message.phase in ("begin", "point"):
                if message.event_id in self.begins:
                    self.twice.append(message.event_id)
                self.begins[message.event_id] = message.captured_utc_ns or 0
            elif message.phase == "end":
                self.ends[message.event_id] = message.captured_utc_ns or 0


class Killing:
    """An engine that is started, listened to, and killed.

    Args:
        folder: for the log, the totals, and the socket.
        store: address of a server for the rows.
    """

    def __init__(self, folder: Path, store: str | None = None) -> None:
        self.place = StorePlace(folder / "events", store or "")
        self._address = f"ipc://{folder}/out"
        self._file = folder / "run.yaml"
        more = {
            "publish": {"address": self._address},
            "events": {"folder": str(folder / "events"), "store": store},
            "analytics": {**CONFIG["analytics"], "state": str(folder / "totals.json")},  # type: ignore[dict-item]
        }
        self._file.write_text(yaml.safe_dump({**CONFIG, **more}))
        self._log = folder / "log.txt"

    def run(self, seconds: float, number: int) -> Told:
        """Start the engine, listen for a time from its first frame on, end it by a signal; return what it sent."""
        context, told = zmq.Context(), Told()
        reader = context.socket(zmq.SUB)
        reader.subscribe(b"")
        reader.setsockopt(zmq.RCVHWM, 0)
        reader.connect(self._address)
        command = [sys.executable, "-m", "pipelines", "-q", "run", str(self._file), "--json"]
        with open(self._log, "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 60
            while time.monotonic() < end and process.poll() is None:
                if reader.poll(50):
                    before = told.last_utc_ns
                    told.take(decode(reader.recv_multipart()[1]))
                    if told.last_utc_ns and not before:
                        end = time.monotonic() + seconds
            assert told.last_utc_ns, f"the engine sent nothing: {self._log.read_text()[-2000:]}"
            process.send_signal(number)
            process.wait(30)
            while reader.poll(200):
                told.take(decode(reader.recv_multipart()[1]))
        finally:
            process.kill()
            process.wait()
            context.destroy(linger=0)
        return told

    def check(self, runs: list[Told], *, killed: int) -> dict[str, float]:
        """Compare the log with what the runs sent; the first `killed` of them were killed, the last one stopped."""
        with EventReader(self.place) as reader:
            kept = {event.event_id: event for event in reader.events()}
            left = list(reader.events(EventFilter(is_open=True)))
        assert left == [], [event.event_id for event in left]
        begins = [event_id for told in runs for event_id in told.begins]
        assert len(begins) == len(set(begins))
        assert not [event_id for told in runs for event_id in told.twice]
        cut, latest_s = 0, 0.0
        for number, told in enumerate(runs):
            sure_ns = told.last_utc_ns - LATE_NS if number < killed else told.last_utc_ns
            missing = [
                event_id for event_id, utc_ns in told.begins.items() if utc_ns <= sure_ns and event_id not in kept
            ]
            assert missing == [], (number, missing)
            for event_id, utc_ns in told.begins.items():
                if event_id not in kept:
                    continue
                event = kept[event_id]
                assert event.ended_utc_ns is not None
                if event.reason == "engine_killed":
                    cut += 1
                    assert number < killed
                    assert event_id not in told.ends or told.ends[event_id] > sure_ns
                    late_s = (told.last_utc_ns - event.ended_utc_ns) / 1e9
                    assert abs(late_s) <= LATE_NS / 1e9 or utc_ns > sure_ns, (number, event_id, late_s)
                    latest_s = max(latest_s, late_s)
                elif event_id in told.ends and told.ends[event_id] <= sure_ns:
                    assert event.phase == "end"
        for before, after in itertools.pairwise(runs):
            sure = [n for utc_ns, n in before.totals if utc_ns <= before.last_utc_ns - LATE_NS]
            if sure and after.totals:
                assert after.totals[0][1] >= sure[-1], (before.totals[-5:], after.totals[:3])
        found = {"kills": killed, "events": len(kept), "told": len(begins), "cut off": cut}
        return {**found, "ended at most s before the last message": round(latest_s, 3)}


def killed_often(folder: Path, kills: int, seed: int, store: str | None = None) -> dict[str, float]:
    """Kill an engine this many times at random moments, then stop one normally; return the comparison."""
    chance, killing = random.Random(seed), Killing(folder, store)
    runs = [killing.run(chance.uniform(1.0, 4.0), signal.SIGKILL) for _ in range(kills)]
    runs.append(killing.run(1.0, signal.SIGTERM))
    return killing.check(runs, killed=kills)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="k") as name:
        print(killed_often(Path(name), given.kills, 0))
