"""Runtimes on the wire (API.md section 3)."""

from __future__ import annotations

import falcon.asgi

from funcplat import errors
from funcplat.api import schemas, views
from funcplat.api.middleware import Request, identity
from funcplat.api.resource import Resource, check_uuid, respond, respond_list
from funcplat.core.runtimes import NewRuntime


class Runtimes(Resource):
    """/v1/runtimes"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Lists the public runtimes and those of the caller's project."""
        self.policy.check("runtime:list", identity(req))
        listing = self.listing(req, ("name",), None)
        rows = await self.run(self.services.runtimes.list, identity(req), listing)
        respond_list(req, resp, "runtimes", [views.runtime(row) for row in rows], listing)

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Makes a runtime, which is ``creating`` until its driver has looked at the image."""
        self.policy.check("runtime:create", identity(req))
        body = schemas.decode(await self.body(req), schemas.CreateRuntime)
        if not body.image:
            raise errors.InvalidRequest("Invalid input for field/attribute image. Mandatory field missing.")
        new = NewRuntime(
            image=body.image,
            name=body.name,
            description=body.description,
            is_public=body.is_public is not False,
            trusted=body.trusted is not False,
            orchestrator=body.orchestrator,
        )
        runtime = await self.run(self.services.runtimes.create, identity(req), new)
        self.desk.changed()
        respond(resp, views.runtime(runtime), 201)


class Runtime(Resource):
    """/v1/runtimes/{runtime_id}"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response, runtime_id: str) -> None:
        """Shows a runtime."""
        self.policy.check("runtime:get", identity(req))
        runtime = await self.run(self.services.runtimes.get, identity(req), check_uuid(runtime_id))
        respond(resp, views.runtime(runtime))

    async def on_put(self, req: Request, resp: falcon.asgi.Response, runtime_id: str) -> None:
        """Changes name, description or image; with a new image it is ``upgrading`` for a while."""
        self.policy.check("runtime:update", identity(req))
        body = schemas.decode(await self.body(req), schemas.UpdateRuntime)
        changes = {
            name: value
            for name in ("name", "description", "image")
            if (value := getattr(body, name)) is not None
        }
        runtime = await self.run(
            self.services.runtimes.update, identity(req), check_uuid(runtime_id), changes
        )
        self.desk.changed()
        respond(resp, views.runtime(runtime))

    async def on_delete(self, req: Request, resp: falcon.asgi.Response, runtime_id: str) -> None:
        """Deletes a runtime that no function refers to."""
        self.policy.check("runtime:delete", identity(req))
        await self.run(self.services.runtimes.delete, identity(req), check_uuid(runtime_id))
        self.desk.changed()
        resp.status = 204


class RuntimePool(Resource):
    """/v1/runtimes/{runtime_id}/pool"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response, runtime_id: str) -> None:
        """Shows how many workers the runtime has, and how many are without a function."""
        self.policy.check("runtime:pool", identity(req))
        pool = await self.run(self.services.runtimes.pool, identity(req), check_uuid(runtime_id))
        respond(resp, views.pool(pool))
