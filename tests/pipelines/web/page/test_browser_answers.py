"""What the page says about cameras it cannot play, about the past, and about days of another time zone."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from engine.events.store.place import StorePlace
from engine.events.store.rows import CountRow
from engine.events.store.writer import StoreWriter
from tests.pipelines.web.page.browsing import Page
from tests.pipelines.web.page.site import SCENE, Site, wait_for

pytestmark = pytest.mark.browser
VIENNA = ZoneInfo("Europe/Vienna")
LONG_DAY = "2026-10-25"
AT = {"00:30": 3, "02:30": 5, "23:30": 7}
"""Crossings on the day of 25 hours by the clock in Vienna; 23:30 there is 18:30 in New York."""


def moment(text: str) -> datetime:
    return datetime.fromisoformat(f"{LONG_DAY}T{text}").replace(tzinfo=VIENNA)


@pytest.fixture(scope="module")
def vienna(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An engine of a site in Vienna, whose log has crossings on a day of 25 hours."""
    folder = tmp_path_factory.mktemp("vienna")
    epoch = int(moment("00:00").timestamp()) * 10**9
    place = StorePlace(folder)
    database = place.open("engine")
    store = StoreWriter(database, "engine", epoch)
    with store.transaction():
        for text, n in AT.items():
            minute = int(moment(text).timestamp()) // 60
            store.put(CountRow("cam", "middle", "in", "person", minute, epoch, n))
    store.finish()
    database.close()
    place.release()
    words = ["--line", "cam.middle=0.5,0.0,0.5,1.0", "--tracker", "tests.pipelines.web.page.truth:RestlessTracker"]
    words += ["--set", f"events.folder={folder}", "--set", "site.timezone=Europe/Vienna"]
    with Site(*words, sources={"cam": SCENE}) as made:
        yield made


def test_a_day_of_25_hours_counts_whole_for_a_viewer_in_another_zone(vienna: Site, browser: Any) -> None:
    """E10."""
    begin, end = (int(datetime(2026, 10, day, tzinfo=VIENNA).timestamp()) * 10**9 for day in (25, 26))
    query = f"counts?source=cam&place=middle&bucket=1d&from={begin}&to={end}"
    (day,) = vienna.get(query)[1]
    assert day["end_utc_ns"] - day["begin_utc_ns"] == 25 * 3600 * 10**9
    assert day["counts"]["in"]["person"] == sum(AT.values())
    with Page(browser, vienna.url, timezone_id="America/New_York") as page:
        page.wait_for_selector(".tile[data-shown]")
        page.clock.set_fixed_time("2026-10-27T12:00:00Z")
        page.goto(f"{vienna.url}#/counts/cam")
        page.locator("header").filter(has_text="Over time").get_by_label("Span").select_option("30d")
        moves = itertools.count(1)

        def is_midnight() -> bool:
            """Return whether the day under the mouse begins at midnight; the chart may be drawn again meanwhile."""
            page.locator(".u-over").hover(position={"x": 60 + next(moves) % 5, "y": 20})
            return bool(page.locator(".u-legend .u-value").first.inner_text().endswith("12:00am"))

        wait_for(is_midnight, "days that begin at midnight in Vienna")


def test_a_line_drawn_now_is_asked_about_the_past(vienna: Site, browser: Any) -> None:
    """E9, with a scene of moments in place of hours: the page says what the API says of the same line."""
    begin = int((time.time() - 3600) * 1e9)

    def asked(points: list[list[float]]) -> int:
        body = {"source": "cam", "from": begin, "to": int(time.time() * 1e9), "line": {"points": points}}
        status, _, answer = vienna.ask("POST", "/api/v1/query/crossings", body)
        assert status == 200, answer
        return sum(answer["totals"].values())

    with Page(browser, vienna.url, "#/places/cam") as page:
        page.get_by_role("button", name="+ Line").click()
        page.get_by_role("button", name="Save").click()
        page.get_by_text("Saved. It counts from now on.").wait_for()
        points = vienna.get("sources/cam/places")[1]["lines"]["line1"]["points"]
        before = wait_for(lambda: asked(points), "paths that cross it")
        page.get_by_role("button", name="Ask the last 24 h").click()
        answer = page.get_by_text("In the last 24 h:").inner_text()
        said = sum(int(number) for number in re.findall(r"(?:right|left) (\d+)", answer))
        assert before <= said <= asked(points), answer


@pytest.mark.rtsp
def test_a_camera_that_the_browser_cannot_play_is_shown_as_pictures_with_the_reason(
    serve: Callable[..., Any], browser: Any, tmp_path: Path
) -> None:
    """E4: H.265, which Debian's Chromium does not play."""
    camera = serve(codec="h265", size="320x240", fps=8)
    with Site(sources={"gate": camera.url}) as site, Page(browser, site.url, "#/live/gate") as page:
        page.locator(".tile[data-shown]").wait_for()
        page.locator(".how").get_by_text("this browser cannot play HEVC").wait_for()
        assert page.locator(".tile[data-video]").count() == 0
        watched = wait_for(lambda: site.get("system")[1]["watched"], "the demand")
        assert [topic for topic in watched if "/video/" in topic] == []
