"""The API of the past: rules asked about it, tracks, dwell, heat, deleting; users and the audit; streams."""

from __future__ import annotations

import csv
import io
import json
import re
import struct
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.analytics.heat import COLUMNS, ROWS
from engine.clock import NS_PER_S
from engine.events.store.rows import GapRow, SourceRunRow
from pipelines.config.scene import RuleConfig
from pipelines.web.access import Accounts, Audit
from pipelines.web.page.rules import RuleEdit, ScheduleEdit
from pipelines.web.page.streams import Blind, blind_times
from tests.pipelines.web.page.site import PATIENCE_S, Site, wait_for
from tests.pipelines.web.page.test_history import RULES

PASSWORD = "correct horse battery"
CROSSED = {"name": "passing", "kind": "line", "line": "middle"}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An engine that keeps its events, with users."""
    folder = tmp_path_factory.mktemp("past")
    accounts = Accounts(folder / "users.sqlite")
    accounts.add_user("anna", PASSWORD, "admin")
    token = accounts.add_token("test", "admin")
    accounts.close()
    places = ["--line", "cam.middle=0.5,0.0,0.5,1.0", "--zone", "cam.all=0.02,0.02,0.98,0.02,0.98,0.98,0.02,0.98"]
    places += ["--zone", "cam.half=0.02,0.02,0.5,0.02,0.5,0.98,0.02,0.98"]
    places += ["--tracker", "tests.pipelines.web.page.truth:RestlessTracker"]
    settings = [f"web.users={folder / 'users.sqlite'}", f"events.folder={folder / 'log'}", f"rules={RULES}"]
    with Site(*places, *(word for each in settings for word in ("--set", each)), token=token) as made:
        wait_for(lambda: made.get("events?rule=passing")[1]["events"], "the first crossing")
        yield made


def as_user(site: Site, name: str, role: str, sources: list[str] | None = None) -> dict[str, str]:
    """Return the headers of a new token."""
    status, _, made = site.ask("POST", "/api/v1/tokens", {"name": name, "role": role, "sources": sources})
    assert status == 200, made
    return {"Authorization": f"Bearer {made['token']}"}


def span(seconds: int = 3600) -> str:
    return f"from={int((time.time() - seconds) * 1e9)}&to={int(time.time() * 1e9)}"


def test_rules_asked_about_the_past_find_what_the_engines_own_found(kept: Site) -> None:
    """E7: up to the paths that are not finished yet."""

    def both() -> tuple[int, int]:
        body = {"rules": [CROSSED], "from": int((time.time() - 3600) * 1e9), "to": int(time.time() * 1e9)}
        status, _, found = kept.ask("POST", "/api/v1/rules/test", body)
        assert status == 200, found
        assert found["total"] == len(found["events"])
        assert {event["rule"] for event in found["events"]} <= {"passing"}
        return found["rules"]["passing"]["would"], found["rules"]["passing"]["did"]

    would, did = wait_for(lambda: [b for b in [both()] if b[0] >= 2], "finished paths")[0]
    assert 0 <= did - would <= 2


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"rules": [{**CROSSED, "line": "nowhere"}]}, "nowhere"),
        ({"rules": [{**CROSSED, "kind": "os:system"}]}, "os:system"),
        ({"rules": []}, "rules"),
        ({"to": 1}, "31 days"),
        ({"rules": [{**CROSSED, "parameters": {"a": 1}}]}, "parameters"),
    ],
    ids=str,
)
def test_rules_that_cannot_be_asked_are_refused(kept: Site, change: dict[str, Any], key: str) -> None:
    body = {"rules": [CROSSED], "from": int((time.time() - 60) * 1e9), "to": int(time.time() * 1e9), **change}
    status, _, found = kept.ask("POST", "/api/v1/rules/test", body)
    assert (status, key in found["error"]) == (422, True), found


def test_rules_of_the_api_have_the_keys_and_bounds_of_the_configuration() -> None:
    configured = RuleConfig.model_json_schema()["properties"]
    (schema,), parts = msgspec.json.schema_components([RuleEdit], ref_template="{name}")
    own = parts[schema["$ref"]]["properties"]
    assert own.keys() == configured.keys()
    for name, key in configured.items():
        bounds = [key, *key.get("anyOf", ())]
        for word in ("minimum", "maximum", "exclusiveMinimum"):
            known = [each[word] for each in bounds if word in each]
            mine = [each[word] for each in own[name].get("anyOf", [own[name]]) if word in each]
            assert mine == known, (name, word)
    assert {field.encode_name for field in msgspec.structs.fields(ScheduleEdit)} == {"days", "from", "to"}


def test_actions_are_held_back_for_a_while(kept: Site) -> None:
    viewer = as_user(kept, "snoozer", "viewer")
    assert kept.ask("POST", "/api/v1/snooze", {"source": "cam", "for_s": 60}, viewer)[0] == 403
    status, _, found = kept.ask("POST", "/api/v1/snooze", {"source": "cam", "for_s": 60})
    assert (status, [each["source"] for each in found]) == (200, ["cam"])
    assert wait_for(lambda: kept.get("rules")[1]["snoozes"], "the snooze")[0]["source"] == "cam"
    assert kept.ask("POST", "/api/v1/snooze", {"source": "cam", "for_s": 0})[2] == []
    assert kept.ask("POST", "/api/v1/snooze", {"source": "nobody", "for_s": 5})[0] == 422
    assert kept.ask("POST", "/api/v1/snooze", {"source": "cam", "for_s": -5})[0] == 422


def test_paths_dwell_and_heat_are_those_of_what_was_seen(kept: Site) -> None:
    found = wait_for(lambda: [f for f in [kept.get(f"tracks?source=cam&{span()}")[1]] if f["tracks"]], "paths")[0]
    assert found["is_whole"]
    track = found["tracks"][0]
    assert track["class_name"] in ("person", "car", "dog")
    assert all(0 <= value <= 1 for point in track["points"] for value in point[1:])
    assert [point[0] for point in track["points"]] == sorted(point[0] for point in track["points"])
    dwell = wait_for(lambda: [d for d in [kept.get("dwell?source=cam&place=half")[1]] if d["mean_s"]], "a visit")[0]
    assert dwell["median_s"] <= dwell["p90_s"] <= dwell["longest_s"]
    visits = list(csv.DictReader(io.StringIO(kept.get("dwell?source=cam&place=half&format=csv")[1].decode())))
    assert len(visits) >= dwell["visits"] == len(dwell["newest"])
    rows = wait_for(lambda: kept.get("occupancy?source=cam&place=all")[1], "a minute of occupancy")
    assert rows[0]["most"] >= 1
    grid = kept.get("heat?source=cam")[1]["rows"]
    assert (len(grid), len(grid[0])) == (ROWS, COLUMNS)
    lasted = sum(each["points"][-1][0] for each in kept.get(f"tracks?source=cam&{span()}")[1]["tracks"])
    assert 0.5 * lasted < sum(map(sum, grid)) + 1 < 2 * lasted + 2
    png = kept.get("heat?source=cam&format=png")[1]
    assert struct.unpack(">II", png[16:24]) == (COLUMNS, ROWS)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("tracks?source=nobody2&from=0&to=1", 200),
        ("tracks?source=cam&from=0&to=99999999999999999", 422),
        ("heat?source=cam&format=gif", 422),
        ("dwell?source=cam&path=/etc", 422),
        ("recordings/cam?from=0&to=999999999999999999", 422),
        ("recordings/nobody?from=0&to=1", 404),
        ("recordings/cam/play?from=0&to=1", 404),
        ("sources/cam/mjpeg?fps=100", 422),
    ],
)
def test_what_cannot_be_asked_is_a_clear_error(kept: Site, path: str, status: int) -> None:
    found, body = kept.get(path)
    assert found == status
    assert status == 200 or body["error"]


def test_a_source_that_is_not_recorded_says_so_and_when_it_was_not_seen(kept: Site) -> None:
    found = kept.get(f"recordings/cam?{span()}")[1]
    assert (found["is_recorded"], found["pieces"]) == (False, [])
    assert found["blind"][0]["cause"] == "off"  # an hour ago, no engine ran
    assert found["blind"][-1]["to"] < time.time() * 1e9 - 1


def test_blind_times_are_gaps_and_the_time_between_runs() -> None:
    run = SourceRunRow("e", 1, "cam", 100, 200, 0, "engine_stopped")
    later = SourceRunRow("e", 2, "cam", 300, 390, 0)
    gaps = [GapRow("cam", 150, 160, "e", 1, "stalled"), GapRow("cam", 350, None, "e", 2, "offline")]
    found = blind_times([later, run], gaps, 50, 400)
    assert found == [
        Blind(50, 100, "off"),
        Blind(150, 160, "stalled"),
        Blind(200, 300, "off"),
        Blind(350, 400, "offline"),
    ]


def test_deleting_needs_an_admin_and_its_own_confirmation(kept: Site) -> None:
    operator = as_user(kept, "deleter", "operator")
    event = kept.get("events?rule=passing")[1]["events"][-1]
    path = f"/api/v1/events/{event['event_id']}"
    assert kept.ask("DELETE", path, headers=operator)[0] == 403
    planned = kept.ask("DELETE", path)[2]
    assert (planned["events"], bool(planned["token"])) == (1, True)
    assert kept.ask("GET", path)[0] == 200
    wish = {"source": "cam", "from": 0, "to": event["began_utc_ns"] + 1}
    assert kept.ask("POST", "/api/v1/delete", {**wish, "token": planned["token"]})[0] == 409  # of something else
    planned = kept.ask("DELETE", path)[2]
    assert kept.ask("DELETE", f"{path}?token={planned['token']}")[2]["token"] is None
    assert kept.ask("GET", path)[0] == 404
    assert kept.ask("DELETE", f"{path}?token={planned['token']}")[0] in (404, 409)
    planned = kept.ask("POST", "/api/v1/delete", wish)[2]
    done = kept.ask("POST", "/api/v1/delete", {**wish, "token": planned["token"]})[2]
    assert done["token"] is None
    assert kept.get(f"events?source=cam&to={wish['to']}")[1]["events"] == []
    actions = [entry["action"] for entry in kept.get("audit")[1]["entries"]]
    assert actions.count("deleted") == 2


def test_users_and_tokens_are_added_changed_and_removed_by_admins(kept: Site) -> None:
    new = {"name": "otto", "password": PASSWORD, "role": "viewer", "sources": ["yard"]}
    viewer = as_user(kept, "looker", "viewer", ["yard"])
    for method, path in (("GET", "users"), ("POST", "users"), ("POST", "tokens"), ("GET", "audit")):
        assert kept.ask(method, f"/api/v1/{path}", new if method == "POST" else None, viewer)[0] == 403
    assert kept.get("rules")[0] == 200
    assert kept.ask("GET", "/api/v1/rules", headers=viewer)[0] == 403  # rules concern sources that it may not see
    assert kept.ask("GET", "/api/v1/tracks?source=cam", headers=viewer)[0] == 404
    assert kept.ask("POST", "/api/v1/users", {**new, "password": "short"})[0] == 422
    found = kept.ask("POST", "/api/v1/users", new)[2]
    assert {"name": "otto", "role": "viewer", "sources": ["yard"]} in found["users"]
    assert kept.ask("POST", "/api/v1/users", new)[0] == 422
    found = kept.ask("PUT", "/api/v1/users/otto", {"role": "operator", "sources": None})[2]
    assert {"name": "otto", "role": "operator", "sources": None} in found["users"]
    status, _, refused = kept.ask("PUT", "/api/v1/users/anna", {"role": "viewer"})
    assert (status, "last admin" in refused["error"]) == (422, True)
    assert kept.ask("DELETE", "/api/v1/users/anna")[0] == 422
    assert "otto" not in [user["name"] for user in kept.ask("DELETE", "/api/v1/users/otto")[2]["users"]]
    assert kept.ask("DELETE", "/api/v1/tokens/looker")[0] == 200
    assert kept.ask("GET", "/api/v1/me", headers=viewer)[2]["login"]
    page = kept.get("audit?limit=500")[1]
    told = [(entry["action"], entry["what"]) for entry in page["entries"]]
    assert {("user added", "otto"), ("user changed", "otto"), ("user removed", "otto")} <= set(told)
    assert page["stored"]
    assert PASSWORD not in json.dumps(page)
    older = kept.get(f"audit?before={page['entries'][0]['utc_ns']}&limit=1")[1]["entries"]
    assert older == page["entries"][1:2]


def test_the_audit_is_bounded_and_survives_damage(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(path, max_bytes=2000)
    for number in range(50):
        audit.write("anna", "admin", "::1", "places", str(number), {"password": "x" * 20_000 if number == 49 else 1})
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) <= 4500
    assert path.stat().st_mode & 0o077 == 0
    with path.open("ab") as file:
        file.write(b'{"utc_ns": 1, "na\n')
    found = Audit(path).read(10)
    assert [entry.what for entry in found] == [str(number) for number in range(49, 39, -1)]
    assert found[0].detail == "too large to be stored here"


def read_until(site: Site, path: str, enough: bytes, count: int = 2) -> tuple[int, str, bytes]:
    """Return status, type and the beginning of an answer that continues."""
    client = HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE_S)
    try:
        client.request("GET", f"/api/v1/{path}", headers={"Authorization": f"Bearer {site.token}"})
        answer = client.getresponse()
        found = b""
        while found.count(enough) < count and (data := answer.read1(65536)):
            found += data
        return answer.status, answer.headers["content-type"], found
    finally:
        client.close()


def test_pictures_go_on_as_mjpeg_while_somebody_reads(kept: Site) -> None:
    status, kind, found = read_until(kept, "sources/cam/mjpeg?w=320", b"--framewire")
    assert (status, kind) == (200, "multipart/x-mixed-replace; boundary=framewire")
    size = int(re.search(rb"Content-Length: (\d+)", found)[1])  # type: ignore[index]
    begin = found.index(b"\r\n\r\n") + 4
    assert found[begin : begin + 2] == b"\xff\xd8"
    assert found[begin + size : begin + size + 2] == b"\r\n"
    wait_for(lambda: not [each for each in kept.get("system")[1]["watched"] if "picture" in each], "nobody watching")


def test_events_are_sent_as_they_happen(kept: Site) -> None:
    status, kind, found = read_until(kept, "events/stream", b"\ndata: ")
    assert (status, kind.partition(";")[0]) == (200, "text/event-stream")
    lines = [line for line in found.decode().splitlines() if line.startswith("data: ")]
    assert json.loads(lines[0].removeprefix("data: "))["schema"].startswith("framewire.event/")


def test_nobody_plays_more_than_a_day(kept: Site) -> None:
    day = 86_400 * NS_PER_S
    assert kept.get(f"recordings/cam/play?from=0&to={day}")[0] == 422
