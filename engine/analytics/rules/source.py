"""Rules about the source itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from engine.analytics.findings import Finding
from engine.analytics.places import check_seconds
from engine.analytics.rules.base import Rule
from engine.analytics.view import View


@dataclass
class Blind(Rule):
    """The source has not been live for `for_s`; ends when it is live again.

    Attributes:
        for_s: how long it must not have been live.
    """

    kind: ClassVar[str] = "blind"

    for_s: float = 10.0

    def _check(self) -> None:
        check_seconds(self.where, for_s=self.for_s)

    def update(self, view: View) -> Iterator[Finding]:
        """Yield the `begin` or the `end`."""
        since_ns, until_ns = view.blind_since_ns, view.captured_ns
        if since_ns is None and view.was_blind is not None:
            since_ns, until_ns = view.was_blind
        lasts_s = 0.0 if since_ns is None else (until_ns - since_ns) / 1e9
        if since_ns is not None and self.name not in self._open and lasts_s >= self.for_s:
            why = (f"no live frame for {lasts_s:.1f} s >= for_s {self.for_s:g}",)
            yield from self._begin(view, self.name, Finding("", view.captured_ns, began_ns=since_ns, why=why))
        if view.blind_since_ns is None:
            yield from self._end(view, self.name, until_ns)
