"""Merges the metrics pages of several processes that appear as one engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

_BY_LARGEST = ("_info", "_free_bytes", "_limit_bytes", "_timestamp_seconds")
_OF_MACHINE = ("framewire_gpu_utilization_ratio", "framewire_gpu_memory_used_bytes")
_BY_SMALLEST = ("framewire_model_loaded",)


@dataclass(slots=True)
class _Family:
    head: list[str] = field(default_factory=list)
    samples: dict[str, float] = field(default_factory=dict)


def merged_pages(pages: Iterable[str]) -> str:
    """Return one page: counters, histograms and most gauges are summed; facts that apply to all processes appear once.

    >>> print(merged_pages(["# TYPE a_total counter\\na_total{x=\\"1\\"} 2\\n", "a_total{x=\\"1\\"} 3\\n"]), end="")
    # TYPE a_total counter
    a_total{x="1"} 5
    """
    families: dict[str, _Family] = {}
    for page in pages:
        for line in page.splitlines():
            if line.startswith("#"):
                head = families.setdefault(line.split(" ", 3)[2], _Family()).head
                if line not in head:
                    head.append(line)
            elif line:
                _take(families, line)
    return "".join(
        f"{line}\n"
        for family in families.values()
        if family.samples
        for line in (*family.head, *(f"{name} {_text(value)}" for name, value in family.samples.items()))
    )


def _take(families: dict[str, _Family], line: str) -> None:
    name, _, value = line.rpartition(" ")
    metric = name.partition("{")[0]
    base = next((metric.removesuffix(end) for end in ("_bucket", "_sum", "_count") if metric.endswith(end)), metric)
    family = families.get(metric) or families.get(base) or families.setdefault(metric, _Family())
    before, number = family.samples.get(name), float(value)
    family.samples[name] = number if before is None else _how(metric)(before, number)


def _how(metric: str) -> Callable[[float, float], float]:
    if metric.endswith(_BY_LARGEST) or metric in _OF_MACHINE:
        return max
    return min if metric in _BY_SMALLEST else float.__add__


def _text(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(round(value, 9))
