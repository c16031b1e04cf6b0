"""`framewire web`: its page for a running engine, and its users."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("uvicorn", reason='needs the extra "web": pip install "framewire[web]"')

from pipelines.cli import app
from pipelines.web.access import Accounts
from tests.patience import AT_ONCE_S
from tests.pipelines.web.page.site import COMMAND, Site
from tests.test_layout import CHECKOUT
from tests.web_server import ask


def test_users_and_tokens_are_added_listed_and_removed(tmp_path: Path) -> None:
    runner, users = CliRunner(), str(tmp_path / "users.sqlite")
    (tmp_path / "password").write_text("correct horse battery\n")
    made = runner.invoke(
        app, ["web", "user", "add", "anna", "--users", users, "--password-file", str(tmp_path / "password")]
    )
    assert made.exit_code == 0, made.output
    token = runner.invoke(app, ["web", "token", "add", "panel", "--role", "operator", "--users", users]).output.strip()
    accounts = Accounts(users)
    assert accounts.check("anna", "correct horse battery") is not None
    identity = accounts.identify({"authorization": f"Bearer {token.splitlines()[-1]}"})
    accounts.close()
    assert identity is not None
    assert (identity.name, identity.role) == ("panel", "operator")
    assert "anna" in runner.invoke(app, ["web", "user", "list", "--users", users]).output
    assert runner.invoke(app, ["web", "user", "remove", "anna", "--users", users]).exit_code == 0
    assert "anna" not in runner.invoke(app, ["web", "user", "list", "--users", users]).output


def test_the_page_of_a_running_engine_is_served_until_a_signal(tmp_path: Path) -> None:
    with Site() as site:
        publish = next(re.findall(r"ipc://\S+", line)[0] for line in site.log if "publishing at" in line)
        environment = {**os.environ, "XDG_RUNTIME_DIR": site.runtime}
        command = [*COMMAND, "web", "--connect", publish, "--http", "127.0.0.1:0"]
        page = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=CHECKOUT)
        try:
            assert page.stderr is not None
            port = int(re.findall(r":(\d+)/", page.stderr.readline())[0])
            status, _, _ = ask(port, "/api/v1/me")
            assert status == 200
        finally:
            page.send_signal(signal.SIGTERM)
            code = page.wait(AT_ONCE_S * 4)
            page.stderr.close()
        assert code == 0


@pytest.mark.parametrize("words", [["--http", "0.0.0.0:0"], ["--http", "nonsense"]])
def test_an_open_address_needs_tls_and_users(words: list[str]) -> None:
    command = [*COMMAND, "run", "--source", "synthetic://?count=1", "--model", "motion", "--web", words[1]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    assert done.returncode == 2
    assert ("TLS" if words[1].startswith("0") else "HOST:PORT") in done.stderr
