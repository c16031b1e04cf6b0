"""What a person does on the pages of rules, users and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.web.access import Accounts
from tests.pipelines.web.page.browsing import Page
from tests.pipelines.web.page.site import SCENE, Site, wait_for

pytestmark = pytest.mark.browser
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An engine with a configuration file, users and an event log."""
    folder = tmp_path_factory.mktemp("site")
    accounts = Accounts(folder / "users.sqlite")
    accounts.add_user("anna", PASSWORD, "admin")
    token = accounts.add_token("test", "admin")
    accounts.close()
    source = {"uri": SCENE, "source_id": "cam", "lines": {"middle": {"points": [[0.5, 0], [0.5, 1]]}}}
    config = {
        "sources": [source],
        "rules": [{"name": "passing", "kind": "line", "line": "middle"}],
        "events": {"folder": str(folder / "log")},
        "web": {"users": str(folder / "users.sqlite")},
    }
    (folder / "gate.yaml").write_text(yaml.safe_dump(config))
    tracker = ["--tracker", "tests.pipelines.web.page.truth:RestlessTracker"]
    with Site(str(folder / "gate.yaml"), *tracker, sources={}, token=token) as made:
        wait_for(lambda: made.get("events?rule=passing")[1]["events"], "the first crossing")
        yield made


def opened(browser: Any, site: Site, path: str, **options: Any) -> Page:
    headers = {"Authorization": f"Bearer {site.token}"}
    return Page(browser, site.url, path, extra_http_headers=headers, **options)


def test_a_rule_is_made_tested_on_the_past_saved_and_switched_off(kept: Site, browser: Any) -> None:
    with opened(browser, kept, "#/rules") as page:
        page.get_by_text("gate.edits.json").wait_for()
        page.get_by_role("button", name="+ Rule").click()
        page.get_by_label("Kind").select_option("line")
        page.get_by_label("Line *").select_option("middle")
        page.get_by_label("Severity").select_option("notice")
        page.get_by_role("button", name="Test on the last").click()
        page.get_by_text("This rule would have raised").wait_for()
        page.get_by_role("button", name="Save").click()
        page.get_by_text("Saved. The rules count from now on.").wait_for()
        wait_for(lambda: kept.get("events?rule=rule1")[1]["events"], "an event of the new rule")
        page.get_by_label("rule1 is on").uncheck()
        page.get_by_role("button", name="Save").click()
        wait_for(lambda: not kept.get("rules")[1]["rules"][1].get("enabled", True), "the rule to be off")
    saved = kept.get("rules")[1]["rules"][1]
    assert saved == {"name": "rule1", "kind": "line", "line": "middle", "severity": "notice", "enabled": False}


def test_a_rule_that_cannot_work_shows_why_and_another_edit_is_not_overwritten(kept: Site, browser: Any) -> None:
    before = kept.get("rules")[1]["rules"]
    with opened(browser, kept, "#/rules", expected="Failed to load resource") as page:
        page.get_by_role("button", name="+ Rule").click()
        page.get_by_role("button", name="Save").click()
        page.locator(".notice.bad").wait_for()
        assert "zone" in page.locator(".notice.bad").inner_text()
        assert kept.ask("PUT", "/api/v1/rules", {"rules": before[:1]})[0] == 200
        page.get_by_role("button", name="Save").click()
        page.get_by_role("button", name="Load them again").click()
        wait_for(lambda: page.locator(".entry").count() == 1, "the rules of somebody else")
    assert kept.get("rules")[1]["rules"] == before[:1]


def test_users_are_added_changed_and_removed_and_it_is_told(kept: Site, browser: Any) -> None:
    with opened(browser, kept, "#/users", expected="Failed to load resource") as page:
        page.on("dialog", lambda dialog: dialog.accept())
        form = page.locator("form").first
        form.get_by_label("Name").fill("otto")
        form.get_by_label("Password").fill(PASSWORD)
        form.get_by_label("All").uncheck()
        form.get_by_label("cam").check()
        form.get_by_role("button", name="Add user").click()
        page.get_by_text("otto was added.").wait_for()
        page.get_by_label("Role of otto").select_option("operator")
        page.get_by_text("otto was changed.").wait_for()
        assert {"name": "otto", "role": "operator", "sources": ["cam"]} in kept.get("users")[1]["users"]
        page.get_by_label("Role of anna").select_option("viewer")
        page.get_by_text("anna is the last admin").wait_for()
        tokens = page.locator("form").nth(1)
        tokens.get_by_label("Name").fill("lamp")
        tokens.get_by_role("button", name="Make token").click()
        token = page.locator("code").inner_text()
        assert kept.ask("GET", "/api/v1/me", headers={"Authorization": f"Bearer {token}"})[2]["name"] == "lamp"
        page.get_by_role("button", name="Remove otto").click()
        page.get_by_text("user removed otto").wait_for()
        page.get_by_text("user added otto").wait_for()


