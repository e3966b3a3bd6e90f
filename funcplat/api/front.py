"""The door that callers of functions take: POST /v1/executions, answered without the web framework.

# PERF(front): Falcon's request, response, routing and middleware cost this request as much as all that
# is done for it; what it needs of them are two headers and its body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from funcplat.api import errors
from funcplat.api.executions import Executions
from funcplat.api.middleware import Context, Door, too_large

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_PATH, _METHOD = "/v1/executions", "POST"
_JSON = (b"content-type", b"application/json")


class _Gone(Exception):
    """The client hung up before its request was complete."""


class Front:
    """An ASGI application before another one, which answers all but one kind of request."""

    def __init__(self, app: App, door: Door, executions: Executions) -> None:
        self._app = app
        self._door = door
        self._executions = executions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == _PATH and scope["method"] == _METHOD:
            headers = dict(scope["headers"])
            if len(headers) == len(scope["headers"]):  # what a header that comes twice means, Falcon knows
                await self._call(headers, receive, send)
                return
        await self._app(scope, receive, send)

    async def _call(self, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        context = self._door.enter()
        answer = [(b"x-openstack-request-id", context.id.encode("ascii"))]
        try:
            status, body = await self._answer(context, headers, receive)
        except _Gone:
            return
        except Exception as error:  # the one place where a defect becomes a 500, for requests that come here
            found = errors.explain(error, context.id, f"{_METHOD} {_PATH}")
            status, body = found.status, found.body(context.id)
            if status == 401:
                answer.append((b"www-authenticate", context.challenge.encode("latin-1")))
        answer += (_JSON, (b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": answer})
        await send({"type": "http.response.body", "body": body})
        self._door.leave(context, _METHOD, _PATH, status)

    async def _answer(
        self, context: Context, headers: dict[bytes, bytes], receive: Receive
    ) -> tuple[int, bytes]:
        token = headers.get(b"x-auth-token")
        await self._door.identify(context, None if token is None else token.decode("latin-1"))
        assert context.identity is not None
        length = int(headers.get(b"content-length", b"0"))
        if length > self._executions.max_body:
            raise too_large(self._executions.max_body)
        key = headers.get(b"idempotency-key")
        return 201, await self._executions.create(context.identity, await self._read(receive), key)

    async def _read(self, receive: Receive) -> bytes:
        message = await receive()
        data: bytes = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            data += message.get("body", b"")
            if len(data) > self._executions.max_body:
                raise too_large(self._executions.max_body)
        if message["type"] == "http.disconnect":
            raise _Gone
        return data
