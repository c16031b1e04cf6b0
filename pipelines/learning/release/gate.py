"""The conditions that a model must meet to be released, as text: `>= .60`, `>= released - .01`, `<= 1.2 * released`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from engine.errors import ConfigError

CONDITION = re.compile(
    r"(?P<sign>>=|<=) ?(?:(?P<factor>[0-9]{0,6}\.?[0-9]{1,6}) ?\* ?(?P<scaled>released|clean)"
    r"|(?P<moved>released|clean)(?: ?(?P<direction>[+-]) ?(?P<step>[0-9]{0,6}\.?[0-9]{1,6}))?"
    r"|(?P<value>[0-9]{0,6}\.?[0-9]{1,6}))"
)
MAX_CONDITIONS = 100
SLACK = 1e-9
DEFAULT_DETECT = {"map50_95": ">= released"}
DEFAULT_CLASSIFY = {"accuracy": ">= released"}


@dataclass(frozen=True, slots=True)
class Check:
    """One condition and what was found.

    Attributes:
        score: its name.
        condition: as written.
        found: the model's score; None if the test did not measure it.
        limit: the number that the condition evaluates to; None if there is no release to compare with.
        passes: whether it holds.
    """

    score: str
    condition: str
    found: float | None
    limit: float | None
    passes: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def check_gate(
    conditions: Mapping[str, str], scores: Mapping[str, Any], released: Mapping[str, Any] | None
) -> list[Check]:
    """Return each condition with its outcome.

    Args:
        conditions: by score: `map50_95`, `person.ap50`, `corruptions.mean`, `ms_per_image`.
        scores: of the model, from `framewire eval`.
        released: of the released model on the same test set; None: there is none, and conditions that refer to it hold.

    Raises:
        ConfigError: a condition cannot be parsed, or the scores lack the one it names.

    >>> [check.passes for check in check_gate({"map50": ">= released - .01"}, {"map50": 0.5}, {"map50": 0.51})]
    [True]
    """
    if len(conditions) > MAX_CONDITIONS:
        raise ConfigError(f"{len(conditions)} conditions: expected at most {MAX_CONDITIONS}")
    return [_check(name, str(text), scores, released) for name, text in conditions.items()]


def _check(name: str, text: str, scores: Mapping[str, Any], released: Mapping[str, Any] | None) -> Check:
    parsed = CONDITION.fullmatch(text.strip())
    if parsed is None:
        raise ConfigError(f"gate: {name}: {text!r}: expected such as >= .60, >= released - .01, <= 1.2 * released")
    found = flat(scores, name)
    if found is None:
        raise ConfigError(f"gate: {name}: the test has no such score: see framewire eval --json for their names")
    limit = _limit(parsed, name, scores, released)
    if limit is None:
        return Check(name, text, found, None, True)
    passes = found >= limit - SLACK if parsed["sign"] == ">=" else found <= limit + SLACK
    return Check(name, text, found, limit, passes)


def _limit(
    parsed: re.Match[str], name: str, scores: Mapping[str, Any], released: Mapping[str, Any] | None
) -> float | None:
    if parsed["value"] is not None:
        return float(parsed["value"])
    if "released" in (parsed["scaled"], parsed["moved"]):
        base = None if released is None else flat(released, name)
    else:
        base = next((v for key in ("map50_95", "accuracy") if (v := flat(scores, key)) is not None), None)
    if base is None:
        return None
    if parsed["factor"] is not None:
        return base * float(parsed["factor"])
    step = float(parsed["step"] or 0)
    return base - step if parsed["direction"] == "-" else base + step


def flat(scores: Mapping[str, Any], name: str) -> float | None:
    """Return a score by its dotted name; classes can be named without `per_class`.

    >>> flat({"per_class": {"person": {"ap50": 0.5}}}, "person.ap50")
    0.5
    """
    for tree in (scores, scores.get("per_class", {})):
        value: Any = tree
        for part in _parts(tree, name):
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    return None


def _parts(tree: Mapping[str, Any], name: str) -> list[str]:
    """Try splits at the last dot first, because class names may contain dots."""
    head, dot, tail = name.rpartition(".")
    return [head, tail] if dot and head in tree else name.split(".")
