"""The user's folder of compiled models, which halves the load time of a model from its second load on.

Compiled models are native code in effect, so the folder is used only if no other user can write to it.
"""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

from engine.paths import user_cache

logger = logging.getLogger(__name__)
MAX_BYTES = 2_000_000_000
"""Above this size, the least recently read models are removed."""


def compiled_models() -> Path | None:
    """Return the folder, made if missing and kept below `MAX_BYTES`; None, with a warning, if it cannot be used."""
    try:
        folder = user_cache() / "compiled"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        reason = why_not_private(folder)
    except (OSError, RuntimeError) as error:
        folder, reason = Path(), str(error)
    if reason is not None:
        logger.warning("compiled models are not kept, so each start compiles again: %s", reason)
        return None
    _prune(folder)
    return folder


def why_not_private(folder: Path) -> str | None:
    """Return why a folder may contain files that others wrote, or is not writable.

    None if only this user can write to it.
    """
    facts = folder.stat()
    if facts.st_uid != os.geteuid():
        return f"{folder} belongs to another user"
    if stat.S_IMODE(facts.st_mode) & 0o022:
        return f"{folder} can be written by others: chmod 700 {folder}"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"{folder} cannot be written"


def _prune(folder: Path) -> None:
    """Remove the least recently read files until the rest fits; engines that have them open are not affected."""
    with suppress(OSError):
        files = [(entry.stat(), entry.path) for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)]
        excess = sum(facts.st_size for facts, _path in files) - MAX_BYTES
        for facts, path in sorted(files, key=lambda file: max(file[0].st_atime, file[0].st_mtime)):
            if excess <= 0:
                return
            os.unlink(path)
            excess -= facts.st_size
