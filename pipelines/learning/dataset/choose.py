"""Chooses the images of a running engine worth labelling: by rule, uncertainty or novelty, without duplicates."""

from __future__ import annotations

import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.clock import NS_PER_S
from engine.errors import ConfigError
from engine.wire import FrameMessage
from pipelines.learning.dataset.likeness import NEW, Look, is_known, nearest

RULE_WINDOW_NS = 2 * NS_PER_S
HOUR_NS = 3600 * NS_PER_S
_TERM = re.compile(r"(uncertain|new|all|empty)|(rule|class):([^\s:]{1,100})")
USUAL = "uncertain or new or empty"
EXPECTED = "uncertain, new, empty, all, class:NAME or rule:NAME, joined by or"


@dataclass(frozen=True, slots=True)
class When:
    """The conditions for keeping an image; any of them suffices.

    Attributes:
        words: `uncertain` (a score in `doubt`), `new` (unlike all before), `empty` (no object), `all`.
        rules: names of rules, or kinds of events, that fired within two seconds.
        classes: names of classes that appear in the image.
        doubt: scores between which a detection is uncertain.
    """

    words: frozenset[str]
    rules: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    doubt: tuple[float, float] = (0.25, 0.6)


def parse_when(text: str, doubt: tuple[float, float] = (0.25, 0.6)) -> When:
    """Return the conditions of a text. Raises `ConfigError`.

    >>> sorted(parse_when("uncertain or rule:left_bag").rules)
    ['left_bag']
    """
    words, named = set(), defaultdict(set)
    for term in text.split(" or "):
        found = _TERM.fullmatch(term.strip())
        if found is None:
            raise ConfigError(f"--when {term.strip()[:60]!r}: expected {EXPECTED}")
        if found.group(1):
            words.add(found.group(1))
        else:
            named[found.group(2)].add(found.group(3))
    if not 0 <= doubt[0] < doubt[1] <= 1:
        raise ConfigError(f"--doubt {doubt[0]:g}:{doubt[1]:g}: expected two scores, the lower first")
    return When(frozenset(words), frozenset(named["rule"]), frozenset(named["class"]), doubt)


class Chooser:
    """Decides image by image, and counts why images were rejected.

    Args:
        when: the conditions.
        per_hour: maximum images per source and hour of its own time; 0: unlimited.
        known: looks of the project's images.
    """

    def __init__(self, when: When, per_hour: float = 0, known: Iterable[Look] = ()) -> None:
        self._when, self._per_hour = when, per_hour
        self._known = list(known)
        self._kept_ns: dict[str, deque[int]] = defaultdict(deque)
        self._fired: dict[str, deque[tuple[int, str]]] = defaultdict(lambda: deque(maxlen=256))
        self.refused: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def saw_event(self, source_id: str, captured_utc_ns: int, names: Sequence[str]) -> None:
        """Record that a rule fired or an event happened."""
        self._fired[source_id].extend((captured_utc_ns, name) for name in names)

    def wants(self, frame: FrameMessage) -> bool:
        """Return whether the image of a frame may be worth decoding; novelty and similarity are judged later."""
        if self._is_full(frame):
            self.refused["rate"] += 1
            return False
        if "new" in self._when.words or self._reasons(frame):
            return True
        self.refused["condition"] += 1
        return False

    def choose(self, frame: FrameMessage, look: Look) -> list[str]:
        """Return why an image is kept; empty if it is not."""
        reasons = self._reasons(frame)
        if "new" in self._when.words and nearest(look, self._known) >= NEW:
            reasons.append("new")
        known = is_known(look, self._known)
        if not reasons or known:
            self.refused["alike" if known else "condition"] += 1
            return []
        self._known.append(look)
        self._kept_ns[frame.source_id].append(frame.captured_utc_ns)
        self.reasons.update(reasons)
        return reasons

    def _is_full(self, frame: FrameMessage) -> bool:
        times = self._kept_ns[frame.source_id]
        while times and frame.captured_utc_ns - times[0] > HOUR_NS:
            times.popleft()
        return 0 < self._per_hour <= len(times)

    def _reasons(self, frame: FrameMessage) -> list[str]:
        when, found = self._when, []
        low, high = when.doubt
        if "all" in when.words:
            found.append("all")
        if "empty" in when.words and not frame.objects:
            found.append("empty")
        if "uncertain" in when.words and any(low <= one.score <= high for one in frame.objects):
            found.append("uncertain")
        found += sorted(f"class:{name}" for name in when.classes & {one.class_name for one in frame.objects})
        near = {
            name
            for at, name in self._fired[frame.source_id]
            if abs(frame.captured_utc_ns - at) <= RULE_WINDOW_NS and name in when.rules
        }
        return found + sorted(f"rule:{name}" for name in near)
