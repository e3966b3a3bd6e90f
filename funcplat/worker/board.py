"""What a handler tells about the call that it runs for a client directly: a page that it shares.

The supervisor reads it when the call takes long or the handler ends.  User code can write to it: a lie
costs its own execution, and no other.
"""

from __future__ import annotations

import dataclasses
import mmap
import re
import struct
import time

IDLE, RUNNING, EXCHANGING = range(3)
"""Phases: no call; the function runs, and can be taken over; a request or an answer is under way."""

_LAYOUT = struct.Struct("=BddB64s")  # phase, start, timeout, length of the execution's id, id
_EXECUTION = re.compile(rb"[A-Za-z0-9_-]{1,64}")


@dataclasses.dataclass(frozen=True, slots=True)
class Posted:
    """A call that runs."""

    execution: bytes
    timeout: float  # seconds
    started: float  # time.monotonic()


def unknown() -> Posted:
    """What stands for a call about which the board lies."""
    return Posted(b"-", 1.0, time.monotonic())


class Board:
    """To be made before the fork."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def phase(self) -> int:
        return self._page[0]

    @phase.setter
    def phase(self, phase: int) -> None:
        self._page[0] = phase

    def post(self, execution: bytes, timeout: float, started: float) -> None:
        """A call begins."""
        _LAYOUT.pack_into(self._page, 0, RUNNING, started, timeout, len(execution), execution)

    def read(self) -> Posted | None:
        """The call that runs; None where there is none, or nothing that could be one."""
        phase, started, timeout, length, execution = _LAYOUT.unpack_from(self._page)
        execution = execution[:length]
        now = time.monotonic()
        sane = 0.0 < timeout < 1e9 and started <= now and _EXECUTION.fullmatch(execution) is not None
        return Posted(execution, timeout, started) if phase == RUNNING and sane else None

    def close(self) -> None:
        self._page.close()
