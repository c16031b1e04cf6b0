"""What a run can do besides detecting, all of it at once, and the people and programs that use it.

Zones, lines, rules, events with images and clips, recordings around events, limits of storage, an action, the page with
a viewer who also asks for events and counts, metrics of both processes with a scrape each second, and traces.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from tests.freshness.engine_process import free_port
from tests.freshness.growth import WARM_UP, Slope, slope_of
from tests.pipelines.web.viewers import Viewers

RULES = """[
{name: passing, kind: line, line: middle, severity: info},
{name: right, kind: presence, zone: right, for_s: 0.3, severity: notice, sources: [cam0], actions: [note]},
{name: away, kind: blind, for_s: 4, severity: alert, actions: [note]}]"""
RIGHT, MIDDLE = "[[0.5, 0], [1, 0], [1, 1], [0.5, 1]]", "[[0.5, 0], [0.5, 1]]"
QUESTIONS_EVERY = 5
RESIDENT = re.compile(r'^framewire_child_resident_bytes\{role="([^"]+)",source="[^"]*"\} (\S+)$', re.MULTILINE)
STATE = re.compile(r'^framewire_source_state\{source="([^"]+)",state="([^"]+)"\} 1$', re.MULTILINE)
WEB_RESIDENT = re.compile(r"^process_resident_memory_bytes (\S+)$", re.MULTILINE)
TIMEOUT_S = 20.0


class Everything:
    """Settings of a run in which everything is on, and after `start` a viewer and a scraper.

    Args:
        sources: names of the cameras.
        folder: for the log, clips and recordings.

    Attributes:
        settings: in the form of `--set`.
        asked: answers by kind and status.
        states: how often a scrape found a source in a state, as `source state`.
    """

    def __init__(self, sources: Sequence[str], folder: Path) -> None:
        self._sources = list(sources)
        self._ports = {name: free_port() for name in ("web", "web.metrics", "metrics")}
        record = f"{{folder: {folder / 'recordings'}, mode: events, before_s: 2, after_s: 2}}"
        command = json.dumps([sys.executable, "-c", "import sys; sys.stdin.read()"])
        self.settings = [
            f"rules={' '.join(RULES.split())}",
            f"actions={{note: {{kind: command, command: {command}, end: true}}}}",
            f"events.folder={folder / 'events'}",
            "events.clips={before_s: 2, after_s: 2}",
            "events.keep={max_gb: 0.05, min_free_gb: 0}",
            f"web={{address: '127.0.0.1:{self._ports['web']}', metrics: '127.0.0.1:{self._ports['web.metrics']}'}}",
            f"metrics.address=127.0.0.1:{self._ports['metrics']}",
            "tracing.endpoint=http://127.0.0.1:1/v1/traces",
            *(f"sources.{number}.record={record}" for number in range(len(sources))),
            *(f"sources.{number}.zones={{right: {{points: {RIGHT}}}}}" for number in range(len(sources))),
            *(f"sources.{number}.lines={{middle: {{points: {MIDDLE}}}}}" for number in range(len(sources))),
        ]
        self.asked: Counter[str] = Counter()
        self.states: Counter[str] = Counter()
        self._resident: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._use, daemon=True)

    def start(self) -> None:
        """Begin to look and to scrape."""
        self._viewers = Viewers(self._ports["web"], 1, self._sources)
        self._thread.start()

    def end(self) -> dict[str, Any]:
        """End it; return what the viewer got, what was answered, and how often sources were found in which state."""
        self._is_over.set()
        self._thread.join()
        return {"viewer": self._viewers.end(), "answers": dict(self.asked), "states": dict(self.states)}

    def slopes(self) -> tuple[Slope, ...]:
        """Return the growth of the memory of each kind of child process."""
        found = []
        for role, rows in sorted(self._resident.items()):
            table = np.array(rows)
            found.append(slope_of(f"{role} RSS (MB)", table[table[:, 0] >= WARM_UP * table[-1, 0]]))
        return tuple(found)

    def _use(self) -> None:
        began, turn = time.monotonic(), 0
        while not self._is_over.wait(1.0):
            second, turn = time.monotonic() - began, turn + 1
            page = self._get("metrics", "/metrics").decode()
            self.states.update(f"{source} {state}" for source, state in STATE.findall(page))
            sizes = defaultdict(list)
            for role, size in RESIDENT.findall(page):
                if float(size):
                    sizes[role].append(float(size) / 1e6)
            web = WEB_RESIDENT.search(self._get("web.metrics", "/metrics").decode())
            if web:
                sizes["web"] = [float(web[1]) / 1e6]
            for role, each in sizes.items():
                self._resident[role].append((second, sum(each) / len(each)))
            if turn % QUESTIONS_EVERY == 0:
                self._ask()

    def _ask(self) -> None:
        """Look at the page as a person does who clicks."""
        for path in ("system", "sources", f"counts?source={self._sources[0]}&place=middle&bucket=1m"):
            self._get("web", f"/api/v1/{path}")
        self._get("web", f"/api/v1/sources/{self._sources[0]}/still.jpg?w=320")
        body = self._get("web", "/api/v1/events")
        with_clip = [each for each in json.loads(body or b"{}").get("events", ()) if each.get("clip")]
        if with_clip:
            self._get("web", f"/api/v1/events/{with_clip[-1]['event_id']}/clip.mp4")

    def _get(self, server: str, path: str) -> bytes:
        kind = f"{server} {path.partition('?')[0].rpartition('/')[2]}"
        client = HTTPConnection("127.0.0.1", self._ports[server], timeout=TIMEOUT_S)
        try:
            client.request("GET", path)
            answer = client.getresponse()
            body = answer.read()
        except (OSError, HTTPException) as error:
            self.asked[f"{kind} {type(error).__name__}"] += 1
            return b""
        finally:
            client.close()
        self.asked[f"{kind} {answer.status}"] += 1
        return body if answer.status == 200 else b""
