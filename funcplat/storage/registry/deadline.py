"""How long a call may take, over all of its requests."""

from __future__ import annotations

import dataclasses
import time

from funcplat import errors


@dataclasses.dataclass(frozen=True, slots=True)
class Deadline:
    """A moment by which a call must have ended."""

    seconds: float  # as the caller gave them
    until: float  # on the monotonic clock

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(seconds, time.monotonic() + seconds)

    def left(self, what: str) -> float:
        """Seconds that are left, more than 0.  Raises DriverTimeout that names what was not done in time."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise errors.DriverTimeout(f"{what}: not done within {self.seconds:g} s")
        return left
