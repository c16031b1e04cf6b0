"""What a person does in the browser: draws zones, reviews events, logs in; and accessibility."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.web.access import Accounts
from tests.pipelines.web.page.browsing import Page, axe
from tests.pipelines.web.page.site import Site, wait_for
from tests.pipelines.web.page.test_history import RULES

pytestmark = pytest.mark.browser
PASSWORD = "correct horse battery"
PAGES = ("live", "events", "counts", "timeline", "places", "rules", "cameras", "system", "users")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An engine that keeps its events, with users."""
    folder = tmp_path_factory.mktemp("site")
    accounts = Accounts(folder / "users.sqlite")
    accounts.add_user("anna", PASSWORD, "operator")
    accounts.add_user("vera", PASSWORD, "viewer", ["yard"])
    token = accounts.add_token("test", "admin")
    accounts.close()
    places = ["--line", "cam.middle=0.5,0.0,0.5,1.0", "--zone", "cam.all=0.02,0.02,0.98,0.02,0.98,0.98,0.02,0.98"]
    settings = [f"web.users={folder / 'users.sqlite'}", f"events.folder={folder / 'log'}", f"rules={RULES}"]
    with Site(*places, *(word for each in settings for word in ("--set", each)), token=token) as made:
        yield made


def log_in(page: Any, name: str, password: str = PASSWORD) -> None:
    page.fill("input[name=name]", name)
    page.fill("input[name=password]", password)
    page.click("button.primary")


def test_a_zone_and_a_line_are_drawn_by_mouse_and_keys_and_count_at_once(site: Site, browser: Any) -> None:
    """E6."""
    try:
        with Page(browser, site.url, "#/places/yard") as page:
            page.get_by_role("button", name="+ Zone").click()
            corner = page.get_by_role("button", name="zone1, point 1").bounding_box()
            page.mouse.move(corner["x"] + corner["width"] / 2, corner["y"] + corner["height"] / 2)
            page.mouse.down()
            page.mouse.move(corner["x"] - 100, corner["y"] - 60, steps=4)
            page.mouse.up()
            page.get_by_role("button", name="+ Line").click()
            page.get_by_role("button", name="line1, point 2").focus()
            for _ in range(5):
                page.keyboard.press("Shift+ArrowUp")
            page.get_by_role("button", name="Save").click()
            page.get_by_text("Saved. It counts from now on.").wait_for()
            wait_for(lambda: "zone1" in site.get("sources/yard")[1]["zones"], "counting")
            saved = site.get("sources/yard/places")[1]
            page.reload()
            page.get_by_role("button", name="zone1, point 1").wait_for()
        (x, y), line = saved["zones"]["zone1"]["points"][0], saved["lines"]["line1"]["points"]
        assert 0 < x < 0.28
        assert 0 < y < 0.38
        assert line[1] == [0.5, pytest.approx(0.3)]
    finally:
        site.ask("PUT", "/api/v1/sources/yard/places", {"zones": {}, "lines": {}})


def test_users_log_in_and_see_and_change_only_what_they_may(kept: Site, browser: Any) -> None:
    """E11, in part: the rest of it is in test_api.py and tests/pipelines/web/access."""
    with Page(browser, kept.url, expected="Failed to load resource") as page:
        log_in(page, "vera")
        page.locator(".tile[data-source=yard][data-shown]").wait_for()
        assert page.locator(".tile").count() == 1
        refused = page.evaluate(
            "fetch('api/v1/sources/yard/places', {method: 'PUT', body: '{}'}).then((answer) => answer.status)"
        )
        hidden = page.evaluate("fetch('api/v1/sources/cam/still.jpg').then((answer) => answer.status)")
        assert (refused, hidden) == (403, 404)
        cookies = page.context.cookies()
        assert [(c["httpOnly"], c["sameSite"]) for c in cookies] == [(True, "Strict")]
        page.get_by_role("button", name="Log out").click()
        page.locator("input[name=password]").wait_for()


def test_wrong_passwords_are_slowed_down(kept: Site) -> None:
    statuses = [
        kept.ask("POST", "/api/v1/login", {"name": "anna", "password": "wrong"}, {"Authorization": ""})[0]
        for _ in range(6)
    ]
    assert statuses == [401] * 5 + [429]


