#!/usr/bin/env python3
"""Print a seeded sample of docstrings and comments for a person to judge: does each read as a native engineer writes?

usage: sample_prose.py [--count 150] [--seed 1] [--patterns] [FOLDER ...]

`--patterns` lists every docstring and comment with a phrase that the project replaces (CONTRIBUTING.md); some are fine.
"""

from __future__ import annotations

import argparse
import ast
import io
import random
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
FOLDERS = ("engine", "pipelines", "tools")
LEAST_WORDS = 5
PATTERNS = re.compile(
    r"\b(known|present|allowed|configured|running) are\b|\bis no [a-z]+|\bnone of (yours|ours|a)\b"
    r"|\bwho (is|was|puts|gives|asks|reads|takes|has|waits)\b|\banew\b|\bfor ever\b"
    r"|\b(is|are|was|were|be) (told|asked) "
    r"|\bso many\b|\bnobody\b|\bof yours\b|\bhas not\b|\bwhat of\b|\btells? (of|so|how|why)\b|\bgo(es)? over to\b"
    r"|\bis to (be|wait)\b|\bpictures?\b|\bpeople\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Prose:
    """One docstring or comment."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(CHECKOUT)}:{self.line}: {self.text}"


def prose_of(path: Path) -> Iterator[Prose]:
    """Yield the docstrings and comments of a module, each with its first line."""
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield Prose(path, node.body[0].lineno, text)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        text = token.string.lstrip("# ")
        if token.type == tokenize.COMMENT and not text.startswith(("type:", "noqa", "fmt:", "!")):
            yield Prose(path, token.start[0], text)


def all_prose(folders: list[str]) -> list[Prose]:
    """Return all docstrings and comments of at least `LEAST_WORDS` words, in a fixed order."""
    files = sorted(path for folder in folders for path in (CHECKOUT / folder).rglob("*.py"))
    found = [one for path in files for one in prose_of(path)]
    return [one for one in found if len(one.text.split()) >= LEAST_WORDS]


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="*", default=list(FOLDERS))
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patterns", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Print the sample, or the lines that match a pattern."""
    chosen = _options()
    found = all_prose(chosen.folders)
    if chosen.patterns:
        found = [one for one in found if PATTERNS.search(one.text)]
    else:
        found = random.Random(chosen.seed).sample(found, min(chosen.count, len(found)))
    for number, one in enumerate(found, 1):
        print(f"{number:4} {one}")


if __name__ == "__main__":
    main()
