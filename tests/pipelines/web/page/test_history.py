"""Events, counts and questions about the past over HTTP, with a store on disk."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.video.read_image import decode_image
from pipelines.web.page.history import inside
from tests.pipelines.web.page.site import Site, wait_for

LINE = {"points": [[0.5, 0.0], [0.5, 1.0]]}
ZONE = {"points": [[0.02, 0.02], [0.98, 0.02], [0.98, 0.98], [0.02, 0.98]]}
RULES = (
    "[{name: passing, kind: line, line: middle, severity: alert}, {name: busy, kind: presence, zone: all, for_s: 0.5}]"
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An engine that keeps its events: a line in the middle, and a zone of almost everything."""
    folder = tmp_path_factory.mktemp("events")
    places = ["--line", "cam.middle=0.5,0.0,0.5,1.0", "--zone", "cam.all=0.02,0.02,0.98,0.02,0.98,0.98,0.02,0.98"]
    places += ["--tracker", "tests.pipelines.web.page.truth:RestlessTracker"]
    with Site(*places, "--set", f"events.folder={folder}", "--set", f"rules={RULES}") as made:
        wait_for(lambda: made.get("events?rule=passing")[1]["events"], "the first crossing")
        yield made


def test_events_are_listed_newest_first_with_filters(kept: Site) -> None:
    page = kept.get("events")[1]
    assert page["stored"]
    begins = [event["began_utc_ns"] for event in page["events"]]
    assert begins == sorted(begins, reverse=True)
    assert {event["rule"] for event in page["events"]} == {"passing", "busy"}
    assert {event["severity"] for event in kept.get("events?severity=alert")[1]["events"]} == {"alert"}
    assert kept.get("events?place=nowhere")[1]["events"] == []
    later = kept.get(f"events?from={begins[-1] + 1}&to={begins[0] + 1}")[1]["events"]
    assert [event["began_utc_ns"] for event in later if event["began_utc_ns"] <= begins[-1]] == []
    assert {event["began_utc_ns"] for event in later} >= set(begins) - {begins[-1]}


def test_one_event_has_its_reasons_and_its_image(kept: Site) -> None:
    event = kept.get("events?rule=passing")[1]["events"][0]
    found = wait_for(lambda: [e for e in [kept.get(f"events/{event['event_id']}")[1]] if e["snapshot"]], "the image")[0]
    assert found["why"]
    status, headers, jpeg = kept.ask("GET", f"/api/v1/events/{event['event_id']}/trigger.jpg")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    assert decode_image(np.frombuffer(jpeg, np.uint8)).shape == (360, 640, 3)


def test_reviewing_and_keeping_is_stored(kept: Site) -> None:
    path = f"/api/v1/events/{kept.get('events?rule=passing')[1]['events'][-1]['event_id']}"
    assert kept.ask("GET", path)[2]["reviewed"] is False
    assert kept.ask("POST", f"{path}/review")[2]["reviewed"] is True
    assert kept.ask("POST", f"{path}/keep")[2]["kept"] is True
    assert path.rsplit("/", 1)[1] in [event["event_id"] for event in kept.get("events?reviewed=true")[1]["events"]]
    assert kept.ask("POST", f"{path}/unreview")[2]["reviewed"] is False
    assert kept.get("events?reviewed=true")[1]["events"] == []


def test_counts_are_the_same_in_json_csv_and_the_stream(kept: Site) -> None:
    """E15, up to the second that the store may be behind."""

    def totals() -> tuple[int, int, int]:
        query = "counts?source=cam&place=middle&bucket=1m"
        periods = kept.get(query)[1]
        rows = list(csv.DictReader(io.StringIO(kept.get(f"{query}&format=csv")[1].decode())))
        in_json = sum(n for period in periods for by in period["counts"].values() for n in by.values())
        lines = kept.get("sources/cam")[1]["lines"]["middle"]
        return in_json, sum(int(row["count"]) for row in rows), sum(n for by in lines.values() for n in by.values())

    assert wait_for(lambda: [t for t in [totals()] if len(set(t)) == 1 and t[0]], "equal totals")


def test_a_line_that_never_existed_is_asked_about_the_past(kept: Site) -> None:
    """A question with the same line as the counting one finds what that one has counted."""
    begin, middle = int((time.time() - 3600) * 1e9), "sources/cam"

    def both() -> tuple[int, int]:
        counted = sum(n for by in kept.get(middle)[1]["lines"]["middle"].values() for n in by.values())
        body = {"source": "cam", "from": begin, "to": int(time.time() * 1e9), "line": LINE}
        status, _, found = kept.ask("POST", "/api/v1/query/crossings", body)
        assert status == 200, found
        assert sum(found["totals"].values()) == len(found["events"])
        return sum(found["totals"].values()), counted

    asked, counted = wait_for(lambda: [b for b in [both()] if b[0] >= 2], "paths of finished tracks")[0]
    assert asked <= counted
    body = {"source": "cam", "from": begin, "to": int(time.time() * 1e9), "zone": ZONE}
    assert kept.ask("POST", "/api/v1/query/visits", body)[2]["totals"]["visit"] >= 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("events?cursor=nonsense", 422),
        ("events?from=yesterday", 422),
        ("events?path=/etc/passwd", 422),
        ("events/nothing", 404),
        ("events/..%2f..%2fetc%2fpasswd/trigger.jpg", 404),
        ("counts?source=cam&place=middle&bucket=1m&from=0", 422),
        ("counts?source=cam", 422),
    ],
)
def test_what_cannot_be_asked_is_a_clear_error(kept: Site, path: str, status: int) -> None:
    found, body = kept.get(path)
    assert (found, bool(body["error"])) == (status, True)


@pytest.mark.parametrize(
    "change", [{"line": None}, {"zone": ZONE}, {"to": 0}, {"from": -1}, {"to": 1 << 61}, {"source": 5}, {"line": {}}]
)
def test_questions_that_cannot_work_are_refused(kept: Site, change: dict[str, object]) -> None:
    body = {"source": "cam", "from": 0, "to": 1, "line": LINE, **change}
    assert kept.ask("POST", "/api/v1/query/crossings", body)[0] == 422


def test_files_outside_the_folder_are_not_served(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "a.jpg").write_bytes(b"x")
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "log" / "link").symlink_to(tmp_path / "secret")
    assert inside(tmp_path / "log", "a.jpg") == (tmp_path / "log" / "a.jpg").resolve()
    assert [inside(tmp_path / "log", name) for name in ("../secret", "/etc/passwd", "link", "b.jpg", "")] == [None] * 5


def test_without_a_store_events_are_those_that_were_heard(site: Site) -> None:
    found = site.get("events")[1]
    assert (found["stored"], found["cursor"]) == (False, None)
    assert site.get("counts?source=cam&place=x")[0] == 404
    assert site.ask("POST", "/api/v1/events/x/review")[0] == 404