def test_an_event_appears_and_is_reviewed_by_keyboard(kept: Site, browser: Any) -> None:
    """E8, without the clip."""
    with Page(browser, kept.url, "#/events", extra_http_headers={"Authorization": f"Bearer {kept.token}"}) as page:
        page.locator(".row").first.wait_for()
        before = page.locator(".row").count()
        if before < 50:
            wait_for(lambda: page.locator(".row").count() > before, "the next event")
        first = page.locator(".row[aria-current]")
        chosen = first.inner_text()
        page.keyboard.press("j")
        wait_for(lambda: page.locator(".row[aria-current]").inner_text() != chosen, "the next row")
        page.keyboard.press("r")
        page.locator(".row.seen").first.wait_for()
        reviewed = kept.get("events?reviewed=true")[1]["events"]
        assert len(reviewed) == 1
        assert kept.get("events?reviewed=false")[1]["events"]


@pytest.mark.parametrize(
    ("scheme", "rules"),
    [("dark", "{}"), pytest.param("light", "{runOnly: ['color-contrast']}", id="light, its colours")],
)
def test_nothing_serious_keeps_people_from_using_it(kept: Site, browser: Any, scheme: str, rules: str) -> None:
    """E13: in the light scheme, nothing but the colours differs."""
    code = axe()
    options = {
        "color_scheme": scheme,
        "bypass_csp": True,
        "extra_http_headers": {"Authorization": f"Bearer {kept.token}"},
    }
    found = []
    with Page(browser, kept.url, **options) as page:
        for name in PAGES:
            page.goto(f"{kept.url}#/{name}")
            page.wait_for_selector("main h1")
            page.wait_for_timeout(700)
            page.evaluate(code)
            result = page.evaluate(f"axe.run(document, {{...{rules}, resultTypes: ['violations']}})")
            found += [
                (name, violation["id"], violation["nodes"][0]["html"][:120])
                for violation in result["violations"]
                if violation["impact"] in ("serious", "critical")
            ]
    assert found == []


def test_counts_say_that_the_past_needs_a_store_and_ask_for_none(site: Site, browser: Any) -> None:
    zone = {"points": [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]}
    try:
        assert site.ask("PUT", "/api/v1/sources/yard/places", {"zones": {"all": zone}, "lines": {}})[0] == 200
        wait_for(lambda: "all" in site.get("sources/yard")[1]["zones"], "counting")
        with Page(browser, site.url, "#/counts/yard") as page:  # fails on a 404 in the console
            page.get_by_text("needs a store: set events.folder").wait_for()
            page.get_by_role("heading", name="all").wait_for()
    finally:
        site.ask("PUT", "/api/v1/sources/yard/places", {"zones": {}, "lines": {}})


LABELS = """async ([places, objects]) => {
  const { drawBoxes, drawPlaces } = await import(new URL("static/draw.js", location.href));
  const canvas = document.createElement("canvas"), context = canvas.getContext("2d"), drawn = [];
  canvas.width = 640; canvas.height = 360;
  const fill = context.fillRect.bind(context);
  context.fillRect = (x, y, width, height) => {
    if (width > 10) drawn.push([x, y, x + width, y + height]);
    fill(x, y, width, height);
  };
  const area = { x: 0, y: 0, width: 640, height: 360 };
  const taken = drawPlaces(context, area, places, null);
  drawBoxes(context, area, { width: 640, height: 360, objects }, { taken });
  return drawn;
}"""


def overlap(one: list[float], other: list[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize("top", [0, 100, 240])
def test_labels_of_objects_and_places_do_not_cover_each_other(site: Site, browser: Any, top: int) -> None:
    corner = [0.25, (top + 1) / 360]  # the box begins where the zone and the line do, as do their labels
    places = {
        "zones": {"entrance": {"points": [corner, [0.9, 0.95], [0.25, 0.95]]}},
        "lines": {"door": {"points": [corner, [0.6, corner[1]]]}},
    }
    objects = [{"xyxy": [160, top, 260, top + 100], "track_id": 7, "class_name": "person", "predicted": False}]
    with Page(browser, site.url) as page:
        drawn = page.evaluate(LABELS, [places, objects])
    assert len(drawn) == 3
    assert not any(overlap(drawn[i], drawn[j]) for i in range(3) for j in range(i))
