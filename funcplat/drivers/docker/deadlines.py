"""Time that remains."""

from __future__ import annotations

import time

from funcplat import errors


class Deadline:
    """A moment by which something must be done."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds, more than 0.  Raises DriverTimeout when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise errors.DriverTimeout(f"the Docker driver did not get done within {self._seconds:g} s")
        return left
