"""The supervisor's event loop: descriptors and one clock."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
ONCE = select.EPOLLONESHOT

_BATCH = 64  # events taken at once
_LONGEST = 1e6  # seconds; the kernel takes milliseconds in 31 bits


class Loop:
    """Calls back for descriptors that are ready, and a ticker when its time has come.

    A callback may come once too often (its descriptor was closed, and the number reused, within one batch
    of events): callbacks must bear finding nothing to do.
    """

    # PERF: epoll and a dict of bound methods; `selectors` costs 3 us more in every round.

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._next_at = math.inf
        self._running = True
        self.ticker: Callable[[float], float] = _never

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(events)`` when one of the events, an error or a hang-up occurs at ``fd``."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Watch for other events; also arms a descriptor again that is watched ONCE."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Watch no more.  To be called before the descriptor is closed; idempotent."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def at(self, when: float) -> None:
        """Have the ticker called at this time of the monotonic clock, or earlier."""
        if when < self._next_at:
            self._next_at = when

    def stop(self) -> None:
        """Let `run` return."""
        self._running = False

    def run(self) -> None:
        """Serve events until `stop`."""
        poll = self._epoll.poll
        callbacks = self._callbacks
        monotonic = time.monotonic
        while self._running:
            timeout = None
            if self._next_at != math.inf:
                now = monotonic()
                if self._next_at <= now:
                    self._next_at = math.inf
                    self.at(self.ticker(now))
                wait = min(max(0.0, self._next_at - now), _LONGEST)
                timeout = wait if self._next_at != math.inf else None
            for fd, events in poll(timeout, _BATCH):
                callback = callbacks.get(fd)
                if callback is not None:
                    callback(events)


def _never(now: float) -> float:
    return math.inf
