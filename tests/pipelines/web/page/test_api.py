"""The page's API over HTTP, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from engine.sources.synthetic import number_in_image
from engine.video.read_image import decode_image
from pipelines.web.page.process import NICE
from tests.pipelines.web.page.site import Site, wait_for
from tests.test_layout import CHECKOUT

STATIC = CHECKOUT / "pipelines" / "web" / "page" / "static"
ZONE = {"points": [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]}
LINE = {"points": [[0.5, 0.0], [0.5, 1.0]], "left_to_right": "in", "right_to_left": "out"}
MOST_BYTES = 150_000
VERBS = ("Return", "Replace", "Begin", "End", "Mark", "Add", "Remove", "Suppress", "Delete", "Send")


def test_the_sources_are_listed_with_state_and_figures(site: Site) -> None:
    status, sources = site.get("sources")
    assert status == 200
    assert {source["source_id"]: source["state"] for source in sources} == {"cam": "live", "yard": "live"}
    one = site.get("sources/cam")[1]
    assert (one["width"], one["height"]) == (640, 360)
    assert one["published"] > 0
    assert one["log"][-1]["state"] == "live"


def test_a_still_is_a_recent_frame_of_the_size_asked_for(site: Site) -> None:
    status, headers, jpeg = site.ask("GET", "/api/v1/sources/cam/still.jpg?w=640")
    assert (status, headers["content-type"], headers["cache-control"]) == (200, "image/jpeg", "no-store")
    image = decode_image(np.frombuffer(jpeg, np.uint8))
    assert image.shape == (360, 640, 3)
    later = decode_image(np.frombuffer(site.ask("GET", "/api/v1/sources/cam/still.jpg?w=640")[2], np.uint8))
    assert number_in_image(later) > number_in_image(image) >= 0
    small = site.ask("GET", "/api/v1/sources/cam/still.jpg?w=99")[2]
    assert decode_image(np.frombuffer(small, np.uint8)).shape[1] == 320


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("sources/nobody", 404),
        ("sources/nobody/still.jpg", 404),
        ("sources/cam/still.jpg?w=0", 422),
        ("sources/cam/still.jpg?w=x", 422),
        ("sources/..%2f..%2fetc%2fpasswd", 404),
        ("nothing", 404),
    ],
)
def test_what_is_not_there_is_a_clear_error(site: Site, path: str, status: int) -> None:
    found, body = site.get(path)
    assert found == status
    assert body["error"]


def test_zones_and_lines_are_saved_counted_and_versioned(site: Site) -> None:
    status, headers, before = site.ask("GET", "/api/v1/sources/yard/places")
    assert (status, headers["etag"]) == (200, f'"{before["version"]}"')
    match = {"If-Match": headers["etag"]}
    edit = {"zones": {"middle": ZONE}, "lines": {"door": LINE}}
    status, headers, after = site.ask("PUT", "/api/v1/sources/yard/places", edit, match)
    assert (status, after["zones"]["middle"]["points"], list(after["lines"])) == (200, ZONE["points"], ["door"])
    assert after["version"] != before["version"]
    wait_for(lambda: "middle" in site.get("sources/yard")[1]["zones"], "counting in the new zone")
    assert set(site.get("sources/yard")[1]["lines"]["door"]) == {"in", "out"}
    assert site.get("places")[1]["places"]["yard"]["lines"] == after["lines"]
    status, _, refused = site.ask("PUT", "/api/v1/sources/yard/places", edit, match)
    assert (status, "in the meantime" in refused["error"]) == (409, True)
    assert site.ask("PUT", "/api/v1/sources/yard/places", {"zones": {}, "lines": {}})[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 5000,
        {"zones": {"z": {"points": [[0, 0], [1, 1]]}}},
        {"zones": {"z": {"points": [[0, 0], [1, 0], [2, 1]]}}},
        {"zones": {"z": {"points": [[0, 0], [1, 1], [1, 0], [0, 1]]}}},
        {"zones": {"a/b": ZONE}},
        {"zones": {"z": {**ZONE, "enter_s": -1}}},
        {"zones": {"z": {**ZONE, "uri": "rtsp://evil.example"}}},
        {"lines": {"l": {**LINE, "left_to_right": "${HOME}"}}},
        {"lines": {"l": {**LINE, "classes": ["no such class"]}}},
        {"zones": {f"z{number}": ZONE for number in range(101)}},
        {"detector": {"model": "/etc/passwd"}},
    ],
    ids=lambda body: str(body)[:40],
)
def test_zones_that_cannot_work_are_refused_with_a_reason(site: Site, body: object) -> None:
    before = site.get("sources/cam/places")
    status, _, answer = site.ask("PUT", "/api/v1/sources/cam/places", body)
    assert (status, bool(answer["error"])) == (422, True)
    assert site.get("sources/cam/places") == before


def test_other_hosts_other_sites_and_large_bodies_are_refused(site: Site) -> None:
    path = "/api/v1/sources/cam/places"
    assert site.ask("GET", "/", headers={"Host": "evil.example"})[0] == 421
    assert site.ask("PUT", path, {}, {"Origin": "http://evil.example"})[0] == 403
    assert site.ask("PUT", path, {}, {"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert site.ask("PUT", path, b" " * 300_000)[0] == 413


def test_the_page_is_small_confined_and_cached_by_content(site: Site) -> None:
    status, headers, body = site.ask("GET", "/")
    assert (status, b"app.js" in body) == (200, True)
    assert "default-src 'self'" in headers["content-security-policy"]
    assert site.ask("GET", "/", headers={"If-None-Match": headers["etag"]})[0] == 304
    assert site.ask("GET", "/static/app.js")[0] == 200
    assert {site.ask("GET", f"/static/{path}")[0] for path in ("../app.py", "%2e%2e/app.py", "")} == {404}
    pages = re.findall(r'import\("./(\w+\.js)"\)', (STATIC / "app.js").read_text())
    assert len(pages) >= 9
    loaded = {page: sum(size for _, size in _loaded(page)) for page in pages}
    assert max(loaded.values()) <= MOST_BYTES, loaded


def _loaded(page: str) -> set[tuple[str, int]]:
    """Return name and size of every file that a German browser loads to show one page."""
    names, waiting = (
        set[str](),
        ["index.html", "style.css", "icon.svg", "vendor/icons.svg", "text/de.js", "app.js", page],
    )
    while waiting:
        name = waiting.pop()
        if name in names:
            continue
        names.add(name)
        if name == "rules.js":
            waiting.append("text/rules.de.js")
        if name == "vendor/uplot.js":
            waiting.append("vendor/uplot.css")
        if name.endswith(".js") and not name.startswith("text/"):
            text = (STATIC / name).read_text()
            found = re.findall(r'(?:from |import )"(\./[^"$]+\.js)"', text)
            if name != "app.js":
                found += re.findall(r'import\("(\./[^"$]+\.js)"\)', text)
            waiting += [str((Path(name).parent / each).as_posix()) for each in found]
    return {(name, (STATIC / name).stat().st_size) for name in names}


def test_third_party_modules_are_those_that_were_fetched() -> None:
    hashes = json.loads((STATIC / "vendor" / "hashes.json").read_text())
    assert {path.name for path in (STATIC / "vendor").iterdir()} == {*hashes, "hashes.json", "LICENSES.txt"}
    for name, known in hashes.items():
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == known["sha256"], name
        package, _, version = known["package"].rpartition("@")
        assert f"{package} {version}" in (STATIC / "vendor" / "LICENSES.txt").read_text()


def test_every_text_exists_in_every_language_and_every_text_used_exists() -> None:
    texts = {
        path.name: set(re.findall(r'"([a-z]+(?:\.[a-z_]+)*)":', path.read_text()))
        for path in (STATIC / "text").iterdir()
    }
    assert len(texts["en.js"]) > 20
    assert texts["de.js"] == texts["en.js"]
    assert texts["rules.de.js"] == texts["rules.en.js"]
    used: set[str] = set()
    for path in STATIC.iterdir():
        if path.name.endswith(".js"):
            used |= set(re.findall(r'\bt\("([a-z.]+)"', path.read_text()))
    assert used - texts["en.js"] - texts["rules.en.js"] == set()


def test_every_kind_of_rule_and_each_of_its_keys_has_a_text(site: Site) -> None:
    kinds = site.get("rules")[1]["kinds"]
    keys = {key for kind in kinds.values() for key in kind["properties"]}
    wanted = {f"{word}.{kind}" for kind in kinds for word in ("kind", "about")} | {f"key.{key}" for key in keys}
    text = (STATIC / "text" / "rules.en.js").read_text()
    assert [key for key in wanted if f'"{key}":' not in text] == []


def test_the_web_process_loads_no_video_and_no_model() -> None:
    code = "import sys, pipelines.web.page.process; print(*{n.split('.')[0] for n in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"av", "cv2", "onnxruntime", "openvino", "supervision", "scipy"} & set(done.stdout.split())


def test_the_api_describes_itself(site: Site) -> None:
    found = site.get("openapi.json")[1]
    assert found["openapi"] == "3.1.0"
    assert {"/api/v1/sources", "/api/v1/events", "/api/v1/query/crossings"} <= found["paths"].keys()
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(found)))
    assert named
    assert named <= found["components"]["schemas"].keys()
    operations = [each for path in found["paths"].values() for each in path.values()]
    assert all(each["summary"].split()[0] in VERBS for each in operations)
    words = {each["name"] for operation in operations for each in operation["parameters"]}
    assert not words & {"path", "url", "uri", "command", "ffmpeg", "file", "model"}


def test_the_system_is_described(site: Site) -> None:
    system = site.get("system")[1]
    assert system["is_connected"]
    assert system["sources"] == 2
    assert system["web_max_rss_mb"] > 1
    assert "detector" in system["models"]


def test_a_killed_web_process_comes_back_and_the_engine_does_not_notice(site: Site) -> None:
    before = site.get("system")[1]["web_pid"]
    assert psutil.Process(before).nice() == min(psutil.Process().nice() + NICE, 19), "the engine runs first"
    published = site.get("sources/cam")[1]["published"]
    os.kill(before, signal.SIGKILL)
    time.sleep(0.1)
    after = wait_for(lambda: site.get("system")[1]["web_pid"], "the next web process")
    assert after != before
    source = wait_for(
        lambda: [s for s in site.get("sources")[1] if s["source_id"] == "cam" and s["published"]], "state"
    )[0]
    assert (source["state"], source["stream_epoch"]) == ("live", 0)
    assert source["published"] > published
    assert site.process.poll() is None
