"""What happened in a run, and how it is told."""

from __future__ import annotations

import collections
import dataclasses
import threading
import time

PROGRESS_INTERVAL = 10.0
TEXT_LIMIT = 20_000


@dataclasses.dataclass
class Report:
    """Counts, failures and what was left out; prints failures as they come.  Thread-safe."""

    passed: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    skips: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    omissions: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._said = time.monotonic()

    def section(self, title: str) -> None:
        """A heading between parts of the output."""
        self.say(f"\n=== {title}")

    def say(self, text: str) -> None:
        with self._lock:
            print(text, flush=True)

    def passes(self) -> None:
        """One test more that passed."""
        self.passed += 1
        if time.monotonic() - self._said > PROGRESS_INTERVAL:
            self._said = time.monotonic()
            self.say(f"{_tests(self.passed)} passed so far, {len(self.failures)} failures")

    def skip(self, reason: str) -> None:
        """One test more that was skipped for ``reason``."""
        self.skips[reason] += 1

    def fail(self, name: str, text: str) -> None:
        """One failure more: a test, a check or a server."""
        self.failures.append(name)
        if len(text) > TEXT_LIMIT:
            text = f"[{len(text) - TEXT_LIMIT} characters left out]\n{text[-TEXT_LIMIT:]}"
        self.say(f"\n--- FAILED: {name}\n{text.rstrip()}\n---")

    def omit(self, what: str) -> None:
        """Something that this run does not do, and why."""
        self.omissions.append(what)

    def conclude(self, skips_fail: bool) -> int:
        """Print the end of the output; the exit status."""
        skipped = self.skips.total()
        left_out = self.omissions + [f"{_tests(count)}: {reason}" for reason, count in self.skips.items()]
        if left_out:
            self.section("Left out")
            self.say("\n".join(f"- {line}" for line in left_out))
        if self.failures:
            self.section("Failed")
            self.say("\n".join(f"- {name}" for name in self.failures))
        if skips_fail and skipped:
            self.say(f"\nNothing may be left out in this run, but {_tests(skipped)} were.")
        self.say(f"\n{self.passed} passed, {len(self.failures)} failed, {skipped} skipped")
        return 1 if self.failures or (skips_fail and skipped) or not self.passed else 0


def _tests(count: int) -> str:
    return "1 test" if count == 1 else f"{count} tests"
