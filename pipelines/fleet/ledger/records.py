"""The records of a ledger, and the protocol that every ledger follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from engine.errors import ConfigError

NOBODY = ""
MAX_NAME_CHARS = 200
MAX_NOTE_CHARS = 1 << 20
MAX_EPOCH = 1 << 53  # beyond this, JSON readers lose digits


class LedgerError(ConfigError):
    """The ledger cannot be reached or written now; changes that were under way may have been made or not."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The owner of a camera.

    Attributes:
        source_id: the camera.
        engine_id: the engine that may publish it; empty: none.
        epoch: rises with every owner; a reader drops messages of lower epochs.
    """

    source_id: str
    engine_id: str
    epoch: int


class Change(NamedTuple):
    """One compare-and-set: `after` is written if the ledger still holds `before`; None: it must hold nothing."""

    before: Assignment | None
    after: Assignment


class Ledger(Protocol):
    """Assignments and a few notes. Several controllers may open one ledger; only one of them wins each change."""

    def read(self) -> dict[str, Assignment]:
        """Return all assignments by source_id. Raises `LedgerError` if the ledger cannot be read."""

    def change(self, changes: Sequence[Change]) -> list[bool]:
        """Durably apply each change that is still valid, and return those applied.

        Raises:
            ConfigError: a change would lower an epoch, or reassign a camera without raising it.
            LedgerError: the ledger cannot be written now.
        """

    def note(self, name: str) -> str | None:
        """Return the text stored under this name; None if there is none. Raises `LedgerError`."""

    def set_note(self, name: str, before: str | None, after: str | None) -> bool:
        """Replace the text `before` with `after` (None: no text), and return whether `before` was still stored.

        Raises `LedgerError`.
        """

    def close(self) -> None:
        """Close the ledger; safe to call again."""


def checked(changes: Sequence[Change]) -> Sequence[Change]:
    """Return the changes if each of them is permitted. Raises `ConfigError` otherwise."""
    for before, after in changes:
        if not 0 < len(after.source_id) <= MAX_NAME_CHARS or len(after.engine_id) > MAX_NAME_CHARS:
            raise ConfigError(f"ledger: names have 1 to {MAX_NAME_CHARS} characters: found {after!r}")
        if not 0 < after.epoch < MAX_EPOCH:
            raise ConfigError(f"ledger: {after.source_id}: epoch {after.epoch}: expected 1 to {MAX_EPOCH - 1}")
        if before is None:
            continue
        if before.source_id != after.source_id:
            raise ConfigError(f"ledger: a change of {before.source_id} cannot write {after.source_id}")
        is_given = after.engine_id not in (NOBODY, before.engine_id)
        if after.epoch < before.epoch + is_given:
            raise ConfigError(
                f"ledger: {after.source_id}: epoch {after.epoch} after {before.epoch}: it must rise with every owner"
            )
    return changes


def checked_note(after: str | None) -> str | None:
    """Return the text of a note. Raises `ConfigError` if it is too long."""
    if after is not None and len(after) > MAX_NOTE_CHARS:
        raise ConfigError(f"ledger: a note of {len(after)} characters: expected at most {MAX_NOTE_CHARS}")
    return after
