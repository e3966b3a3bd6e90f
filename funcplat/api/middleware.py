"""What happens to every request before and after its responder: id, path, size, identity."""

from __future__ import annotations

import itertools
import logging
import re
import time
import uuid

import falcon
import falcon.asgi

from funcplat import errors
from funcplat.auth.base import AuthDriver, Identity

LOG = logging.getLogger("funcplat.access")
OPEN_PATHS = frozenset(("/", "/v1", "/v1/", "/v1/openapi.json", "/healthz", "/readyz", "/metrics"))
"""Paths that need no token: discovery (API.md section 2) and what probes ask for."""
_INVOKE = re.compile("/v1/webhooks/[^/]+/invoke")
_SLASHES = re.compile("//+")


def is_open(path: str) -> bool:
    """Whether a path needs no token; ``{fields}`` may stand in it."""
    return path in OPEN_PATHS or _INVOKE.fullmatch(path) is not None


class Context:
    """What the middleware knows of a request; Falcon's ``req.context``."""

    __slots__ = ("challenge", "id", "identity", "started")

    def __init__(self) -> None:
        self.id = ""
        self.challenge = ""
        self.identity: Identity | None = None
        self.started = 0.0


class Request(falcon.asgi.Request):
    """A request with our `Context`."""

    __slots__ = ()
    context_type = Context
    context: Context  # type: ignore[assignment]


def identity(req: Request) -> Identity:
    """The caller of a path that is not open."""
    assert req.context.identity is not None
    return req.context.identity


class Door:
    """Names each request, mends its path, and asks the auth driver who calls."""

    def __init__(self, auth: AuthDriver, access_log: bool) -> None:
        self._auth = auth
        self._access_log = access_log
        # PERF(ids): a random prefix for the process and a count; a random id a request costs 2 us more.
        self._prefix = f"req-{uuid.uuid4().hex[:20]}-"
        self._count = itertools.count(1)

    def enter(self, context: Context | None = None) -> Context:
        """A request has come."""
        context = context or Context()
        context.id = f"{self._prefix}{next(self._count):x}"
        context.challenge = self._auth.challenge
        if self._access_log:
            context.started = time.monotonic()
        return context

    async def identify(self, context: Context, token: str | None) -> None:
        """Raises Unauthenticated."""
        context.identity = await self._auth.authenticate(token)

    def leave(self, context: Context, method: str, path: str, status: int) -> None:
        """The request was answered."""
        if not self._access_log:
            return
        who = context.identity
        LOG.info(
            "%s %s %s %s %s %.1f ms",
            context.id,
            who.project_id if who is not None else "-",
            method,
            path,
            status,
            (time.monotonic() - context.started) * 1000,
        )

    async def process_request(self, req: Request, resp: falcon.asgi.Response) -> None:
        context = self.enter(req.context)
        resp.set_header("x-openstack-request-id", context.id)
        if "//" in req.path:
            req.path = _SLASHES.sub("/", req.path).rstrip("/") or "/"
        if not is_open(req.path):
            await self.identify(context, req.get_header("X-Auth-Token"))

    async def process_response(
        self, req: Request, resp: falcon.asgi.Response, resource: object, succeeded: bool
    ) -> None:
        self.leave(req.context, req.method, req.path, resp.status_code)


async def read_body(req: Request, limit: int) -> bytes:
    """The whole body.  Raises TooLarge as soon as it is known to be over ``limit`` bytes."""
    length = req.content_length
    if length is not None and length > limit:
        raise too_large(limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in req.stream:
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def too_large(limit: int) -> errors.TooLarge:
    return errors.TooLarge(f"The request body is larger than the limit of {limit} bytes.")