def test_a_ground_plane_is_measured_and_kept(kept: Site, browser: Any) -> None:
    with opened(browser, kept, "#/places/cam") as page:
        page.get_by_role("button", name="+ Zone").click()
        page.get_by_role("button", name="Measure the ground").click()
        page.get_by_label("From 1 to 3 (m)").fill("30")
        page.get_by_label("From 1 to 3 (m)").press("Tab")
        page.get_by_text("fit no quadrilateral").wait_for()
        for pair, metres in (("1 to 2", "8"), ("2 to 3", "6"), ("3 to 4", "8"), ("4 to 1", "6"), ("1 to 3", "10")):
            page.get_by_label(f"From {pair} (m)", exact=True).fill(metres)
            page.get_by_label(f"From {pair} (m)", exact=True).press("Tab")
        page.get_by_label("From 2 to 4 (m), to check").fill("10.5")
        page.get_by_label("From 2 to 4 (m), to check").press("Tab")
        page.get_by_text("2 to 4 is 10.00 m: 4.8 % off").wait_for()
        page.get_by_role("button", name="Measure the ground, point 1").focus()
        page.keyboard.press("Shift+ArrowLeft")
        page.get_by_role("button", name="Save").click()
        page.get_by_text("Saved. It counts from now on.").wait_for()
    ground = kept.get("sources/cam/places")[1]["zones"]["zone1"]["ground"]
    corners = ground["metres"]
    sides = [sum((a - b) ** 2 for a, b in zip(corners[i], corners[(i + 1) % 4], strict=True)) ** 0.5 for i in range(4)]
    assert sides == pytest.approx([8, 6, 8, 6], abs=0.01)
    assert ground["points"][0][0] == pytest.approx(0.34 - 0.02)


@pytest.mark.rtsp
@pytest.mark.timeout(300)
def test_a_recording_plays_from_a_click_with_its_boxes(
    serve: Callable[..., Any], numbered_camera_clip: Path, tmp_path: Path, browser: Any
) -> None:
    camera = serve(codec="h264", file=numbered_camera_clip, gop=20, kbps=2000)
    record = f"{{folder: {tmp_path / 'rec'}, segment_s: 5}}"
    tracker = ["--tracker", "tests.pipelines.web.page.truth:RestlessTracker"]
    settings = ["--set", f"events.folder={tmp_path / 'log'}", "--set", f"sources.0.record={record}"]
    with Site(*tracker, *settings, sources={"gate": camera.url}) as site:
        span = lambda: f"from={int((time.time() - 60) * 1e9)}&to={int(time.time() * 1e9)}"  # noqa: E731
        wait_for(lambda: _recorded_s(site.get(f"recordings/gate?{span()}")[1]) > 8, "8 s of recording")
        wait_for(lambda: site.get(f"tracks?source=gate&{span()}")[1]["tracks"], "paths")
        with Page(browser, site.url, "#/timeline/gate", expected="Failed to load resource") as page:
            page.get_by_label("Span").select_option("600")
            bar = page.locator(".lane.chosen .recorded").last
            bar.wait_for()
            box, lane = bar.bounding_box(), page.locator(".lane.chosen svg").bounding_box()
            page.mouse.click(box["x"] + box["width"] * 0.3, lane["y"] + 30)
            playing = (
                "(() => { const v = document.querySelector('video'); return v.readyState > 2 && v.currentTime; })()"
            )
            wait_for(lambda: page.evaluate(playing), "playing")
            before = page.evaluate(playing)
            wait_for(lambda: page.evaluate(playing) > before + 0.5, "going on")
            wait_for(lambda: page.evaluate("(document.querySelector('.film canvas').drawn || []).length"), "boxes")
            page.locator(".strip").focus()
            page.keyboard.press("Space")
            wait_for(lambda: page.evaluate("document.querySelector('video').paused"), "pausing")


def _recorded_s(found: dict[str, Any]) -> float:
    return sum(end - begin for begin, end in found["pieces"]) / 1e9
