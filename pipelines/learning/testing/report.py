"""One HTML file with the results and charts of a test; it loads and runs nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from html import escape
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, SinkError
from engine.redaction import redact_tree

STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid #8884}
table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.2rem .8rem;text-align:left;border-bottom:1px solid #8883}
td.n{text-align:right;font-variant-numeric:tabular-nums}figure{margin:.5rem 0;overflow-x:auto}
svg{max-width:100%;height:auto;border-radius:6px}.good{color:#059669}.bad{color:#dc2626}
"""


def check_place(path: Path | None) -> None:
    """Raise `ConfigError` if a report could not be written there; call it before a test that takes minutes."""
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder: give the file of the report, such as {path / 'report.html'}")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}: create it first")


@dataclass
class Report:
    """Collects sections in order.

    Attributes:
        title: of the page.
        sections: HTML of each.
        pictures: SVG by name; each is also written next to the page.
    """

    title: str
    sections: list[str] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)

    def figures(self, heading: str, values: Mapping[str, Any]) -> None:
        """Add a table of names and values; a value that is a mapping becomes one row per entry."""
        flat: dict[str, Any] = {}
        for name, value in values.items():
            inner = value.items() if isinstance(value, Mapping) else ()
            flat |= {f"{name} {key}": one for key, one in inner} if inner else {str(name): value}
        rows = "".join(f"<tr><th>{escape(str(k))}</th>{_cell(v)}</tr>" for k, v in redact_tree(flat).items())
        self.sections.append(f"<h2>{escape(heading)}</h2><table>{rows}</table>")

    def table(self, heading: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add a table with the keys of its rows as columns."""
        if not rows:
            return
        head = "".join(f"<th>{escape(str(name))}</th>" for name in rows[0])
        body = "".join(f"<tr>{''.join(map(_cell, row.values()))}</tr>" for row in redact_tree(list(rows)))
        self.sections.append(f"<h2>{escape(heading)}</h2><table><tr>{head}</tr>{body}</table>")

    def picture(self, name: str, heading: str, svg: str, caption: str) -> None:
        """Add an image."""
        self.pictures[name] = svg
        text = f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
        self.sections.append(f"<h2>{escape(heading)}</h2>{text}")

    def write(self, path: Path) -> list[str]:
        """Write the page with its images next to it; return the files.

        Raises:
            SinkError: a file cannot be written.
        """
        made = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        title = escape(redact_tree(self.title))
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        page = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            f"<style>{STYLE}</style></head><body><h1>{title}</h1><p>Made {made} by Framewire.</p>"
            f"{''.join(self.sections)}</body></html>\n"
        )
        files = {path: page} | {path.with_name(f"{path.stem}_{name}.svg"): svg for name, svg in self.pictures.items()}
        try:
            for place, text in files.items():
                place.write_text(text, encoding="utf-8", errors="replace")
        except OSError as error:
            raise SinkError(f"{path} cannot be written ({error.strerror or error}): choose another file") from error
        return [str(place) for place in files]


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        text = "–" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        kind = {"better": "good", "worse": "bad"}.get(text, "")
        return f'<td class="{kind}">{escape(text)}</td>'
    return f'<td class="n">{value:.4g}</td>' if isinstance(value, float) else f'<td class="n">{value}</td>'
