#!/usr/bin/env python3
"""Write the golden messages of this wire version to tests/wire/golden/<major>.<minor>/; review their diff.

A released version never changes: add fields, raise MINOR, and run this to get a new folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from engine.wire import MAJOR, MINOR, encode  # noqa: E402
from tests.wire.samples import SAMPLES  # noqa: E402


def main() -> None:
    """Write one JSON and one msgpack file per kind."""
    folder = CHECKOUT / "tests" / "wire" / "golden" / f"{MAJOR}.{MINOR}"
    folder.mkdir(parents=True, exist_ok=True)
    for kind, message in SAMPLES.items():
        (folder / f"{kind}.json").write_bytes(encode(message) + b"\n")
        (folder / f"{kind}.msgpack").write_bytes(encode(message, "msgpack"))
    print(f"wrote {2 * len(SAMPLES)} files to {folder.relative_to(CHECKOUT)}")


if __name__ == "__main__":
    main()
