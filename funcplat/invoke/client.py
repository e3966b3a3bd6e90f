"""Connections to workers: the asynchronous side of the worker protocol, for calls only."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time
import urllib.parse
from collections.abc import Mapping
from typing import cast

from funcplat import errors
from funcplat.drivers.base import Address

MAX_HEAD = 8192
MAX_EXPLANATION = 64 * 1024
"""Bytes of a failure's result at most, also where results of successes must be smaller."""
MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of an answer's body at most, where nothing else is said."""
CONNECT_DEADLINE = 5.0
"""Seconds; a worker that runs accepts at once."""


class NotReached(errors.WorkerError):
    """The worker cannot be reached: the call has not been made, another worker may take it."""

    code = "worker_error"


class Refused(errors.WorkerError):
    """The worker refused the call before any work: another worker may take it."""

    code = "worker_error"

    def __init__(self, draining: bool) -> None:
        super().__init__("the worker drains" if draining else "the worker is full")
        self.draining = draining


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a worker says of one execution."""

    success: bool
    duration: str  # seconds, as text
    result: bytes  # JSON
    log: bytes
    reason: str | None
    message: str | None
    log_dropped: int  # bytes


class Connection(asyncio.Protocol):
    """One kept connection; one request at a time.

    # PERF(client): parsing the fixed subset of the protocol by hand costs 6 us a call where an HTTP library
    # costs 60 to 300, and this is on the path of every call.
    """

    __slots__ = ("_buffer", "_head", "_max_answer", "_need", "_transport", "_waiter", "closed", "known")

    def __init__(self, max_answer: int = MAX_ANSWER) -> None:
        self._max_answer = max_answer
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[tuple[int, dict[bytes, bytes], bytes]] | None = None
        self._buffer = b""
        self._head: tuple[int, dict[bytes, bytes]] | None = None
        self._need = 0
        self.closed = False
        self.known = False  # the worker needs the secret no more

    async def request(self, data: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        """Send one request and return status, headers and body.

        Raises NotReached where the connection was closed before anything was sent, else WorkerError.
        """
        if self.closed or self._transport is None:
            raise NotReached
        waiter: asyncio.Future[tuple[int, dict[bytes, bytes], bytes]]
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        try:
            return await waiter
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's by class.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(errors.WorkerError("the worker closed the connection"))

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():
            # Nobody asked. It must not be taken for the answer to the next request.
            self.close()
            return
        self._buffer = self._buffer + data if self._buffer else data
        if self._head is None and not self._parse_head():
            return
        if len(self._buffer) >= self._need:
            self._finish()

    def _parse_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD:
                self._fail("an answer with too long a head")
            return False
        try:
            first, *lines = self._buffer[:end].split(b"\r\n")
            headers = dict(line.split(b": ", 1) for line in lines)
            self._head = int(first[9:12]), headers
            self._need = int(headers[b"content-length"])
        except (ValueError, KeyError):
            self._fail("an answer that is not of the protocol")
            return False
        if not 0 <= self._need <= self._max_answer:
            self._fail(f"an answer of {self._need} bytes")
            return False
        self._buffer = self._buffer[end + 4 :]
        return True

    def _finish(self) -> None:
        assert self._head is not None
        assert self._waiter is not None
        if len(self._buffer) > self._need:
            self._fail("more than it was asked for")
            return
        body, self._buffer = self._buffer, b""
        (status, headers), self._head = self._head, None
        self._waiter.set_result((status, headers, body))

    def _fail(self, what: str) -> None:
        self.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(errors.WorkerError(f"the worker sent {what}"))


async def connect(address: Address, max_answer: int = MAX_ANSWER) -> Connection:
    """``max_answer`` in bytes.  Raises NotReached."""
    loop = asyncio.get_running_loop()
    protocol = functools.partial(Connection, max_answer)
    try:
        async with asyncio.timeout(CONNECT_DEADLINE):
            if address.socket is not None:
                return (await loop.create_unix_connection(protocol, address.socket))[1]
            assert address.host is not None and address.port is not None
            return (await loop.create_connection(protocol, address.host, address.port))[1]
    except (OSError, TimeoutError) as error:
        raise NotReached(f"the worker cannot be reached: {error}") from error


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """The constant start of the requests to one worker."""

    full: bytes
    known: bytes  # on a connection that the worker knows

    @classmethod
    def of(cls, secret: str, timeout: int) -> Head:
        """``timeout`` in seconds."""
        first, rest = "POST /invoke HTTP/1.1\r\n", f"x-timeout: {timeout}\r\nx-execution: "
        return cls(f"{first}x-secret: {secret}\r\n{rest}".encode(), f"{first}{rest}".encode())


async def invoke(connection: Connection, head: Head, execution_id: str, body: bytes) -> Answer:
    """Make one call.  Raises Refused, NotReached or WorkerError."""
    start = head.known if connection.known else head.full
    began = time.perf_counter()
    status, headers, content = await connection.request(
        b"%s%s\r\ncontent-length: %d\r\n\r\n%s" % (start, execution_id.encode(), len(body), body)
    )
    connection.known = headers.get(b"x-secret") == b"known"
    if status != 200:
        if status in (429, 503):
            raise Refused(draining=status == 503)
        raise errors.WorkerError(f"the worker answered {status}: {content[:200].decode('utf-8', 'replace')}")
    return _answer(headers, content, time.perf_counter() - began)


async def live_log(connection: Connection, secret: str, execution_id: str, offset: int) -> bytes | None:
    """What a running execution wrote; None where it does not run there."""
    path = f"/log?execution={execution_id}&offset={offset}"
    status, _, body = await connection.request(
        f"GET {path} HTTP/1.1\r\nx-secret: {secret}\r\ncontent-length: 0\r\n\r\n".encode()
    )
    return body if status == 200 else None


async def cancel(connection: Connection, secret: str, execution_id: str) -> bool:
    """Have a running execution killed; False: this worker cannot.  Raises NotReached or WorkerError."""
    status, _, _ = await connection.request(
        f"POST /cancel?execution={execution_id} HTTP/1.1\r\n"
        f"x-secret: {secret}\r\ncontent-length: 0\r\n\r\n".encode()
    )
    return status != 404


def _answer(headers: Mapping[bytes, bytes], content: bytes, elapsed: float) -> Answer:
    # A worker may be the work of anybody, and a function can speak in its name.
    try:
        length = int(headers[b"x-result-length"])
        duration = min(max(0.0, float(headers[b"x-duration"])), elapsed)
        reason, message = headers.get(b"x-reason"), headers.get(b"x-message")
        return Answer(
            success=headers[b"x-status"] == b"success",
            duration=f"{duration:.6f}",
            result=content[:length],
            log=content[length:],
            reason=None if reason is None else reason.decode("ascii"),
            message=None if message is None else urllib.parse.unquote(message.decode("ascii")),
            log_dropped=int(headers.get(b"x-log-dropped", 0)),
        )
    except (KeyError, ValueError) as error:
        raise errors.WorkerError("the worker's answer lacks what the protocol demands") from error
