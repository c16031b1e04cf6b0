"""Every regular expression in the project takes time linear in its input, whatever the input is."""

from __future__ import annotations

import ast
import importlib
import itertools
import math
import pkgutil
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
FUNCTIONS = frozenset(("compile", "match", "search", "fullmatch", "findall", "finditer", "sub", "subn", "split"))
MENTION = re.compile(r"\b(?:re|regex)\b")
SMALL, LARGE = 1_000, 8_000
MAX_GROWTH = 4 * LARGE / SMALL  # a quadratic one grows by the square: sixteen times this
NOISE_S = 2e-3
TOO_SLOW_S = 0.05  # for the small text; linear patterns take less than a hundredth of this
UNITS_FROM_A_PATTERN = 14


def _calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    names = {"re"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name for alias in node.names if alias.name in ("re", "regex")}
        if isinstance(node, ast.ImportFrom):
            assert node.module not in ("re", "regex"), "import re as a module, so that this test finds its patterns"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id in names and node.func.attr in FUNCTIONS:
                yield node, node.func.attr


def _text_of(node: ast.expr) -> str | None:
    """Return a pattern as written; parts of an f-string that are computed stand for a small number."""
    if isinstance(node, ast.Constant):
        value = node.value
        return value.decode("latin-1") if isinstance(value, bytes) else str(value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "20" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text_of(node.left), _text_of(node.right)
        return None if left is None or right is None else left + right
    return None


def _flags_of(call: ast.Call) -> int:
    names = {
        node.attr
        for argument in [*call.args, *(k.value for k in call.keywords)]
        for node in ast.walk(argument)
        if isinstance(node, ast.Attribute)
    }
    return sum(int(flag) for name, flag in re.RegexFlag.__members__.items() if name in names and len(name) > 1)


def _found() -> list[tuple[str, str, int]]:
    found = []
    for package in ("engine", "pipelines", "tools"):
        for path in sorted((CHECKOUT / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if not MENTION.search(text):  # most files; to parse them all takes seconds in every process that collects
                continue
            for call, _ in _calls(ast.parse(text)):
                place = f"{path.relative_to(CHECKOUT)}:{call.lineno}"
                pattern = _text_of(call.args[0])
                assert pattern is not None, f"{place}: write the pattern as a literal, so that it can be tested"
                found.append((place, pattern, _flags_of(call)))
    return found


PATTERNS = _found()


def _compiled_in_modules() -> set[str]:
    """Return the patterns that imported modules hold, however they were written."""
    seen = set()
    for package in ("engine", "pipelines"):
        for module in pkgutil.walk_packages([str(CHECKOUT / package)], f"{package}."):
            if module.name.endswith("__main__"):
                continue
            try:
                loaded = importlib.import_module(module.name)
            except ImportError:
                continue  # an optional package is missing; the source was read above
            for value in vars(loaded).values():
                if isinstance(value, re.Pattern) and getattr(loaded, "__file__", "").startswith(str(CHECKOUT)):
                    seen.add(value.pattern if isinstance(value.pattern, str) else value.pattern.decode("latin-1"))
    return seen


def _units(pattern: str) -> list[str]:
    """Return what to repeat: characters and short runs of the pattern, and what classes in it stand for."""
    rng = random.Random(pattern)
    literals = sorted({c for c in pattern if c not in "\\^$*+?.()[]{}|"} | set("\\'\"[{-") if pattern else {"a"})
    classes = [
        c for mark, c in (("\\s", " \t\n"), ("\\d", "0"), ("\\w", "a"), (".", "x"), ("^", "\n")) if mark in pattern
    ]
    words = re.findall(r"[A-Za-z]{2,12}", pattern)[:4]
    single = [*literals, *"".join(classes), *words, "a", " ", "0"]
    mixed = ["".join(rng.choices(single, k=rng.randint(2, 4))) for _ in range(UNITS_FROM_A_PATTERN)]
    return list(
        dict.fromkeys(
            [*rng.sample(single, min(len(single), UNITS_FROM_A_PATTERN)), "a", " ", "\n", "\\'", "- ", *mixed]
        )
    )


def _cost(pattern: re.Pattern[str], text: str) -> float:
    best = float("inf")
    for _ in range(2):
        begin = time.process_time()
        pattern.search(text)
        pattern.sub("", text)
        best = min(best, time.process_time() - begin)
    return best


def _growth(pattern: re.Pattern[str], head: str, unit: str, tail: str) -> float:
    small, large = (head + (unit * size)[:size] + tail for size in (SMALL, LARGE))
    base = _cost(pattern, small)
    if base * (LARGE / SMALL) ** 2 < NOISE_S:
        return 0.0  # even if it were quadratic, the longest input that is let in would take no time
    if base > TOO_SLOW_S:  # the large text would take minutes
        return math.inf
    return _cost(pattern, large) / max(base, NOISE_S / MAX_GROWTH)


def _worst(pattern: re.Pattern[str]) -> tuple[float, str, str, str]:
    """Return the largest growth and the text that causes it; stops at one that is too large."""
    units = _units(pattern.pattern)
    worst = (0.0, "", "", "")
    for unit, head, tail in itertools.product(units, ("", units[0], '"', "a://"), ("", "\x00")):
        growth = _growth(pattern, head, unit, tail)
        if MAX_GROWTH < growth < math.inf:  # a busy machine can do this once
            growth = min(growth, _growth(pattern, head, unit, tail), _growth(pattern, head, unit, tail))
        worst = max(worst, (growth, head, unit, tail))
        if growth > MAX_GROWTH:
            break
    return worst


def test_the_patterns_are_found_however_they_are_written() -> None:
    assert len(PATTERNS) > 15
    assert _compiled_in_modules() <= {pattern for _, pattern, _ in PATTERNS}


@pytest.mark.parametrize(("pattern", "flags"), [pytest.param(p, f, id=place) for place, p, f in PATTERNS])
def test_no_input_makes_a_pattern_slower_than_its_length(pattern: str, flags: int) -> None:
    growth, *text = _worst(re.compile(pattern, flags))
    assert growth <= MAX_GROWTH, f"{growth:.0f} times as long for {LARGE / SMALL:.0f} times {text}"


@pytest.mark.parametrize(
    "pattern",
    [r"([A-Za-z][A-Za-z0-9+.-]*://)(\S+)", r"[-+~\s]*[-+~]\s*[-+~]\s*[-+~]", r"'(?:[^'\\\n]|\\.)*'", r"^\s*(key)\s*="],
)
def test_the_patterns_that_froze_an_engine_would_be_found(pattern: str) -> None:
    assert _worst(re.compile(pattern, re.MULTILINE))[0] > MAX_GROWTH
