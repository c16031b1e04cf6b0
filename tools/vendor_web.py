"""Fetches the third-party modules of the page from npm, checks their hashes, and writes them with their licences.

    python tools/vendor_web.py  # rewrites pipelines/web/page/static/vendor

Bare imports (`from "preact"`) are rewritten to files, so that browsers load them without a build step. A test checks
the files against `vendor/hashes.json`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "pipelines" / "web" / "page" / "static" / "vendor"
MAX_FILE_BYTES = 5_000_000


@dataclass(frozen=True)
class Library:
    """An npm package: its files by their names here, and its integrity hash."""

    name: str
    version: str
    integrity: str
    licence: str
    files: dict[str, str]
    tail: str = ""


LIBRARIES = (
    Library(
        "preact",
        "11.2.0",
        "sha512-/HfHI/7N84e6GrWBJ3J280z3mLaRJiDcSvj/A+y/4AbLnND/1UlGHe1sR6oYuTGwId0nP7dqDU9OnLxMPZ7xBg==",
        "MIT",
        {"dist/preact.mjs": "preact.js", "hooks/dist/hooks.mjs": "hooks.js"},
    ),
    Library(
        "lucide-static",
        "1.62.0",
        "sha512-WBZA/m2PvkFpMGHDtsBck5P2A9G4ehLlYu4GwwICcmEm1BvYVgj00lCDxKRWLlbMlOibLaiwdQ88G5pHkSWgwA==",
        "ISC",
        {},
    ),
    Library(
        "htm",
        "3.1.1",
        "sha512-983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==",
        "Apache-2.0",
        {"dist/htm.module.js": "htm.js"},
    ),
    Library(
        "uplot",
        "1.6.32",
        "sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==",
        "MIT",
        {"dist/uPlot.iife.min.js": "uplot.js", "dist/uPlot.min.css": "uplot.css"},
        tail="\nexport default uPlot;\n",
    ),
)
ICONS = {
    "live": "video", "events": "bell", "counts": "chart-column", "places": "vector-square", "cameras": "camera",
    "system": "server", "timeline": "history", "rules": "list-checks", "users": "users", "past": "spline",
    "dark": "moon", "light": "sun", "wall": "maximize", "close": "x", "done": "check", "back": "chevron-left",
    "delete": "trash-2", "leave": "log-out",
}  # fmt: skip
IMPORTS = {'"preact"': '"./preact.js"', "'preact'": '"./preact.js"'}


def main() -> None:
    """Write the modules, their licences and their hashes."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    hashes: dict[str, dict[str, str]] = {}
    licences = []
    for library in LIBRARIES:
        with tarfile.open(fileobj=io.BytesIO(_package(library))) as archive:
            for origin, name in library.files.items():
                text = _member(archive, origin)
                for bare, file in IMPORTS.items():
                    text = text.replace(f"from{bare}", f"from{file}").replace(f"from {bare}", f"from {file}")
                text = re.sub(r"\n?//# sourceMappingURL=.*", "", text) + (library.tail if name.endswith(".js") else "")
                _write(name, text, library, hashes)
            if library.name == "lucide-static":
                _write("icons.svg", _sprite(archive), library, hashes)
            licences.append(f"{library.name} {library.version} ({library.licence})\n\n{_member(archive, 'LICENSE')}")
    (FOLDER / "LICENSES.txt").write_text(("\n" + "-" * 80 + "\n\n").join(licences), encoding="utf-8")
    (FOLDER / "hashes.json").write_text(json.dumps(hashes, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write(name: str, text: str, library: Library, hashes: dict[str, dict[str, str]]) -> None:
    (FOLDER / name).write_text(text, encoding="utf-8")
    hashes[name] = {
        "package": f"{library.name}@{library.version}",
        "integrity": library.integrity,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


SHAPE = re.compile(r"<(?:path|rect|circle|line|polyline|polygon|ellipse)[^>]*>")


def _sprite(archive: tarfile.TarFile) -> str:
    """Return the icons of the page as one SVG of symbols."""
    symbols = []
    for name, icon in ICONS.items():
        shapes = SHAPE.findall(_member(archive, f"icons/{icon}.svg"))
        symbols.append(f'<symbol id="{name}" viewBox="0 0 24 24">{"".join(shapes)}</symbol>')
    return '<svg xmlns="http://www.w3.org/2000/svg">' + "\n".join(symbols) + "</svg>\n"


def _package(library: Library) -> bytes:
    """Return the tarball of a package, after checking its hash."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"{library.name}@{library.version}", "--pack-destination", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        body = next(Path(folder).glob("*.tgz")).read_bytes()
    found = "sha512-" + base64.b64encode(hashlib.sha512(body).digest()).decode()
    if found != library.integrity:
        sys.exit(f"{library.name}@{library.version} has an unexpected hash: {found}")
    return body


def _member(archive: tarfile.TarFile, name: str) -> str:
    file = archive.extractfile(f"package/{name}")
    if file is None:
        sys.exit(f"the package has no file {name}")
    return file.read(MAX_FILE_BYTES).decode()


if __name__ == "__main__":
    main()
