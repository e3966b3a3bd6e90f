"""The handler's side of direct calls (`lender` has the other): a client's connection, and the call on it."""

from __future__ import annotations

import array
import dataclasses
import fcntl
import os
import re
import select
import termios
import time

from funcplat.worker import board, http, kernel, lender

CONTACT_SECONDS = 0.25
"""Age at which the supervisor is to look at the kernel's counters again: the next call goes through it."""

_RECEIVE = 64 * 1024
_SHORT_RESULT = 64 * 1024
"""Bytes that a connection holds, with a log, of which the client has read all before."""
_SHORT = kernel.once(lender.SHORT)
# The platform's own requests, on a connection that is known; all else is the supervisor's business.
_REQUEST = re.compile(
    rb"POST /invoke HTTP/1\.1\r\n"
    rb"x-timeout: ([0-9]{1,9}(?:\.[0-9]{1,9})?)\r\n"
    rb"x-execution: ([A-Za-z0-9_-]{1,64})\r\n"
    rb"content-length: ([0-9]{1,8})\r\n\r\n"
)


def is_short(result: bytes) -> bool:
    """Whether it may be sent from here: who waits for a client that does not read serves no other."""
    return len(result) <= _SHORT_RESULT


@dataclasses.dataclass(frozen=True, slots=True)
class Surface:
    """What a handler shares with its supervisor for direct calls."""

    board: board.Board
    timer: int  # fd
    output: int  # fd; the reading end of the pipe that output goes to


class Guest:
    """A connection that was lent to this handler."""

    def __init__(self, surface: Surface, connection: int, channel: int, max_log: int) -> None:
        self._surface = surface
        self._fd = connection
        self._channel = channel
        self._max_log = max_log
        self._count = array.array("i", (0,))
        self._contact = time.monotonic()
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._poll.register(connection, select.POLLIN)

    def wait(self) -> bool:
        """Return whether the supervisor has something to say; else the client has."""
        ready = self._poll.poll()
        return len(ready) > 1 or ready[0][0] == self._channel

    def receive(self) -> tuple[bytes, re.Match[bytes] | None]:
        """What the client sent, and the request that it is, if it is one that can be served here.

        Nothing: the client hung up.
        """
        self._surface.board.phase = board.EXCHANGING  # a request read by who then dies must not be waited for
        try:
            data = os.read(self._fd, _RECEIVE)
        except OSError:  # BlockingIOError too: the supervisor may look for itself
            return b"", None
        request = _REQUEST.match(data)
        if request is None or len(data) - request.end() != int(request[3]):
            return data, None
        if time.monotonic() - self._contact > CONTACT_SECONDS:
            return data, None
        return data, request

    def begin(self, request: re.Match[bytes]) -> None:
        """From here on the supervisor is woken if the call takes long."""
        if size := self._written():
            os.read(self._surface.output, size)  # what threads wrote between calls belongs to none
        self._surface.board.post(request[2], float(request[1]), time.monotonic())
        kernel.start_timer(self._surface.timer, _SHORT)

    def end(self) -> bool:
        """Return whether the call is still this handler's to answer; else the supervisor has it."""
        return kernel.stop_timer(self._surface.timer)

    def log(self) -> bytes | None:
        """The call's output; None where it is more than may be kept."""
        size = self._written()
        if size > self._max_log:
            return None
        return os.read(self._surface.output, size) if size else b""

    def answer(self, result: bytes, log: bytes, duration: float) -> None:
        """Answer the call with success."""
        self._surface.board.phase = board.EXCHANGING
        data = http.success(result, log, duration)
        sent = self._write(data)
        while sent < len(data):
            sent += self._write(memoryview(data)[sent:])
        self._surface.board.phase = board.IDLE

    def leave(self) -> None:
        """The connection is the supervisor's again."""
        os.close(self._fd)

    def _write(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            room = select.poll()
            room.register(self._fd, select.POLLOUT)
            room.poll()
            return 0
        except OSError:  # the client is gone, which reading will show
            return len(data)

    def _written(self) -> int:
        fcntl.ioctl(self._surface.output, termios.FIONREAD, self._count)
        return self._count[0]
