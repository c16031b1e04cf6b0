"""The lock of a test set: a hash of its images and labels. Both train and release report any change to them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from engine.errors import ConfigError
from engine.video.read_image import IMAGE_SUFFIXES
from pipelines.learning.dataset.split import check_test, hash_of_test, read_splits
from pipelines.learning.json_files import read_json, write_json
from pipelines.learning.model_facts import sha256_of

LOCK = "test.lock.json"
LABELS = {".txt", ".json", ".xml"}


def test_part(data: Path) -> tuple[Path, Path | None]:
    """Return the folders of the test images and of their labels, None for folders of classes.

    Raises:
        ConfigError: the data set has no test part.
    """
    images, labels = data / "images" / "test", data / "labels" / "test"
    if images.is_dir():
        return images, labels
    if (data / "test").is_dir():
        return data / "test", None
    raise ConfigError(f"{data}: no test part: expected images/test and labels/test, or test/CLASS")


def test_hash(data: Path) -> str:
    """Return the SHA-256 of all images and labels of the test part, and of their names. Raises `ConfigError`."""
    images, labels = test_part(data)
    digest = hashlib.sha256()
    for root, suffixes in ((images, IMAGE_SUFFIXES), (labels, LABELS)):
        for path in sorted(root.rglob("*")) if root is not None and root.is_dir() else []:
            if path.suffix.lower() in suffixes and path.is_file():
                digest.update(f"{path.relative_to(data)}\0{sha256_of(path)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def lock_test(data: Path) -> str:
    """Lock the test part, or check it against its lock; return its hash.

    Raises:
        ConfigError: it has changed since it was locked.
    """
    if read_splits(data):
        check_test(data)
        return hash_of_test(data)
    path, found = data / LOCK, test_hash(data)
    if not path.is_file():
        write_json(path, {"sha256": found})
        return found
    check_lock(data, found)
    return found


def check_lock(data: Path, found: str | None = None) -> None:
    """Raise `ConfigError` if the data set has a lock and its test part has changed."""
    check_test(data)
    path = data / LOCK
    if not path.is_file():
        return
    if read_json(path).get("sha256") != (found or test_hash(data)):
        raise ConfigError(
            f"{data}: the test part has changed since it was locked: scores would no longer be comparable. Undo the "
            f"change, or delete {path.name} to start with a new test set and release again"
        )
