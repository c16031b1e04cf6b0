"""The page behind a real nginx, below a path, and inside a frame of Home Assistant's page."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("uvicorn", reason='needs the extra "web": pip install "framewire[web]"')

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from engine.errors import ConfigError
from pipelines.web.access import Accounts
from pipelines.web.page.app import exposure_of
from pipelines.web.page.settings import Settings
from tests.pipelines.web.page.browsing import Page, chromium
from tests.pipelines.web.page.site import PATIENCE_S, Site
from tests.web_server import ask

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
PASSWORD = "correct horse battery"
HOME = "https://homeassistant.local:8123"
CONFIG = """
pid {folder}/nginx.pid; error_log {folder}/error.log; daemon off; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location /cams/ {{
      proxy_pass http://127.0.0.1:{behind}/;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto {scheme};
      proxy_set_header X-Forwarded-Prefix /cams;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $http_connection;
      proxy_buffering off;
    }}
  }}
}}
"""


class Proxied(NamedTuple):
    """A site, the port of the nginx in front, and that of a page which may show it in a frame."""

    site: Site
    port: int
    frames: int


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    if not Path(NGINX).exists():
        pytest.skip("no nginx: apt-get install -y nginx-light")
    folder = tmp_path_factory.mktemp("nginx")
    accounts = Accounts(folder / "users.sqlite")
    accounts.add_user("anna", PASSWORD, "operator")
    token = accounts.add_token("test", "admin")
    accounts.close()
    frames = free_port()
    embed = f"web.embed=['{HOME}', 'http://localhost:{frames}']"
    words = [f"web.users={folder / 'users.sqlite'}", "web.behind_proxy=[127.0.0.1]", embed]
    with Site(*(word for each in words for word in ("--set", each)), token=token) as site:
        port = free_port()
        (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, port=port, behind=site.port, scheme="https"))
        nginx = subprocess.Popen(
            [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")],
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until_open(port, nginx, folder / "error.log")
            yield Proxied(site, port, frames)
        finally:
            nginx.terminate()
            nginx.wait(PATIENCE_S)


def wait_until_open(port: int, nginx: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert nginx.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(log.read_text())


def log_in(port: int, origin: str) -> tuple[int, str]:
    body = json.dumps({"name": "anna", "password": PASSWORD}).encode()
    status, headers, _ = ask(port, "/cams/api/v1/login", "POST", body, {"Origin": origin})
    return status, headers.get("set-cookie", "")


def test_a_login_through_the_proxy_is_kept_below_its_path_and_over_tls_only(proxied: Proxied) -> None:
    status, cookie = log_in(proxied.port, f"http://127.0.0.1:{proxied.port}")
    assert status == 200
    parts = {part.strip() for part in cookie.split(";")}
    assert {"Path=/cams/", "HttpOnly", "Secure", "SameSite=None", "Partitioned"} <= parts
    secret = cookie.partition(";")[0]
    _, _, me = ask(proxied.port, "/cams/api/v1/me", headers={"Cookie": secret})
    assert me["name"] == "anna"
    address = f"ws://127.0.0.1:{proxied.port}/cams/api/v1/live"
    origin: Any = f"http://127.0.0.1:{proxied.port}"
    with connect(address, additional_headers={"Cookie": secret}, origin=origin, max_size=None) as viewer:
        assert "schema" in json.loads(viewer.recv(timeout=PATIENCE_S))
    evil: Any = "http://evil.example"
    with pytest.raises(InvalidStatus):
        connect(address, additional_headers={"Cookie": secret}, origin=evil)


def test_a_page_of_another_site_cannot_log_in_through_the_proxy(proxied: Proxied) -> None:
    assert log_in(proxied.port, "http://evil.example")[0] == 403
    assert ask(proxied.port, "/cams/api/v1/me", headers={"Host": "evil.example"})[0] == 421


def test_headers_of_a_proxy_count_only_from_a_named_one() -> None:
    with Site() as site:
        sent = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/x"}
        assert site.ask("GET", "/api/v1/me", headers=sent)[0] == 200


def test_only_the_pages_named_may_show_it_in_a_frame(proxied: Proxied) -> None:
    _, headers, _ = ask(proxied.port, "/cams/")
    assert f"frame-ancestors 'self' {HOME} " in headers["content-security-policy"]
    with pytest.raises(ConfigError, match="expected an origin"):
        exposure_of(Settings(publish="", embed=("*",)))
    with pytest.raises(ConfigError, match="expected an origin"):
        exposure_of(Settings(publish="", embed=("https://a.example; script-src *",)))
    with pytest.raises(ConfigError, match="over TLS only"):
        exposure_of(Settings(publish="", embed=(HOME,), users="users.sqlite"))


@pytest.fixture(scope="module")
def frames(proxied: Proxied, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A page like Home Assistant's, which shows ours in a frame; yields its port."""
    folder = tmp_path_factory.mktemp("frames")
    (folder / "index.html").write_text(f'<iframe src="http://127.0.0.1:{proxied.port}/cams/"></iframe>')
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", proxied.frames), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.browser
def test_a_person_logs_in_and_sees_live_pictures_below_the_path(proxied: Proxied) -> None:
    url = f"http://127.0.0.1:{proxied.port}/cams/"
    with chromium() as browser, Page(browser, url) as page:
        see_live(page)


@pytest.mark.browser
def test_the_page_works_in_a_frame_of_a_named_site_and_of_no_other(proxied: Proxied, frames: int) -> None:
    with chromium() as browser:
        page = browser.new_page()
        page.goto(f"http://localhost:{frames}/")
        see_live(page.frame_locator("iframe"))
        page.goto(f"http://127.0.0.1:{frames}/")  # the same server by a name that is not allowed
        page.wait_for_timeout(500)
        assert page.frame_locator("iframe").locator("nav, form").count() == 0


def see_live(page: Any) -> None:
    page.locator("input[name=name]").fill("anna", timeout=40_000)
    page.locator("input[name=password]").fill(PASSWORD)
    page.locator("button.primary").click()
    page.locator(".tile[data-shown]").first.wait_for(timeout=40_000)
