from __future__ import annotations

from pathlib import Path

import pytest

from engine.clock import FakeClock
from engine.errors import ConfigError
from engine.redaction import redact
from pipelines.web.access import Accounts, FailureLimiter, Identity, RateLimiter, TokenFile
from pipelines.web.access.accounts import COOKIE, IDLE_S, LONGEST_S, MAX_SESSIONS, session_cookie
from pipelines.web.access.passwords import hash_password, is_password

PASSWORD = "correct horse battery"


@pytest.fixture
def now() -> list[float]:
    return [1_000_000.0]


@pytest.fixture
def accounts(tmp_path: Path, now: list[float]) -> Accounts:
    return Accounts(tmp_path / "web.sqlite", lambda: now[0])


def _cookie(secret: str) -> dict[str, str]:
    return {"cookie": f"theme=dark; {COOKIE}={secret}"}


def test_a_password_is_stored_salted_and_checked() -> None:
    first, second = hash_password(PASSWORD), hash_password(PASSWORD)
    assert first != second
    assert PASSWORD not in first
    assert is_password(PASSWORD, first)
    assert not is_password(PASSWORD + "x", first)
    assert not is_password("", None)
    assert not is_password(PASSWORD, "scrypt$broken")


def test_a_user_logs_in_and_out(accounts: Accounts) -> None:
    assert accounts.is_empty
    accounts.add_user("guard", PASSWORD, "viewer", ["gate"])
    assert not accounts.is_empty
    assert accounts.check("guard", "wrong") is None
    assert accounts.check("nobody", PASSWORD) is None
    user = accounts.check("guard", PASSWORD)
    assert user == Identity("guard", "viewer", frozenset({"gate"}))
    assert user.may("viewer")
    assert not user.may("operator")
    assert user.may_see("gate")
    assert not user.may_see("yard")
    secret = accounts.begin_session("guard")
    found = accounts.identify(_cookie(secret))
    assert found is not None
    assert (found.name, found.by_cookie) == ("guard", True)
    accounts.end_session(secret)
    assert accounts.identify(_cookie(secret)) is None


def test_a_session_ends_by_age_by_rest_and_with_its_password(accounts: Accounts, now: list[float]) -> None:
    accounts.add_user("guard", PASSWORD, "admin")
    resting, used = accounts.begin_session("guard"), accounts.begin_session("guard")
    begun = now[0]
    while now[0] + IDLE_S - 1 <= begun + LONGEST_S:
        now[0] += IDLE_S - 1
        assert accounts.identify(_cookie(used)) is not None
    assert accounts.identify(_cookie(resting)) is None
    now[0] = begun + LONGEST_S + 1
    assert accounts.identify(_cookie(used)) is None
    new = accounts.begin_session("guard")
    accounts.set_password("guard", PASSWORD + "2")
    assert accounts.identify(_cookie(new)) is None


def test_sessions_of_one_user_are_limited_and_the_newest_stay(accounts: Accounts, now: list[float]) -> None:
    accounts.add_user("guard", PASSWORD, "admin")
    secrets = []
    for _ in range(MAX_SESSIONS + 2):
        now[0] += 1
        secrets.append(accounts.begin_session("guard"))
    assert [accounts.identify(_cookie(each)) is None for each in secrets[:3]] == [True, True, False]


def test_a_removed_user_has_no_session(accounts: Accounts) -> None:
    accounts.add_user("guard", PASSWORD, "admin")
    secret = accounts.begin_session("guard")
    accounts.remove_user("guard")
    assert accounts.identify(_cookie(secret)) is None
    with pytest.raises(ConfigError, match="no user"):
        accounts.remove_user("guard")


def test_a_machine_has_a_token_that_no_cookie_replaces(accounts: Accounts, tmp_path: Path) -> None:
    token = accounts.add_token("ha", "viewer", ["gate"])
    assert token.encode() not in (tmp_path / "web.sqlite").read_bytes()
    found = accounts.identify({"authorization": f"Bearer {token}"})
    assert found is not None
    assert (found.name, found.by_cookie, found.sources) == ("ha", False, frozenset({"gate"}))
    assert accounts.identify(_cookie(token)) is None
    assert token not in redact(f"refused {token}")
    accounts.remove_token("ha")
    assert accounts.identify({"authorization": f"Bearer {token}"}) is None


@pytest.mark.parametrize("password", ["short", "x" * 300, "aaaaaaaaaaaaaaaa"])
def test_a_weak_password_is_refused(accounts: Accounts, password: str) -> None:
    with pytest.raises(ConfigError, match="password"):
        accounts.add_user("guard", password, "viewer")


def test_names_are_plain_and_unique(accounts: Accounts) -> None:
    accounts.add_user("guard", PASSWORD, "viewer")
    with pytest.raises(ConfigError, match="already"):
        accounts.add_user("guard", PASSWORD, "viewer")
    with pytest.raises(ConfigError, match="letters"):
        accounts.add_user("<script>", PASSWORD, "viewer")


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    Accounts(tmp_path / "web.sqlite").close()
    assert (tmp_path / "web.sqlite").stat().st_mode & 0o077 == 0
    (tmp_path / "web.sqlite").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Accounts(tmp_path / "web.sqlite")
    (tmp_path / "text").write_text("not a database, but text")
    (tmp_path / "text").chmod(0o600)
    with pytest.raises(ConfigError, match="expected a file"):
        Accounts(tmp_path / "text")


def test_the_cookie_is_for_this_site_only() -> None:
    text = session_cookie("abc", secure=True)
    assert {"HttpOnly", "SameSite=Strict", "Secure"} <= set(text.split("; "))
    assert "Max-Age=0" in session_cookie("", secure=False)


@pytest.mark.parametrize("line", ["short", "two words too many of them", "näme " + "x" * 40, "x" * 201])
def test_a_token_file_with_a_wrong_line_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"{'a' * 40}\n{line}\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="line 2"):
        TokenFile(path)


def test_a_token_file_that_others_can_read_or_without_tokens_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("a" * 40)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        TokenFile(path)
    path.write_text("# none\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="no token"):
        TokenFile(path)


def test_rates_recover_and_one_client_does_not_cost_another() -> None:
    clock = FakeClock()
    rate = RateLimiter(2.0, burst=3, clock=clock)
    assert [rate.wait_s("a") for _ in range(3)] == [0, 0, 0]
    assert 0 < rate.wait_s("a") <= 0.5
    assert rate.wait_s("b") == 0
    clock.advance(0.5)
    assert rate.wait_s("a") == 0


def test_guesses_are_refused_until_the_oldest_is_a_window_ago() -> None:
    clock = FakeClock()
    guesses = FailureLimiter(2, 60.0, clock)
    for _ in range(2):
        assert guesses.wait_s("a") == 0
        guesses.failed("a")
        clock.advance(10)
    assert guesses.wait_s("a") == pytest.approx(40)
    assert guesses.wait_s("b") == 0
    clock.advance(40)
    assert guesses.wait_s("a") == 0
