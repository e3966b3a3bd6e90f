"""Discovery, health and the API document: what needs no token (API.md section 2)."""

from __future__ import annotations

import falcon
import falcon.asgi

from funcplat import errors
from funcplat.api import openapi
from funcplat.api.middleware import Request
from funcplat.api.resource import Resource, respond


class Root(Resource):
    """GET / : the versions of the API."""

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Lists the versions of the API."""
        href = f"{self.base_url(req)}/v1"
        link = {"href": href, "target": "v1", "rel": "self"}
        respond(resp, {"versions": [{"id": "v1.0", "status": "CURRENT", "links": [link]}]})


class Version(Resource):
    """GET /v1/ : where version 1 is."""

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Says where version 1 is."""
        if req.scope["path"] == "/v1":
            resp.status = 302
            resp.set_header("Location", f"{self.base_url(req)}/v1/")
            return
        respond(resp, {"uri": f"{self.base_url(req)}/v1"})


class Health(Resource):
    """GET /healthz : this process answers."""

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Says that this process answers."""
        respond(resp, {"status": "ok"})


class Readiness(Resource):
    """GET /readyz : this process can serve, that is, the database answers it."""

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Says whether this process can serve; 503 with the reason when it cannot."""
        try:
            await self.run(self.services.db.ping)
        except errors.DriverUnavailable as error:
            respond(resp, {"status": "unavailable", "checks": {"database": error.message}}, 503)
            return
        respond(resp, {"status": "ok", "checks": {"database": "ok"}})


class Document(Resource):
    """GET /v1/openapi.json : the API described for machines."""

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Describes the API for machines."""
        respond(resp, openapi.document())
