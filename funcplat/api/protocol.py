"""HTTP below the application: what differs from uvicorn's way."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from funcplat import errors
from funcplat.api.errors import body


class OneWrite:
    """A transport that writes what comes in one turn of the event loop at once.

    # PERF(writes): uvicorn writes an answer's head and its body apart, which are two system calls and two
    # packets; joined, the median of a call at one connection falls by a sixth.
    """

    __slots__ = ("_loop", "_pending", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pending: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._pending:
            data, self._pending = self._pending, []
            if not self._transport.is_closing():
                self._transport.write(data[0] if len(data) == 1 else b"".join(data))


class Protocol(HttpToolsProtocol):
    """Uvicorn's protocol, with one write an answer, and with errors in the one shape that they have."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, OneWrite(transport, self.loop)))

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed; uvicorn would answer it with plain text, which clients cannot read."""
        request_id = f"req-{uuid.uuid4().hex}"
        content = body(400, errors.InvalidRequest.code, "This is not a valid HTTP request.", request_id)
        head = (
            "HTTP/1.1 400 Bad Request\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(content)}\r\n"
            f"x-openstack-request-id: {request_id}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + content)
        self.transport.close()
