"""Numbers episodes, including those of changed and custom rules, so that no `event_id` repeats within a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from engine.analytics.findings import Finding
from engine.analytics.rules.base import Rule


class Numbers:
    """The last number of each rule, by name."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._open: dict[tuple[str, int | None], int] = {}

    def note(self, rules: Iterable[Any]) -> None:
        """Record the last number of each rule that is about to be replaced."""
        for rule in rules:
            if isinstance(rule, Rule):
                self._last[rule.name] = max(self.last(rule.name), rule.number)

    def last(self, name: str) -> int:
        """Return the number of a rule's last episode."""
        return self._last.get(name, 0)

    def stamped(self, finding: Finding, name: str) -> Finding:
        """Return a finding of a custom rule with the rule's name and a number.

        An end or update reuses the number of the last begin for the same identity.
        """
        name = finding.rule or name
        key = name, finding.identity
        if finding.number:
            number = finding.number
        elif finding.phase in ("update", "end") and key in self._open:
            number = self._open[key]
        else:
            number = self.last(name) + 1
        self._last[name] = max(self.last(name), number)
        if finding.phase == "begin":
            self._open[key] = number
        elif finding.phase == "end":
            self._open.pop(key, None)
        return replace(finding, rule=name, number=number)
