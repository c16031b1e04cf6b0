"""Clips in Chromium: the first frame that is presented is the wanted one."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engine.clock import NS_PER_S
from engine.events.media.cut import Wanted, cut
from engine.sources.synthetic import number_in_image
from tests.events.media.recorded import FPS, UTC_NS, record
from tests.media import encode_clip, file_server, numbered_images

pytestmark = pytest.mark.browser
PAGE = """<!doctype html><video id=v muted preload=auto></video><script>
const video = document.getElementById('v'), shown = [];
const pixels = () => {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext('2d').drawImage(video, 0, 0);
  return canvas.toDataURL('image/png');
};
const note = (now, meta) => {
  shown.push({time: meta.mediaTime, image: pixels()});
  video.requestVideoFrameCallback(note);
};
video.requestVideoFrameCallback(note);
fetch('event.mp4').then((answer) => answer.blob()).then((blob) => { video.src = URL.createObjectURL(blob); });
window.first = new Promise((done, failed) => {
  video.addEventListener('loadeddata', () => setTimeout(() => done({...shown[0], duration: video.duration}), 500));
  video.addEventListener('error', () => failed(new Error(video.error.message)));
});
window.seen = async (time) => {
  video.currentTime = time;
  await new Promise((done) => video.addEventListener('seeked', done, {once: true}));
  await new Promise((done) => setTimeout(done, 300));
  return shown[shown.length - 1];
};
</script>"""


@pytest.fixture(scope="module")
def page() -> Any:
    """An empty page in Debian's Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


def number_of(shown: dict[str, Any]) -> int | None:
    data = base64.b64decode(shown["image"].split(",")[1])
    return number_in_image(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))


@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_the_first_frame_presented_is_the_wanted_one(page: Any, tmp_path: Path, b_frames: str) -> None:
    options = {"g": "50", "sc_threshold": "0", "preset": "ultrafast", "bf": b_frames, "b_strategy": "0"}
    record(encode_clip(tmp_path / "in.mp4", numbered_images(200), options=options), tmp_path / "cam")
    begin_s, end_s = 3.24, 6.5
    span = (UTC_NS + round(at * NS_PER_S) for at in (begin_s, end_s))
    clip = cut(Wanted(tmp_path / "cam", *span, tmp_path / "site" / "event"))
    assert clip.state == "exact"
    (tmp_path / "site" / "page.html").write_text(PAGE)
    with file_server(tmp_path / "site") as base:
        page.goto(f"{base}/page.html")
        first = page.evaluate("window.first")
        assert (number_of(first), first["time"]) == (round(begin_s * FPS), 0)
        assert first["duration"] == pytest.approx(end_s - begin_s, abs=1.1 / FPS)
        middle = page.evaluate("window.seen(1.01)")
        assert number_of(middle) == round((begin_s + 1) * FPS)
        last = page.evaluate(f"window.seen({end_s - begin_s - 0.01})")
        assert abs((number_of(last) or 0) - (end_s * FPS - 1)) <= 1
