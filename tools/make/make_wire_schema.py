#!/usr/bin/env python3
"""Write docs/schema/*.schema.json and docs/schema/asyncapi.yaml from the message types.

usage: make_wire_schema.py [--check]      --check writes nothing and exits 1 if a file is out of date
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from engine.wire.schema import asyncapi, json_schemas  # noqa: E402

FOLDER = CHECKOUT / "docs" / "schema"


def files() -> dict[Path, str]:
    """Return the text of each file."""
    made = {
        FOLDER / f"{kind}.schema.json": json.dumps(schema, indent=2) + "\n" for kind, schema in json_schemas().items()
    }
    made[FOLDER / "asyncapi.yaml"] = yaml.safe_dump(asyncapi(), sort_keys=False, width=110, allow_unicode=True)
    return made


def main() -> int:
    """Write or compare the files; return the exit code."""
    stale = [path for path, text in files().items() if not path.is_file() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(CHECKOUT)} is out of date: run tools/make/make_wire_schema.py")
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_text(files()[path])
    print(f"{len(stale)} files written to {FOLDER.relative_to(CHECKOUT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
