"""The page in a real browser: what a person sees, and when."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.web.page.browsing import Page
from tests.pipelines.web.page.screen import SAME, SAMPLE, Sample, samples, share_right
from tests.pipelines.web.page.site import SCENE, Site, wait_for

pytestmark = pytest.mark.browser
SAMPLES = 40
SHOWN = ".tile[data-shown]"


def right_of_exact(seen: list[Sample]) -> float:
    """Return the share that is right of the samples whose boxes are not marked as those of an earlier frame."""
    exact = [each for each in seen if not each.is_dashed]
    assert len(exact) > len(seen) / 2, seen  # on a busy machine, some boxes are late
    return share_right(exact)


def test_all_cameras_are_seen_at_once(site: Site, browser: Any) -> None:
    """E1, without a limit of time: both images are there, with the reason why they are no video."""
    with Page(browser, site.url) as page:
        page.locator(SHOWN).nth(1).wait_for()
        assert page.locator("figcaption").all_inner_texts()[0].startswith("cam")
        page.locator("figcaption").first.get_by_text("not a camera stream").wait_for()


def test_boxes_are_on_the_right_frame_of_pictures(site: Site, browser: Any) -> None:
    """E2, with JPEGs."""
    with Page(browser, site.url, "#/live/cam") as page:
        page.wait_for_selector(SHOWN)
        page.wait_for_selector(".overlay[data-frame]:not([data-frame=''])")
        seen = samples(page, "cam", SCENE, SAMPLES)
    assert right_of_exact(seen) >= SAME, seen
    assert len({each.number for each in seen}) > SAMPLES / 5, "the image stands still"


def test_the_page_recovers_without_a_click(site: Site, browser: Any) -> None:
    """E5: the server is killed under the page, and the page is loaded again."""
    with Page(browser, site.url) as page:
        page.wait_for_selector(SHOWN)
        pid = site.get("system")[1]["web_pid"]
        os.kill(pid, signal.SIGKILL)
        page.wait_for_selector(".notice")
        page.wait_for_selector(".notice", state="detached")
        before = page.evaluate(SAMPLE, "cam")["number"]
        wait_for(lambda: page.evaluate(SAMPLE, "cam")["number"] > before, "the next picture")
        page.reload()
        page.locator(SHOWN).nth(1).wait_for()


def test_what_is_not_seen_is_not_encoded(site: Site, browser: Any) -> None:
    with Page(browser, site.url, "#/live/cam") as page:
        page.wait_for_selector(SHOWN)
        wait_for(lambda: site.get("system")[1]["watched"] == ["v1/frame/cam/", "v1/picture/cam/1280/30/"], "the demand")
        page.goto(site.url + "#/live")
        wait_for(lambda: len(site.get("system")[1]["watched"]) == 4, "the demand of both")
    wait_for(lambda: site.get("system")[1]["watched"] == [], "the end of the demand")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_a_phone_needs_no_sideways_scrolling(site: Site, browser: Any, scheme: str) -> None:
    """E12, in part."""
    options = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme, "has_touch": True}
    with Page(browser, site.url, **options) as page:
        page.wait_for_selector(SHOWN)
        for link in page.locator("nav a").evaluate_all("links => links.map((link) => link.hash)"):
            page.goto(site.url + link)
            page.wait_for_selector("main h1")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), link


def test_the_page_speaks_german(site: Site, browser: Any) -> None:
    with Page(browser, site.url, locale="de-AT") as page:
        page.wait_for_selector(SHOWN)
        assert page.get_by_text("Zonen und Linien").count() == 1
        page.select_option("nav select", "en")
        page.wait_for_selector("text=Zones and lines")


@pytest.mark.rtsp
def test_boxes_are_on_the_right_frame_of_the_cameras_own_video(
    serve: Callable[..., Any], numbered_camera_clip: Path, browser: Any
) -> None:
    """E2, with the camera's H.264, and nothing is encoded for it once it plays."""
    camera = serve(codec="h264", file=numbered_camera_clip, gop=20, kbps=4000)
    with Site(sources={"gate": camera.url}) as site, Page(browser, site.url, "#/live/gate") as page:
        page.wait_for_selector(".tile[data-video]")
        page.wait_for_selector(".overlay[data-frame]:not([data-frame=''])")
        page.wait_for_timeout(1500)
        assert site.get("system")[1]["watched"] == ["v1/frame/gate/", "v1/video/gate/"]
        seen = samples(page, "gate", SCENE, SAMPLES)
        assert right_of_exact(seen) >= SAME, seen
        assert all(each.is_video for each in seen)
        assert len({each.number for each in seen}) > SAMPLES / 5, "the image stands still"
