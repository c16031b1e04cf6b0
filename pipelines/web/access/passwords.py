"""Passwords: scrypt, which takes about 60 ms, so run it in a thread if an event loop must not be blocked."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os

from engine.errors import ConfigError

MIN_CHARS = 12
MAX_CHARS = 256
COST, BLOCK, PARALLEL = 2**15, 8, 1
MAX_MEMORY = 64 * 1024 * 1024
SALT_BYTES = HASH_BYTES = 32
SCHEME = "scrypt"


def check_password(password: str) -> None:
    """Raise `ConfigError` for a password that is too short, too long, or one character repeated."""
    if not MIN_CHARS <= len(password) <= MAX_CHARS:
        raise ConfigError(f"the password has {len(password)} characters: expected {MIN_CHARS} to {MAX_CHARS}")
    if len(set(password)) < 4:
        raise ConfigError("the password repeats the same characters: choose another one")


def hash_password(password: str) -> str:
    """Return the stored form of a password: the scheme, the salt and the hash."""
    salt = os.urandom(SALT_BYTES)
    return f"{SCHEME}${_text(salt)}${_text(_scrypt(password, salt))}"


def is_password(password: str, stored: str | None) -> bool:
    """Return whether a password matches the stored one; takes equally long for an unknown user (`None`)."""
    salt, expected = _parts(stored)
    found = _scrypt(password[:MAX_CHARS], salt)
    return hmac.compare_digest(found, expected) and stored is not None and len(password) <= MAX_CHARS


def _parts(stored: str | None) -> tuple[bytes, bytes]:
    try:
        scheme, salt, expected = (stored or "").split("$")
        if scheme == SCHEME:
            return base64.b64decode(salt, validate=True), base64.b64decode(expected, validate=True)
    except (ValueError, binascii.Error):
        pass
    return bytes(SALT_BYTES), b""


def _scrypt(password: str, salt: bytes) -> bytes:
    text = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(text, salt=salt, n=COST, r=BLOCK, p=PARALLEL, maxmem=MAX_MEMORY, dklen=HASH_BYTES)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
