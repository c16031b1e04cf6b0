"""How a run and `framewire ctl` on the same machine find and trust each other.

A controllable run writes a card file to the runtime directory, readable only by its user: its address, and for
TCP the token that every request needs. `ctl` reads the cards.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.errors import ConfigError
from engine.redaction import hide

AUTO = "auto"
TOKEN_BYTES = 32
MAX_CARD_BYTES = 4096
MAX_CARDS = 256
MAX_PID_DIGITS = 10
WORKER_VARIABLE = "FRAMEWIRE_WORKER_ADDRESS"
"""Where a worker process answers its run, in its environment. It has no card: users control the run as a whole."""
_PATTERN = "control-*.json"


@dataclass(frozen=True, slots=True)
class ControlCard:
    """The data that a run shares with its own user about its control socket.

    Attributes:
        address: the bound address.
        pid: process id of the run.
        token: secret that clients must send; empty if the socket is encrypted or a file that only this user may open.
    """

    address: str
    pid: int
    token: str = ""


def runtime_folder() -> Path:
    """Return the folder for sockets and cards, created with mode 0700.

    Raises:
        ConfigError: it cannot be created, or belongs to another user.
    """
    folder = _folders()[0]
    try:
        folder.mkdir(mode=0o700, parents=False, exist_ok=True)
    except OSError as error:
        remedy = "set XDG_RUNTIME_DIR to your own folder"
        raise ConfigError(f"cannot make {folder}: {error.strerror}: {remedy}") from error
    if not _is_ours(folder):
        raise ConfigError(f"{folder} is open to other users: remove it, or set XDG_RUNTIME_DIR to your own folder")
    return folder


def automatic_address() -> str:
    """Return the default control address of a run."""
    return f"ipc://{runtime_folder()}/control-{os.getpid()}.sock"


def new_token() -> str:
    """Return an unguessable token, registered as a secret."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    hide(token)
    return token


def leave_card(address: str, token: str = "") -> Path:
    """Write the card of this run, mode 0600, and return its path."""
    folder = runtime_folder()
    _remove_old_cards(folder)
    path = folder / f"control-{os.getpid()}-{secrets.token_hex(4)}.json"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        json.dump(asdict(ControlCard(address, os.getpid(), token)), file)
    return path


def find_run(address: str | None = None, *, option: str = "--address") -> ControlCard:
    """Return the card of this user's only controllable run, or of the run at `address`.

    For an address without a card, the result has no token: the run may be on another machine and use keys.

    Args:
        address: control address; None: the only run.
        option: the caller's option for the address, for error messages.

    Raises:
        ConfigError: no such run exists, or several do and `address` is missing.
    """
    cards = list(_cards())
    if address is not None:
        return next((card for card in cards if _is_same(card.address, address)), ControlCard(address, 0))
    if not cards:
        raise ConfigError(f"you have no run that can be controlled: start one with --control, or give {option}")
    if len(cards) > 1:
        known = ", ".join(sorted(card.address for card in cards))
        raise ConfigError(f"{len(cards)} runs can be controlled: give {option}, one of {known}")
    return cards[0]


def _folders() -> list[Path]:
    """Return the possible folders of cards: the service manager's for this user, and a private one under /tmp."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    fallback = Path(tempfile.gettempdir()) / f"framewire-{os.getuid()}"
    usual = Path(f"/run/user/{os.getuid()}")
    parents = [Path(given)] if given else [usual]
    return [*(parent / "framewire" for parent in parents if _is_ours(parent)), fallback]


def _is_ours(folder: Path) -> bool:
    try:
        facts = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o077


def _cards() -> Iterator[ControlCard]:
    for folder in _folders():
        if not _is_ours(folder):
            continue
        for path in sorted(folder.glob(_PATTERN))[:MAX_CARDS]:
            card = _read(path)
            if card is not None and _is_running(card.pid):
                hide(card.token)
                yield card


def _remove_old_cards(folder: Path) -> None:
    """Remove the cards of killed runs, and the sockets of runs that are over."""
    for path in sorted(folder.glob(_PATTERN))[:MAX_CARDS]:
        card = _read(path)
        if card is None or not _is_running(card.pid):
            with suppress(OSError):
                path.unlink()
    for path in sorted(folder.glob("control-*.sock"))[:MAX_CARDS]:
        pid = path.stem.removeprefix("control-")
        if pid.isdecimal() and len(pid) < MAX_PID_DIGITS and not _is_running(int(pid)):
            with suppress(OSError):
                path.unlink()


def _read(path: Path) -> ControlCard | None:
    try:
        if path.lstat().st_size > MAX_CARD_BYTES or not stat.S_ISREG(path.lstat().st_mode):
            return None
        card = ControlCard(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    is_sound = isinstance(card.address, str) and isinstance(card.pid, int) and isinstance(card.token, str)
    return card if is_sound else None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _is_same(one: str, other: str) -> bool:
    return one == other or _local(one) == _local(other)


def _local(address: str) -> str:
    for name in ("//localhost:", "//[::1]:"):
        address = address.replace(name, "//127.0.0.1:")
    return address
