"""Connections to workers: the asynchronous side of the worker protocol, for calls only."""

from __future__ import annotations

import asyncio
import dataclasses
import urllib.parse
from collections.abc import Mapping
from typing import cast

from funcplat import errors
from funcplat.drivers.base import Address

MAX_HEAD = 8192
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

    __slots__ = ("_buffer", "_head", "_need", "_transport", "_waiter", "closed")

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[tuple[int, dict[bytes, bytes], bytes]] | None = None
        self._buffer = b""
        self._head: tuple[int, dict[bytes, bytes]] | None = None
        self._need = 0
        self.closed = False

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
        self._buffer = self._buffer[end + 4 :]
        return True

    def _finish(self) -> None:
        assert self._head is not None
        if len(self._buffer) > self._need or self._waiter is None:
            self._fail("more than it was asked for")
            return
        body, self._buffer = self._buffer, b""
        (status, headers), self._head = self._head, None
        if not self._waiter.done():
            self._waiter.set_result((status, headers, body))

    def _fail(self, what: str) -> None:
        self.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(errors.WorkerError(f"the worker sent {what}"))


async def connect(address: Address) -> Connection:
    """Raises NotReached."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_DEADLINE):
            if address.socket is not None:
                return (await loop.create_unix_connection(Connection, address.socket))[1]
            assert address.host is not None and address.port is not None
            return (await loop.create_connection(Connection, address.host, address.port))[1]
    except (OSError, TimeoutError) as error:
        raise NotReached(f"the worker cannot be reached: {error}") from error


async def invoke(connection: Connection, head: bytes, execution_id: str, body: bytes) -> Answer:
    """Make one call.  ``head`` is `invoke_head`'s.  Raises Refused, NotReached or WorkerError."""
    status, headers, content = await connection.request(
        b"%s%s\r\ncontent-length: %d\r\n\r\n%s" % (head, execution_id.encode(), len(body), body)
    )
    if status != 200:
        if status in (429, 503):
            raise Refused(draining=status == 503)
        raise errors.WorkerError(f"the worker answered {status}: {content[:200].decode('utf-8', 'replace')}")
    return _answer(headers, content)


def invoke_head(secret: str, timeout: int) -> bytes:
    """The constant start of the requests to one worker."""
    return f"POST /invoke HTTP/1.1\r\nx-secret: {secret}\r\nx-timeout: {timeout}\r\nx-execution: ".encode()


async def live_log(connection: Connection, secret: str, execution_id: str, offset: int) -> bytes | None:
    """What a running execution wrote; None where it does not run there."""
    path = f"/log?execution={execution_id}&offset={offset}"
    status, _, body = await connection.request(
        f"GET {path} HTTP/1.1\r\nx-secret: {secret}\r\ncontent-length: 0\r\n\r\n".encode()
    )
    return body if status == 200 else None


def _answer(headers: Mapping[bytes, bytes], content: bytes) -> Answer:
    try:
        length = int(headers[b"x-result-length"])
        reason, message = headers.get(b"x-reason"), headers.get(b"x-message")
        return Answer(
            success=headers[b"x-status"] == b"success",
            duration=headers[b"x-duration"].decode("ascii"),
            result=content[:length],
            log=content[length:],
            reason=None if reason is None else reason.decode("ascii"),
            message=None if message is None else urllib.parse.unquote(message.decode("ascii")),
            log_dropped=int(headers.get(b"x-log-dropped", 0)),
        )
    except (KeyError, ValueError) as error:
        raise errors.WorkerError("the worker's answer lacks what the protocol demands") from error
