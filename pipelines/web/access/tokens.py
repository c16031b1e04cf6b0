"""Bearer tokens: generated here, stored as hashes, and read from a file with one per line."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from engine.errors import ConfigError
from engine.paths import path_from_text
from engine.redaction import hide
from pipelines.web.access.identity import Identity

TOKEN_BYTES = 32
MIN_TOKEN_CHARS = 24
MAX_TOKEN_CHARS = 200
MAX_FILE_BYTES = 64 * 1024
_LINE = re.compile(r"(?:([A-Za-z0-9._-]{1,64})[ \t]{1,9})?([!-~]{1,300})")


def new_token() -> str:
    """Return an unguessable token, registered as a secret."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    hide(token)
    return token


def digest_of(token: str) -> str:
    """Return the form in which a token is stored and compared; its 256 random bits need no slow hash."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def bearer_token(headers: Mapping[str, str]) -> str | None:
    """Return the token of `Authorization: Bearer TOKEN`; None if there is none of a valid length."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and 0 < len(token) <= MAX_TOKEN_CHARS else None


class TokenFile:
    """The tokens of a file: one per line, each after the name of its owner if several share the server.

        gate-pc   d2hhdCBhIGxvbmcgdG9rZW4gdGhpcyBpcw

    Args:
        path: a file that only its owner can read. Empty lines and lines that begin with `#` do not count.

    Raises:
        ConfigError: it cannot be read, others can read it, or a line is not a token of at least 24 characters.
    """

    def __init__(self, path: str | Path) -> None:
        self._name_by_digest = _read(path_from_text(str(path)))

    def identify(self, headers: Mapping[str, str]) -> Identity | None:
        """Return the owner of the request's token."""
        token = bearer_token(headers)
        name = None if token is None else self._name_by_digest.get(digest_of(token))
        return None if name is None else Identity(name, "operator")


def _read(path: Path) -> dict[str, str]:
    try:
        facts = path.stat()
        text = path.read_bytes()[: MAX_FILE_BYTES + 1].decode("ascii", "replace")
    except OSError as error:
        raise ConfigError(f"token file {path} cannot be read: {error.strerror}") from error
    if os.name == "posix" and stat.S_IMODE(facts.st_mode) & 0o077:
        raise ConfigError(f"other users can read {path} (mode {stat.S_IMODE(facts.st_mode):04o}): chmod 600 {path}")
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError(f"token file {path} has more than {MAX_FILE_BYTES // 1024} kB: expected a token per line")
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.strip()
        if not words or words.startswith("#"):
            continue
        match = _LINE.fullmatch(words)
        if match is None or not MIN_TOKEN_CHARS <= len(match[2]) <= MAX_TOKEN_CHARS:
            raise ConfigError(
                f"{path}, line {number}: expected a token of {MIN_TOKEN_CHARS} to {MAX_TOKEN_CHARS} characters, alone "
                "or after a name; make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        hide(match[2])
        found[digest_of(match[2])] = match[1] or f"line {number}"
    if not found:
        raise ConfigError(f"token file {path} has no token: write one per line")
    return found
