"""What all resources share: their collaborators, and how they answer."""

from __future__ import annotations

import dataclasses
import re
import urllib.parse
import uuid
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import falcon
import falcon.asgi
import msgspec

from funcplat import errors
from funcplat.api import queries
from funcplat.api.middleware import Request, identity, read_body
from funcplat.auth.policy import Policy
from funcplat.bootstrap import Invocation, Services
from funcplat.core.listing import Listing


@dataclasses.dataclass(frozen=True, slots=True)
class Desk:
    """What resources are handed."""

    services: Services
    invocation: Invocation
    policy: Policy
    queued: Callable[[], None]  # to call when an execution was queued
    changed: Callable[[], None]  # to call when a runtime or worker was changed
    scheduled: Callable[[], None]  # to call when a job was made or changed


class Resource:
    """A resource with its collaborators."""

    unlisted: ClassVar[frozenset[str]] = frozenset()
    """Methods that are answered, but are none of the API."""

    def __init__(self, desk: Desk) -> None:
        self.services = desk.services
        self.invocation = desk.invocation
        self.policy = desk.policy
        self.run = desk.invocation.run
        self.desk = desk
        # PERF(options): a look into oslo.config costs 10 us.
        self.max_body = int(desk.services.conf.api.max_body_size)

    async def body(self, req: Request) -> bytes:
        return await read_body(req, self.max_body)

    def base_url(self, req: Request) -> str:
        """The URL under which users reach the API, without a slash at its end."""
        endpoint: str | None = self.services.conf.api.endpoint
        return (endpoint or req.prefix).rstrip("/")

    def listing(self, req: Request, filters: Sequence[str], rule: str | None) -> Listing:
        query = queries.single(req.params)
        return queries.listing(query, filters, identity(req), self.policy, rule)


def respond(resp: falcon.asgi.Response, value: Any, status: int = 200) -> None:
    resp.status = status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = msgspec.json.encode(value)


def respond_list(
    req: Request, resp: falcon.asgi.Response, key: str, views: Sequence[Any], listing: Listing
) -> None:
    """A list; with a full page, as an addition, ``next`` is the path of the one after."""
    body: dict[str, Any] = {key: views}
    if listing.limit is not None and len(views) == listing.limit:
        query = queries.single(req.params) | {"marker": views[-1].id}
        body["next"] = f"{req.path}?{urllib.parse.urlencode(query)}"
    respond(resp, body)


_CANONICAL = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def check_uuid(value: str) -> str:
    """A path's id.  Raises InvalidRequest (API.md section 1.3: uuid-like)."""
    if _CANONICAL.fullmatch(value):
        return value
    try:
        return str(uuid.UUID(value))
    except ValueError as error:
        raise errors.InvalidRequest(f"Expected a uuid but received {value[:64]}.") from error


def is_uuid(value: str) -> bool:
    """For ids that are not checked but looked up: what is no uuid is not found either."""
    try:
        uuid.UUID(value)
    except ValueError:
        return False
    return True
