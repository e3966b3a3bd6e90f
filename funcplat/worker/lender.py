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
from typing import Protocol

from funcplat.worker import board, connection, frames, kernel, loop

SHORT = 0.005
"""Seconds that a call may take before the supervisor takes it over."""
TAKING_SECONDS = 1.0
"""Time for a handler that has answered to take a connection; one that does not is not done with the call."""


class Borrower(Protocol):
    """The handler, as its supervisor sees it.  Each of these is called when it has no client any more."""

    def free(self) -> None:
        """It can take a call."""

    def take_over(self, client: connection.Connection, posted: board.Posted) -> None:
        """A call that it runs is the supervisor's from here on, who answers it on this connection."""

    def bereave(self) -> None:
        """It is not to take another call: it is dead, or is to be."""

    def denounce(self, lie: str) -> None:
        """Its function meddles with the platform, and did this."""


class Lender:
    """Lends connections to one handler, one at a time.  What comes from the handler may be a lie."""

    __slots__ = ("_board", "_borrower", "_client", "_loop", "_socket", "_timer")

    def __init__(
        self, events: loop.Loop, channel: int, page: board.Board, timer: int, borrower: Borrower
    ) -> None:
        """Takes over the timer's descriptor."""
        self._board = page
        self._borrower = borrower
        self._client: connection.Connection | None = None
        self._loop = events
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, channel)
        self._timer = timer
        events.watch(timer, loop.READ, self._overdue)

    @property
    def running(self) -> bool:
        """Whether the handler runs a call of the client whose connection it has."""
        return self._client is not None and self._board.phase == board.RUNNING

    def lend(self, client: connection.Connection) -> bool:
        """Lend a connection; False where the handler does not take it."""
        self._board.phase = board.IDLE
        descriptor = array.array("i", (client.fd,))
        try:
            self._socket.sendmsg([frames.LEND], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptor)])
        except OSError:  # its channel is full, or closed
            return False
        client.lend()
        self._client = client
        return True

    def recall(self) -> None:
        """Ask for the connection; the handler gives it back when it has no call."""
        if self._client is not None:
            try:
                self._socket.send(frames.RECALL)
            except OSError:
                return  # the loop tells about a handler that is gone

    def returned(self, data: bytes) -> None:
        """The handler gave the connection back, with what it has read of a request."""
        client = self._take_back()
        self._borrower.free()
        client.resume(data)

    def take_over(self) -> bool:
        """Hand the call that the handler runs to the supervisor; False where the board lies about it."""
        posted = self._board.read()
        self._hand_over(posted)
        if posted is None:
            self._borrower.denounce("meddled with what its process shares with its supervisor")
        return posted is not None

    def reclaim(self) -> None:
        """The handler will not give its client back, if it has one: it is dead, or is to be."""
        if self.running:
            self._hand_over(self._board.read())
        elif self._client is not None:
            client = self._take_back()
            self._borrower.bereave()
            if self._board.phase == board.IDLE:
                client.resume(b"")
            else:
                client.close()  # its request is lost, or nobody knows how much of an answer it has got

    def close(self) -> None:
        self._loop.forget(self._timer)
        os.close(self._timer)
        self._socket.detach()
        self._board.close()

    def _overdue(self, _events: int) -> None:
        if self._expired() and self._client is not None:
            self.take_over()

    def _hand_over(self, posted: board.Posted | None) -> None:
        client = self._take_back()
        client.seize()
        self._borrower.take_over(client, posted or board.unknown())

    def _take_back(self) -> connection.Connection:
        """The connection, which is the supervisor's again."""
        client = self._client
        assert client is not None
        self._client = None
        # An expiry that nobody has seen, or that is yet to come, must not be one of the next call.
        kernel.stop_timer(self._timer)
        return client

    def _expired(self) -> bool:
        try:
            os.read(self._timer, kernel.EXPIRATIONS)
        except BlockingIOError:
            return False
        return True
