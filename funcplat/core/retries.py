"""What is done when an attempt of an asynchronous execution has failed: again, later, or never.  Pure.

Three kinds of failures are told apart by their reason:

* the platform's (`REPEATED`): tried again, `RetryOptions.max_attempts` times in all;
* no room (`AWAITED`): nothing was begun, so that it waits until its maximum age;
* the function's own: tried again only where whoever called it asked for that.

All others end the execution.  A repeated attempt may run what has run before: that is what at-least-once
means.
"""

from __future__ import annotations

import dataclasses
import json
import random

from oslo_config import cfg

from funcplat.errors import ReasonCode

REPEATED = frozenset(
    (
        ReasonCode.WORKER_DIED,
        ReasonCode.WORKER_STOPPED,
        ReasonCode.START_FAILED,
        ReasonCode.SERVER_LOST,
        ReasonCode.RUNTIME_NOT_AVAILABLE,
        ReasonCode.DRIVER_UNAVAILABLE,
    )
)
"""The platform could not run it, or not to its end, which may be otherwise the next time."""
AWAITED = frozenset((ReasonCode.NO_CAPACITY, ReasonCode.QUEUE_FULL, ReasonCode.QUEUE_TIMEOUT))
"""There was no room for it; it was not begun."""
_FINAL = frozenset(
    (
        ReasonCode.PLATFORM_ERROR,  # its outcome could not be kept: it has run
        ReasonCode.FUNCTION_DELETED,
        ReasonCode.EXPIRED,
        ReasonCode.CANCELLED,
    )
)
MAX_ATTEMPTS = 100
"""Most attempts that a caller may ask for."""
MAX_DELAY = 3600.0
"""Longest first pause that a caller may ask for, in seconds."""


@dataclasses.dataclass(frozen=True, slots=True)
class RetryOptions:
    """What the operator allows; see [engine]."""

    max_attempts: int = 3
    delay: float = 1.0  # seconds before the second attempt
    max_delay: float = 60.0  # seconds

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts) -> RetryOptions:
        group = conf.engine
        return cls(group.max_attempts, group.retry_delay, group.retry_max_delay)


@dataclasses.dataclass(frozen=True, slots=True)
class Retry:
    """What a caller asks for where the function itself fails."""

    max_attempts: int
    delay: float | None = None  # seconds before the second one; None: the operator's

    def text(self) -> str:
        """As it is kept."""
        return json.dumps({"max_attempts": self.max_attempts, "delay": self.delay})

    @classmethod
    def of(cls, text: str | None) -> Retry:
        return cls(1) if text is None else cls(**json.loads(text))


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that has failed, and what went before."""

    status: str  # failed or error
    reason: str | None  # a ReasonCode
    attempt: int  # its number, from 1
    losses: int  # earlier attempts that failed by the platform's doing, and count
    failures: int  # ... by the function's doing
    retry: str | None = None  # as kept


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the execution."""

    delay: float | None  # seconds until the next attempt; None: there is none
    dead: bool  # the platform has given it up: a dead letter
    losses: int
    failures: int


def judge(failed: Failed, options: RetryOptions) -> Verdict:
    """What becomes of an execution whose attempt has failed."""
    losses, failures = failed.losses, failed.failures
    if failed.reason in AWAITED:
        return Verdict(pause(failed.attempt, options.delay, options.max_delay), False, losses, failures)
    if failed.reason in REPEATED:
        losses += 1
        if losses >= options.max_attempts:
            return Verdict(None, True, losses, failures)
        return Verdict(pause(losses, options.delay, options.max_delay), False, losses, failures)
    if failed.reason in _FINAL or failed.status == "error":
        return Verdict(None, failed.reason != ReasonCode.CANCELLED, losses, failures)
    failures += 1
    retry = Retry.of(failed.retry)
    if failures >= retry.max_attempts:
        return Verdict(None, retry.max_attempts > 1, losses, failures)
    first = options.delay if retry.delay is None else retry.delay
    return Verdict(pause(failures, first, max(first, options.max_delay)), False, losses, failures)


def pause(number: int, first: float, most: float) -> float:
    """Seconds after failure ``number`` (from 1): exponential, and between half and all of it at random."""
    whole = min(most, first * 2.0 ** min(number - 1, 60))
    return whole * random.uniform(0.5, 1.0)  # noqa: S311  spreads load, guards nothing
