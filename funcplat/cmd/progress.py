"""A progress bar on standard error, for people who wait for many bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

MIB = 1024 * 1024
WIDTH = 30
LINE = 78  # columns that are overwritten at each redraw
REDRAW = 0.1  # seconds


class Bar:
    """Shows how much of ``total`` bytes went through.  A context manager; call it with byte counts."""

    def __init__(self, label: str, total: int | None, stream: TextIO, clock: Callable[[], float]) -> None:
        self._label = label
        self._total = total
        self._stream = stream
        self._clock = clock
        self._done = 0
        self._drawn_at = float("-inf")

    def __call__(self, count: int) -> None:
        self._done += count
        if self._clock() - self._drawn_at >= REDRAW:
            self._draw()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._draw()
        self._stream.write("\n")
        self._stream.flush()

    def _draw(self) -> None:
        self._drawn_at = self._clock()
        self._stream.write(f"\r{self._line():<{LINE}}")
        self._stream.flush()

    def _line(self) -> str:
        done = f"{self._done / MIB:.1f}"
        if not self._total:
            return f"{self._label} {done} MiB"
        share = min(1.0, self._done / self._total)
        filled = int(share * WIDTH)
        bar = "=" * filled + " " * (WIDTH - filled)
        return f"{self._label} [{bar}] {share:4.0%} {done} of {self._total / MIB:.1f} MiB"


class Silent:
    """Shows nothing: not a terminal, or too little to wait for."""

    def __call__(self, count: int) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


def bar(label: str, total: int | None, stream: TextIO) -> Bar | Silent:
    """A bar where ``stream`` is a terminal and ``total`` (bytes; None: not known) is over 1 MiB."""
    if stream.isatty() and (total is None or total > MIB):
        return Bar(label, total, stream, time.monotonic)
    return Silent()
