"""What a run has found: tables for people, values for programs."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Target:
    """A number to reach, and what was measured."""

    name: str
    measured: float
    limit: float
    unit: str
    at_least: bool = False  # else: at most

    @property
    def met(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def row(self) -> tuple[str, ...]:
        bound = "at least" if self.at_least else "at most"
        unit = "x" if self.unit == "x" else f" {self.unit}"
        return (
            self.name,
            f"{self.measured:.2f}{unit}",
            f"{bound} {self.limit:g}{unit}",
            "met" if self.met else "MISSED",
        )


@dataclasses.dataclass(frozen=True)
class Section:
    """A table with what there is to say about it."""

    name: str
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    targets: Sequence[Target] = ()
    samples: Any = None  # JSON of everything that was measured

    def text(self) -> str:
        lines = [self.title, "-" * len(self.title), *table(self.head, self.rows)]
        return "\n".join([*lines, *(f"* {note}" for note in self.notes)])


TARGET_HEAD = ("number to reach", "measured", "target", "")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines in columns; the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
    """Median and, in brackets, least and most."""
    middle, least, most = (value * scale for value in (statistics.median(values), min(values), max(values)))
    return f"{middle:.{digits}f} ({least:.{digits}f}-{most:.{digits}f})"


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
