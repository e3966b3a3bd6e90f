"""Answers that say how many."""

from __future__ import annotations

import msgspec


class RedrivenView(msgspec.Struct):
    """How many dead letters were queued again."""

    redriven: int


class PurgedView(msgspec.Struct):
    """How many dead letters were deleted."""

    purged: int


class SettledView(msgspec.Struct):
    """Asynchronous executions that ended, or were deleted before they did."""

    success: int
    failed: int
    error: int
    deleted: int


class CensusView(msgspec.Struct):
    """Asynchronous executions: accepted = queued + delayed + running + settled."""

    accepted: int
    queued: int
    delayed: int
    running: int
    settled: SettledView
    dead_letters: int
    conserved: bool


class StatsView(msgspec.Struct):
    """Counts of all projects together."""

    executions: CensusView
