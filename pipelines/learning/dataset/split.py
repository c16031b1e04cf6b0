"""`dataset split`: groups never straddle splits, and the test split is locked by its hash.

Images of one camera, day or clip look alike, as do near-duplicates, so one of them cannot test a model that has seen
another. The hash of the test split is kept in splits.json; training and release reject a project whose test split has
changed since.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from pipelines.learning.dataset.likeness import Look, clusters
from pipelines.learning.dataset.project import Origin, Project, write_whole

SPLITS = ("train", "val", "test")
FIELDS = ("camera", "day", "clip", "folder", "part")
MAX_COMPARED = 20_000
"""Maximum number of images compared with each other; more would take minutes."""


def split(
    project: Project,
    shares: Mapping[str, float],
    by: Sequence[str] = (),
    seed: int = 0,
    *,
    again: bool = False,
) -> dict[str, Any]:
    """Move the labelled images into their splits and return the counts.

    Groups already in a split stay there; only new ones are distributed. New images of a group in the locked test split
    go to `held`, which nothing reads.

    Args:
        project: the project.
        shares: of train, val and test; normalised to a sum of 1.
        by: what defines a group: any of camera, day, clip, folder; near-duplicates always share a group.
        seed: of the random distribution.
        again: redistribute everything, including the test split.

    Raises:
        ConfigError: there are fewer groups than splits, a field is unknown, or the test split has changed.
    """
    unknown = [name for name in by if name not in FIELDS]
    if unknown:
        raise ConfigError(f"--by {unknown[0]}: expected some of {', '.join(FIELDS)}")
    state = {} if again else read_splits(project.folder)
    if state:
        check_test(project.folder)
        by = by or state["by"]
    images = project.labelled()
    if not images:
        raise ConfigError(f"{project.folder}: no labelled images yet: framewire label {project.folder}")
    groups = _groups([image for _, image in images], project.origins(), by)
    known = dict(state.get("groups", {}))
    where = _deal(groups, known, {name: shares.get(name, 0.0) for name in SPLITS}, seed)
    locked = {image for part, image in images if part == "test"} if state else set()
    for name, members in groups.items():
        for image in members:
            _move(project, image, "held" if where[name] == "test" and state and image not in locked else where[name])
    for name, members in groups.items():
        known.update(dict.fromkeys((image.name for image in members), where[name]))
    content = {"by": list(by), "seed": seed, "groups": known, "test_sha256": hash_of_test(project.folder)}
    write_whole(project.folder / "splits.json", json.dumps(content, indent=1))
    counts = {part: len(project.images(part)) for part in (*SPLITS, "held")}
    return {**counts, "groups": len(groups), "by": list(by), "test_sha256": content["test_sha256"]}


def _groups(images: Sequence[Path], origins: Mapping[str, Origin], by: Sequence[str]) -> dict[str, list[Path]]:
    """Return the images by group; groups that share a near-duplicate are merged."""
    keys = [_key(image, origins, by) for image in images]
    if len(images) > MAX_COMPARED:
        raise ConfigError(f"{len(images)} images: at most {MAX_COMPARED} can be compared with each other")
    alike = clusters([origins[image.name].look if image.name in origins else Look(_own(image)) for image in images])
    root: dict[str, str] = {}

    def find(key: str) -> str:
        while root.setdefault(key, key) != key:
            root[key] = root[root[key]]
            key = root[key]
        return key

    for key, number in zip(keys, alike, strict=True):
        first, second = sorted((find(key), find(f"~{number}")))
        root[first] = second
    found: dict[str, list[Path]] = defaultdict(list)
    for image, key in zip(images, keys, strict=True):
        found[find(key)].append(image)
    return dict(found)


def _own(image: Path) -> int:
    """Return a hash for an image without one, different from all others."""
    return int.from_bytes(hashlib.sha256(image.name.encode()).digest()[:8], "big")


def _key(image: Path, origins: Mapping[str, Origin], by: Sequence[str]) -> str:
    fields = origins.get(image.name, Origin()).fields
    values = [fields.get(name, "") for name in by]
    return "|".join(values) if any(values) else f"={image.name}"


def _deal(
    groups: Mapping[str, Sequence[Path]], known: Mapping[str, str], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Return the split of each group: large groups first, each to the split that is furthest below its share."""
    wanted = [name for name in SPLITS if shares[name] > 0]
    if not wanted or min(shares.values()) < 0:
        raise ConfigError("expected shares of train, val and test, at least one of them above 0")
    where: dict[str, str] = {}
    for name, members in groups.items():
        before = {known[image.name] for image in members if image.name in known}
        if before:
            where[name] = "test" if "test" in before else sorted(before)[0]
    if len(groups) < len(wanted) and not known:
        raise ConfigError(
            f"{len(groups)} group{'s' if len(groups) > 1 else ''} for {len(wanted)} splits: group by more (--by clip, "
            "or camera,day), add images of other cameras or days, or give a split the share 0"
        )
    total, have = sum(map(len, groups.values())), dict.fromkeys(SPLITS, 0)
    for name, part in where.items():
        have[part] = have.get(part, 0) + len(groups[name])
    rest = [name for name in sorted(groups) if name not in where]
    random.Random(seed).shuffle(rest)
    goal = {part: shares[part] / sum(shares.values()) * total for part in wanted}
    for name in sorted(rest, key=lambda name: -len(groups[name])):
        part = max(wanted, key=lambda part: (have[part] == 0, goal[part] - have[part]))
        where[name] = part
        have[part] += len(groups[name])
    return where


def _move(project: Project, image: Path, part: str) -> None:
    if image.parent.name == part:
        return
    label, place = project.label_of(image), project.place_of(part) / image.name
    place.parent.mkdir(parents=True, exist_ok=True)
    target = project.label_of(place)
    target.parent.mkdir(parents=True, exist_ok=True)
    if label.is_file():
        os.replace(label, target)
    os.replace(image, place)


def read_splits(folder: Path) -> dict[str, Any]:
    """Return the content of splits.json; empty if it does not exist. Raises `ConfigError` if it is broken."""
    path = folder / "splits.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content["groups"], dict) and isinstance(content["by"], list) and content["test_sha256"]:
            return dict(content)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path}: damaged ({error}): restore it, or run framewire dataset split --again") from error
    raise ConfigError(f"{path}: damaged: restore it, or run framewire dataset split --again")


def hash_of_test(folder: Path) -> str:
    """Return the SHA-256 of the names, images and labels of the test split."""
    digest = hashlib.sha256()
    images, labels = folder / "images" / "test", folder / "labels" / "test"
    for place in (images, labels):
        for path in sorted(place.glob("*")) if place.is_dir() else ():
            digest.update(f"{place.name}/{path.name}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def check_test(folder: Path) -> None:
    """Raise `ConfigError` if the test split of a project has changed since it was locked; other folders pass."""
    state = read_splits(folder)
    if state and state["test_sha256"] != hash_of_test(folder):
        raise ConfigError(
            f"{folder}: the test split has changed since it was locked, so scores on it could not be compared: restore "
            "images/test and labels/test, or lock it again with framewire dataset split --again"
        )
