"""The text format of Prometheus (version 0.0.4), written fast, because a large page must not delay the engine.

The client library takes about 40 µs per sample, this about 1 µs; the library adds only its own metrics (`process_*`,
`python_gc_*`, and those that your own sinks register).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from engine.optional import require
from engine.stats import HistogramSnapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_LABEL_CHARS = 200
OTHER = "other"


@lru_cache(maxsize=1)
def own_version() -> str:
    """Return the version of framewire, read once: reading it took most of the time of a small page."""
    from importlib.metadata import version

    return version("framewire")


class Series:
    """The samples of one metric.

    Args:
        lines: where to add them.
        name: of the metric.
        labels: names of its labels.
    """

    def __init__(self, lines: list[str], name: str, labels: Sequence[str]) -> None:
        self._lines = lines
        self._name = name
        self._labels = labels
        pairs = ",".join(f'{label}="%s"' for label in labels)
        self._template = f"{name}{{{pairs}}} %s\n" if labels else f"{name} %s\n"

    def add(self, value: float, *labels: str) -> None:
        """Add a sample."""
        self._lines.append(self._template % (*map(quoted, labels), value))

    def add_histogram(
        self, edges: Sequence[float], cumulative: Sequence[int], count: int, sum_: float, *labels: str
    ) -> None:
        """Add the samples of a histogram: the number of values at or below each edge, of all values, and their sum."""
        given = "".join(f'{name}="{quoted(value)}",' for name, value in zip(self._labels, labels, strict=True))
        add, name = self._lines.append, self._name
        for edge, n in zip(edges, cumulative, strict=True):
            add(f'{name}_bucket{{{given}le="{edge}"}} {n}\n')
        add(f'{name}_bucket{{{given}le="+Inf"}} {count}\n')
        ends = f"{{{given[:-1]}}}" if given else ""
        add(f"{name}_sum{ends} {sum_}\n{name}_count{ends} {count}\n")

    def add_latency(self, edges_s: Sequence[float], values: HistogramSnapshot, *labels: str) -> None:
        """Add a histogram of seconds from one of milliseconds."""
        cumulative = values.cumulative([1000 * edge for edge in edges_s])
        self.add_histogram(edges_s, cumulative, values.count, round(values.sum / 1000, 6), *labels)


class Page:
    """A page of metrics; metrics without samples are left out."""

    def __init__(self) -> None:
        self._families: list[tuple[str, list[str]]] = []

    def counter(self, name: str, text: str, *labels: str) -> Series:
        """Return a counter; its name ends in `_total`."""
        return self._family(name, "counter", text, labels)

    def gauge(self, name: str, text: str, *labels: str) -> Series:
        """Return a gauge."""
        return self._family(name, "gauge", text, labels)

    def histogram(self, name: str, text: str, *labels: str) -> Series:
        """Return a histogram."""
        return self._family(name, "histogram", text, labels)

    def text(self) -> str:
        """Return the page."""
        return "".join(line for head, lines in self._families if lines for line in (head, *lines))

    def _family(self, name: str, kind: str, text: str, labels: Sequence[str]) -> Series:
        lines: list[str] = []
        self._families.append((f"# HELP {name} {text}\n# TYPE {name} {kind}\n", lines))
        return Series(lines, name, labels)


class Bounded:
    """Keeps the number of label values bounded: the first ones keep their name, later ones become `other`.

    Args:
        limit: values per key.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[str, dict[str, None]] = {}

    def counts(self, key: str, counts: Mapping[str, int]) -> dict[str, int]:
        """Return the counts by label value; values seen before are included, even if only with 0."""
        known = self._known.setdefault(key, {})
        found = dict.fromkeys(known, 0)
        for value, count in counts.items():
            if value not in known and len(known) < self._limit:
                known[value] = None
            label = value if value in known else OTHER
            found[label] = found.get(label, 0) + count
        return found


@lru_cache(maxsize=8192)
def quoted(text: str) -> str:
    r"""Return a label value escaped and of bounded length.

    >>> quoted('a "b"\n')
    'a \\"b\\"\\n'
    """
    short = text if len(text) <= MAX_LABEL_CHARS else text[: MAX_LABEL_CHARS - 1] + "…"
    return short.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def client_metrics() -> str:
    """Return the client library's own metrics: this process, its garbage collector, and metrics registered by users.

    Raises:
        MissingDependencyError: the extra `metrics` is not installed.
    """
    client = require("prometheus_client", extra="metrics")
    return str(client.generate_latest().decode())


def with_client(pages: Iterable[str]) -> str:
    """Return the pages, followed by the client library's own metrics."""
    return "".join(pages) + client_metrics()
