"""Users, their sessions, and tokens of machines, in one SQLite file that only its owner can read.

Sessions and tokens are 256 random bits, of which only the hash is stored. The file has a schema version; other parts of
the web page keep their own tables next to these.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import threading
import time
from collections.abc import Collection, Mapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from pipelines.web.access.identity import ROLES, Identity, Role
from pipelines.web.access.passwords import check_password, hash_password, is_password
from pipelines.web.access.tokens import MAX_TOKEN_CHARS, bearer_token, digest_of, new_token

COOKIE = "framewire_session"
IDLE_S = 12 * 3600
LONGEST_S = 30 * 24 * 3600
SEEN_EVERY_S = 60
MAX_COOKIE_CHARS = 4096
MAX_SESSIONS = 50
"""Maximum per user; the oldest ones end."""
FILE_MODE = 0o600
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_TABLES = """
create table if not exists user (name text primary key, password text not null, role text not null, sources text);
create table if not exists token (name text primary key, digest text unique not null, role text not null, sources text,
    made_s integer not null);
create table if not exists session (digest text primary key, user text not null references user(name) on delete cascade,
    made_s integer not null, seen_s integer not null);
create index if not exists session_user on session(user);
"""


class Accounts:
    """Users, sessions and tokens. May be used from any thread.

    Args:
        path: the file; created with mode 0600 if it does not exist.
        now_s: the wall clock, in seconds.

    Raises:
        ConfigError: the file cannot be opened, is not such a file, or others can read it.
    """

    def __init__(self, path: str | Path, now_s: Any = time.time) -> None:
        self._path, self._now_s = Path(path), now_s
        self._lock = threading.Lock()
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, FILE_MODE))
            if os.name == "posix" and self._path.stat().st_mode & 0o077:
                raise ConfigError(f"others can read {self._path}: chmod 600 {self._path}")
            self._rows = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=5.0)
            self._rows.execute("pragma foreign_keys = on")
            self._rows.executescript(_TABLES)
        except OSError as error:
            raise ConfigError(f"accounts in {self._path}: {error.strerror}") from error
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"accounts in {self._path}: {error}: expected a file that this program made") from error

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        with self._lock:
            self._rows.close()

    @property
    def is_empty(self) -> bool:
        """Whether there is no user and no token, so that no one can log in."""
        return not self._all("select 1 from user union all select 1 from token limit 1")

    def add_user(self, name: str, password: str, role: Role, sources: Collection[str] | None = None) -> None:
        """Add a user.

        Raises:
            ConfigError: the name is taken or not valid, or the password is too weak.
        """
        _check_name(name)
        check_password(password)
        self._insert("user", name, (name, hash_password(password), _checked(role), _text(sources)))

    def set_password(self, name: str, password: str) -> None:
        """Change a password, which ends the user's sessions. Raises `ConfigError` for an unknown user."""
        check_password(password)
        self._change_one("update user set password = ? where name = ?", (hash_password(password), name), name)
        self.end_sessions(name)

    def change_user(self, name: str, role: Role, sources: Collection[str] | None = None) -> None:
        """Replace a user's permissions. Raises `ConfigError` for an unknown user, and for the last admin."""
        if _checked(role) != "admin":
            self._check_not_last_admin(name)
        self._change_one("update user set role = ?, sources = ? where name = ?", (role, _text(sources), name), name)

    def remove_user(self, name: str, *, keep_an_admin: bool = False) -> None:
        """Remove a user and end their sessions.

        Raises:
            ConfigError: an unknown user or, with `keep_an_admin`, the only one who may manage users.
        """
        if keep_an_admin:
            self._check_not_last_admin(name)
        self._change_one("delete from user where name = ?", (name,), name)

    def _check_not_last_admin(self, name: str) -> None:
        if [row[0] for row in self._all("select name from user where role = 'admin'")] == [name]:
            raise ConfigError(f"{name} is the last admin: make another user admin first")

    def users(self) -> list[Identity]:
        """Return all users, by name."""
        return [_identity(row) for row in self._all("select name, role, sources from user order by name")]

    def add_token(self, name: str, role: Role, sources: Collection[str] | None = None) -> str:
        """Add a token for a machine and return it: it is not stored, and never shown again.

        Raises:
            ConfigError: the name is taken or not valid.
        """
        _check_name(name)
        token = new_token()
        self._insert("token", name, (name, digest_of(token), _checked(role), _text(sources), int(self._now_s())))
        return token

    def remove_token(self, name: str) -> None:
        """Remove a token. Raises `ConfigError` for an unknown one."""
        self._change_one("delete from token where name = ?", (name,), name)

    def tokens(self) -> list[Identity]:
        """Return the owners of the tokens, by name."""
        return [_identity(row) for row in self._all("select name, role, sources from token order by name")]

    def check(self, name: str, password: str) -> Identity | None:
        """Return the user with a name and password, or None. Takes about 60 ms, even for an unknown name."""
        rows = self._all("select name, role, sources, password from user where name = ?", (name[:64],))
        known = is_password(password, rows[0][3] if rows else None)
        return _identity(rows[0]) if rows and known else None

    def begin_session(self, name: str) -> str:
        """Return the secret of a new session of a user, for the cookie `COOKIE`."""
        secret, now = new_token(), int(self._now_s())
        self._all("delete from session where seen_s < ? or made_s < ?", (now - IDLE_S, now - LONGEST_S))
        self._all("insert into session values (?, ?, ?, ?)", (digest_of(secret), name, now, now))
        keep = "select digest from session where user = ? order by seen_s desc, rowid desc limit ?"
        self._all(f"delete from session where user = ? and digest not in ({keep})", (name, name, MAX_SESSIONS))
        return secret

    def end_session(self, secret: str) -> None:
        """End a session; harmless for an unknown one."""
        self._all("delete from session where digest = ?", (digest_of(secret),))

    def end_sessions(self, name: str) -> None:
        """End all sessions of a user."""
        self._all("delete from session where user = ?", (name,))

    def identify(self, headers: Mapping[str, str]) -> Identity | None:
        """Return the sender of a request: the owner of its bearer token or session."""
        token = bearer_token(headers)
        if token is not None:
            rows = self._all("select name, role, sources from token where digest = ?", (digest_of(token),))
            return _identity(rows[0]) if rows else None
        secret = session_of(headers)
        return None if secret is None else self._of_session(digest_of(secret))

    def _of_session(self, digest: str) -> Identity | None:
        now = int(self._now_s())
        rows = self._all(
            "select name, role, sources, seen_s from session join user on name = user "
            "where digest = ? and seen_s >= ? and made_s >= ?",
            (digest, now - IDLE_S, now - LONGEST_S),
        )
        if not rows:
            return None
        if now - rows[0][3] >= SEEN_EVERY_S:
            self._all("update session set seen_s = ? where digest = ?", (now, digest))
        return _identity(rows[0], by_cookie=True)

    def _insert(self, table: str, name: str, values: tuple[Any, ...]) -> None:
        marks = ", ".join("?" * len(values))
        try:
            self._all(f"insert into {table} values ({marks})", values)
        except sqlite3.IntegrityError as error:
            raise ConfigError(f"there is already a {table} {name}: choose another name, or remove it") from error

    def _change_one(self, statement: str, values: tuple[Any, ...], name: str) -> None:
        with self._lock:
            changed = self._rows.execute(statement, values).rowcount
        if not changed:
            raise ConfigError(f"there is no user or token {name}")

    def _all(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock:
            return self._rows.execute(statement, values).fetchall()


def session_of(headers: Mapping[str, str]) -> str | None:
    """Return the session's secret in the request's cookie."""
    text = headers.get("cookie", "")
    if COOKIE not in text or len(text) > MAX_COOKIE_CHARS:
        return None
    try:
        cookie = SimpleCookie(text).get(COOKIE)
    except CookieError:
        return None
    return cookie.value if cookie is not None and 0 < len(cookie.value) <= MAX_TOKEN_CHARS else None


def session_cookie(secret: str, *, secure: bool, path: str = "/", cross_site: bool = False) -> str:
    """Return the `Set-Cookie` header of a session; an empty secret removes it.

    Args:
        secret: from `begin_session`.
        secure: whether browsers send it only over TLS.
        path: the path below which the page is served.
        cross_site: for a page that another site embeds; needs TLS.
    """
    same_site = "None" if cross_site else "Strict"
    age = LONGEST_S if secret else 0
    end = "; Secure" if secure or cross_site else ""
    if cross_site:
        end += "; Partitioned"  # browsers that block third-party cookies keep it separately for each embedding site
    return f"{COOKIE}={secret}; Path={path}; Max-Age={age}; HttpOnly; SameSite={same_site}{end}"


def _identity(row: Any, *, by_cookie: bool = False) -> Identity:
    sources = None if row[2] is None else frozenset(json.loads(row[2]))
    return Identity(row[0], _checked(row[1]), sources, by_cookie)


def _text(sources: Collection[str] | None) -> str | None:
    return None if sources is None else json.dumps(sorted(sources))


def _checked(role: str) -> Role:
    for known in ROLES:
        if role == known:
            return known
    raise ConfigError(f"role {role!r}: expected one of {', '.join(ROLES)}")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"name {name!r}: expected up to 64 letters, digits, dots, dashes, underscores or @")
