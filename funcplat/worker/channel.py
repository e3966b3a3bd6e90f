"""The supervisor's end of the socket pair between it and one handler: bytes, without waiting."""

from __future__ import annotations

import os

from funcplat.worker import loop

RECEIVE = 64 * 1024
"""Bytes read at once."""


class Channel:
    """Sends whole frames, in the background where the handler does not take them, and reads bytes."""

    __slots__ = ("_loop", "_output", "fd")

    def __init__(self, events: loop.Loop, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._loop = events
        self._output: memoryview | None = None  # what the handler did not take yet

    def send(self, frame: bytes) -> None:
        self._send(memoryview(frame))

    def writable(self) -> None:
        """The handler takes more."""
        if self._output is not None:
            self._send(self._output)

    def read(self) -> bytes | None:
        """What has come; None where nothing has, empty at its end."""
        try:
            return os.read(self.fd, RECEIVE)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""

    def close(self) -> None:
        self._loop.forget(self.fd)
        os.close(self.fd)

    def _send(self, data: memoryview) -> None:
        waited = self._output is not None
        try:
            sent = os.write(self.fd, data)
        except BlockingIOError:
            sent = 0
        except ConnectionError:  # it is dead or closed its end: the loop tells about that
            sent = len(data)
        self._output = data[sent:] if sent < len(data) else None
        if waited != (self._output is not None):
            self._loop.change(self.fd, loop.READ | (0 if waited else loop.WRITE))
