"""The output of one execution, up to a cap, and the pipe that it comes through."""

from __future__ import annotations

import array
import fcntl
import os
import termios
from collections.abc import Callable

from funcplat.worker import loop


class Log:
    """The first ``cap`` bytes of what was written, and a count of the rest."""

    __slots__ = ("cap", "data", "dropped")

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.data = bytearray()
        self.dropped = 0

    def write(self, data: bytes) -> None:
        room = self.cap - len(self.data)
        if len(data) <= room:
            self.data += data
        else:
            self.data += data[:room]
            self.dropped += len(data) - room


class Pipe:
    """The reading end of what a handler's output goes to, and the log of its present execution."""

    __slots__ = ("_armed", "_cap", "_count", "_fd", "_loop", "_ready", "log")

    def __init__(self, events: loop.Loop, fd: int, cap: int, ready: Callable[[], None]) -> None:
        """``ready`` is called when there is output, once for each `arm`."""
        os.set_blocking(fd, False)
        self.log = Log(cap)
        self._cap = cap
        self._fd = fd
        self._loop = events
        self._ready = ready
        self._count = array.array("i", (0,))  # takes answers of the kernel
        self._armed = False  # the loop watches it
        events.watch(fd, loop.ONCE, self._readable)

    def arm(self) -> None:
        if not self._armed:
            self._armed = True
            self._loop.change(self._fd, loop.READ | loop.ONCE)

    def begin(self) -> None:
        """The log of another execution begins, with what is written from now on."""
        self.take()
        self.begin_before()

    def begin_before(self) -> None:
        """The log of another execution begins, with what was written already."""
        self.log = Log(self._cap)

    def drain(self) -> int:
        """Move what the pipe holds now to the log; return how many bytes that were."""
        data = self.take()
        if data:
            self.log.write(data)
        return len(data)

    def take(self) -> bytes:
        """What the pipe holds now."""
        # PERF: asking is 0.5 us; a read that finds nothing raises and costs 3 us.
        fcntl.ioctl(self._fd, termios.FIONREAD, self._count)
        if not self._count[0]:
            return b""
        try:
            return os.read(self._fd, self._count[0])
        except BlockingIOError:  # the function opened the pipe for itself, and was quicker
            return b""

    def close(self) -> None:
        self._loop.forget(self._fd)
        os.close(self._fd)

    def _readable(self, events: int) -> None:
        self._armed = False
        self._ready()
