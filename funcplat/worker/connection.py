"""One connection of a client: requests in, answers out, strictly in turn."""

from __future__ import annotations

import os
from typing import Protocol

from funcplat.worker import http, loop

_RECEIVE = 64 * 1024


class Sink(Protocol):
    """Takes the body of a request as it comes."""

    def write(self, data: bytes) -> None: ...

    def done(self, connection: Connection) -> None:
        """The body is complete: answer."""

    def abandon(self) -> None:
        """The client went away before the body was complete."""


class Application(Protocol):
    """What answers the requests."""

    def serve(self, connection: Connection, head: http.Head, body: bytes) -> None:
        """Answer a request that came whole, now or later."""

    def receive(self, connection: Connection, head: http.Head) -> Sink | None:
        """Take the body of a longer request; None where the connection was answered with `refuse`."""

    def closed(self, connection: Connection) -> None:
        """The connection is gone."""


class Connection:
    """Reads one request, waits for its `answer`, reads the next.

    While an answer is due no further byte may come: a client that sends some is cut off.  A client that
    goes away does not end what it started; the answer is dropped then.
    """

    __slots__ = (
        "_application",
        "_busy",
        "_closing",
        "_head",
        "_loop",
        "_missing",
        "_out",
        "_sink",
        "fd",
        "trusted",
    )

    def __init__(self, events: loop.Loop, fd: int, application: Application) -> None:
        os.set_blocking(fd, False)
        self._loop = events
        self._application = application
        self._head = b""  # bytes of a head that is not complete yet
        self._sink: Sink | None = None
        self._missing = 0  # bytes of the body that the sink still waits for
        self._busy = False  # a request is being served
        self._closing = False  # close when all is sent
        self._out: memoryview | None = None  # what the peer did not take yet
        self.trusted = False  # it has sent the right secret
        self.fd = fd
        events.watch(self.fd, loop.READ, self._ready)

    @property
    def open(self) -> bool:
        return self.fd >= 0

    def answer(self, data: bytes) -> None:
        """Send the answer to the present request; without effect where the client is gone."""
        self._busy = False
        if self.fd < 0:
            return
        try:
            sent = os.write(self.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:  # the client is gone
            self.close()
            return
        if sent < len(data):
            self._out = memoryview(data)[sent:]
            self._loop.change(self.fd, loop.WRITE)
        elif self._closing:
            self.close()

    # -- in the hands of a handler -----------------------------------------------------------------------

    @property
    def can_be_lent(self) -> bool:
        """Whether all is answered and sent, to a client that is known."""
        return self.trusted and self.fd >= 0 and not (self._busy or self._closing or self._out)

    def lend(self) -> None:
        """Read no further: somebody else does."""
        self._loop.forget(self.fd)

    def resume(self, data: bytes) -> None:
        """Read again; ``data`` was read by the other."""
        if self.fd >= 0:
            self._loop.watch(self.fd, loop.READ, self._ready)
            if data:
                self._parse(data)

    def seize(self) -> None:
        """Read again; a request that the other took is to be answered here."""
        if self.fd >= 0:
            self._busy = True
            self._loop.watch(self.fd, loop.READ, self._ready)

    def refuse(self, status: int, message: str) -> None:
        """Answer, and close the connection: what follows on it cannot be understood or is not wanted."""
        self._closing = True
        self.answer(http.answer(status, message.encode("utf-8", "replace")))

    def close(self) -> None:
        if self.fd < 0:
            return
        self._loop.forget(self.fd)
        os.close(self.fd)
        self.fd = -1
        if self._sink is not None:
            self._sink.abandon()
            self._sink = None
        self._application.closed(self)

    def _ready(self, events: int) -> None:
        if self._out is not None:
            self._flush(self._out)
            return
        try:
            data = os.read(self.fd, _RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data or self._busy or self._closing:
            self.close()
        elif self._sink is not None:
            self._feed(self._sink, data)
        else:
            self._parse(self._head + data if self._head else data)

    def _flush(self, rest: memoryview) -> None:
        try:
            sent = os.write(self.fd, rest)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if sent < len(rest):
            self._out = rest[sent:]
            return
        self._out = None
        self._loop.change(self.fd, loop.READ)
        if self._closing:
            self.close()

    def _parse(self, data: bytes) -> None:
        end = data.find(b"\r\n\r\n")
        if end + 4 > http.MAX_HEAD or (end < 0 and len(data) >= http.MAX_HEAD):
            self.refuse(400, f"the head of the request is longer than {http.MAX_HEAD} bytes")
            return
        if end < 0:
            self._head = data
            return
        self._head = b""
        try:
            head = http.parse(data[:end])
        except http.BadRequest as error:
            self.refuse(400, str(error))
            return
        self._begin(head, data[end + 4 :])

    def _begin(self, head: http.Head, body: bytes) -> None:
        missing = head[2] - len(body)
        if missing < 0:
            self.refuse(
                400, "more bytes came than content-length says; pipelining is not part of the protocol"
            )
            return
        if missing == 0:
            self._busy = True
            self._application.serve(self, head, body)
            return
        self._sink = self._application.receive(self, head)
        if self._sink is not None:
            self._missing = head[2]
            if body:
                self._feed(self._sink, body)

    def _feed(self, sink: Sink, data: bytes) -> None:
        self._missing -= len(data)
        if self._missing < 0:
            self.refuse(
                400, "more bytes came than content-length says; pipelining is not part of the protocol"
            )
            return
        sink.write(data)
        if self._missing == 0:
            self._sink = None
            self._busy = True
            sink.done(self)
