"""Creates, stores and reads keys for CURVE, ZeroMQ's encryption, in the file format of `zmq.auth`."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import ConfigError
from engine.optional import require
from engine.paths import how_to_write
from engine.redaction import hide

PUBLIC_SUFFIX = ".key"
SECRET_SUFFIX = ".key_secret"
SECRET_MODE = 0o600
FOLDER_MODE = 0o700
MAX_FILE_CHARS = 8192
_ENTRY = re.compile(r'^[ \t]*(public-key|secret-key)[ \t]*=[ \t]*"([!-~]{40})"[ \t]*$', re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A CURVE key pair, in Z85 text of 40 characters each.

    Attributes:
        public: given to the other side.
        secret: never leaves this machine, and never appears in a representation.
    """

    public: str
    secret: str = field(repr=False)


def make_keys(folder: str | Path, name: str) -> tuple[Path, Path]:
    """Create a key pair; return the files `NAME.key` (public, mode 0644) and `NAME.key_secret` (mode 0600).

    Raises:
        ConfigError: the name is not a file name, the files already exist, or the folder is not writable.
        MissingDependencyError: this pyzmq was built without CURVE.
    """
    zmq = require("zmq")
    if not zmq.has("curve"):
        raise ConfigError("this pyzmq was built without CURVE: install a binary wheel of pyzmq")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"key name {name!r} cannot be a file name: use letters, digits, dot, dash and underscore")
    folder = Path(folder)
    public, secret = folder / f"{name}{PUBLIC_SUFFIX}", folder / f"{name}{SECRET_SUFFIX}"
    for path in (public, secret):
        if path.exists():
            raise ConfigError(f"{path} already exists: choose another name, or remove it to make new keys")
    public_key, secret_key = (key.decode() for key in zmq.curve_keypair())
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
        _write(secret, _text(public_key, secret_key), SECRET_MODE)
        _write(public, _text(public_key, None), 0o644)
    except OSError as error:
        raise ConfigError(f"cannot write keys to {folder}: {error.strerror}: {how_to_write(error)}") from error
    return public, secret


def load_key_pair(path: str | Path) -> KeyPair:
    """Return the key pair of a secret key file.

    Raises:
        ConfigError: the file is missing, contains no secret key, or other users can read it.
    """
    path = Path(path)
    found = _read(path)
    if "secret-key" not in found or "public-key" not in found:
        raise ConfigError(f'{path} has no secret key: give the file that ends in {SECRET_SUFFIX} ("framewire keys")')
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        raise ConfigError(f"other users can read {path} (mode {mode:04o}): chmod 600 {path}")
    hide(found["secret-key"])
    return KeyPair(found["public-key"], found["secret-key"])


def load_public_key(path: str | Path) -> str:
    """Return the public key of a key file, or of the 40 characters of the key itself.

    Raises:
        ConfigError: the file is missing or contains no public key.
    """
    if _is_key(str(path)):
        return str(path)
    found = _read(Path(path))
    if "public-key" not in found:
        raise ConfigError(f"{path} has no public key: give the file that ends in {PUBLIC_SUFFIX}")
    return found["public-key"]


def load_public_keys(paths: Iterable[str | Path]) -> frozenset[str]:
    """Return the public keys of files, of all `*.key` files of folders, and of keys given as text."""
    keys: set[str] = set()
    for each in paths:
        path = Path(each)
        if not _is_key(str(each)) and path.is_dir():
            keys.update(load_public_key(found) for found in sorted(path.glob(f"*{PUBLIC_SUFFIX}")))
        else:
            keys.add(load_public_key(each))
    return frozenset(keys)


def _is_key(text: str) -> bool:
    return len(text) == 40 and not Path(text).exists()


def _text(public_key: str, secret_key: str | None) -> str:
    advice = "SECRET: keep this file on its machine." if secret_key else "Public: give this to the other side."
    lines = ["#   ZeroMQ CURVE key, made by framewire", f"#   {advice}", "", "metadata", "curve"]
    lines.append(f'    public-key = "{public_key}"')
    if secret_key:
        lines.append(f'    secret-key = "{secret_key}"')
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str, mode: int) -> None:
    """Create the file with its mode from the start; never replace one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        os.fchmod(descriptor, mode)
        file.write(text)


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return dict(_ENTRY.findall(file.read(MAX_FILE_CHARS)))
    except OSError as error:
        raise ConfigError(f'cannot read {path}: {error.strerror}: make keys with "framewire keys"') from error
