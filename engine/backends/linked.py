"""Models whose weights are symbolic links, as in the caches of model hubs.

OpenVINO and onnx refuse weights that lie outside the model's folder once links are resolved, so that a hostile model
cannot read other files. A hub's cache stores each file elsewhere; there the user's own links show what belongs
together.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def real_files(path: Path, *, copy: bool = False) -> Iterator[Path]:
    """Yield a path of the model at which its files are not symbolic links; the folder is removed when the block ends.

    Files are hard-linked if possible, otherwise copied; always copied with `copy`, for onnx, which refuses hard links.
    A model without links is yielded unchanged.
    """
    linked = [file for file in _named_by(path) if file.is_symlink()]
    if not linked:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="framewire-", dir=_writable(linked[0].resolve().parent)) as folder:
        for file in {path, *_named_by(path)}:
            _link(file.resolve(), Path(folder) / file.name, copy=copy)
        yield Path(folder) / path.name


def _named_by(path: Path) -> list[Path]:
    """Return the files next to a model whose names it contains: external weights."""
    try:
        siblings = [file for file in path.parent.iterdir() if file != path and file.is_file()]
        if path.suffix.lower() == ".xml":
            return [file for file in siblings if file.name == path.with_suffix(".bin").name]
        links = [file for file in siblings if file.is_symlink()]
        if not links:
            return []
        with path.open("rb") as model, mmap.mmap(model.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return [file for file in siblings if content.find(os.fsencode(file.name)) >= 0]
    except (OSError, ValueError):  # an empty or unreadable file: its reader will report it
        return []


def _link(source: Path, target: Path, *, copy: bool) -> None:
    if not copy:
        with suppress(OSError):  # another file system, or one without hard links
            return os.link(source, target)
    shutil.copyfile(source, target)
    return None


def _writable(folder: Path) -> Path | None:
    """Return the folder if files can be created in it, because hard links stay on one file system; otherwise None."""
    return folder if os.access(folder, os.W_OK) else None
