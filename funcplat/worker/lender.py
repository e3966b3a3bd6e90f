"""The supervisor's side of direct calls: a client's connection is lent to a handler.

Most calls are over before anybody could do anything about them, and handing each through the supervisor
costs as much as the call.  So a handler that has answered quickly is lent the connection: it reads the
client's next request itself, runs it, and answers.  What the supervisor owes every call it still gives:

* a timer of the kernel, which the handler starts before each call and stops after it, wakes the supervisor
  when the call is not a short one; from then on it is the supervisor's: deadline, output and answer;
* a handler that dies during a call leaves on its `board` which one it was;
* whatever is not the success of a short call, the handler leaves to the supervisor to explain.
"""

from __future__ import annotations

import _socket
import array
import os
from collections.abc import Callable

from funcplat.worker import board, connection, frames, kernel, loop

SHORT = 0.005
"""Seconds that a call may take before the supervisor takes it over."""


class Lender:
    """Lends connections to one handler, one at a time."""

    __slots__ = ("_loop", "_socket", "_timer", "board", "connection")

    def __init__(
        self, events: loop.Loop, channel: int, page: board.Board, timer: int, overdue: Callable[[], None]
    ) -> None:
        """``overdue`` is called when a call was not short.  Takes over the timer's descriptor."""
        self.board = page
        self.connection: connection.Connection | None = None
        self._loop = events
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, channel)
        self._timer = timer
        events.watch(timer, loop.READ, lambda _events: overdue() if self._expired() else None)

    @property
    def running(self) -> bool:
        """Whether the handler runs a call of the client whose connection it has."""
        return self.connection is not None and self.board.phase == board.RUNNING

    def lend(self, client: connection.Connection) -> bool:
        """Lend a connection; False where the handler does not take it."""
        self.board.phase = board.IDLE
        descriptor = array.array("i", (client.fd,))
        try:
            self._socket.sendmsg([frames.LEND], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptor)])
        except OSError:  # its channel is full, or closed
            return False
        client.lend()
        self.connection = client
        return True

    def recall(self) -> None:
        """Ask for the connection; the handler gives it back when it has no call."""
        if self.connection is not None:
            try:
                self._socket.send(frames.RECALL)
            except OSError:
                return  # the loop tells about a handler that is gone

    def take_back(self) -> connection.Connection:
        """The connection, which is the supervisor's again."""
        client = self.connection
        assert client is not None
        self.connection = None
        self._expired()  # an expiry that nobody has seen must not be one of the next call
        return client

    def close(self) -> None:
        self._loop.forget(self._timer)
        os.close(self._timer)
        self._socket.detach()
        self.board.close()

    def _expired(self) -> bool:
        try:
            os.read(self._timer, kernel.EXPIRATIONS)
        except BlockingIOError:
            return False
        return True
