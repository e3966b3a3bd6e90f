"""Functions on the wire (API.md section 4)."""

from __future__ import annotations

import contextlib
from typing import Any

import falcon.asgi

from funcplat import errors
from funcplat.api import downloads, forms, queries, schemas, views
from funcplat.api.middleware import Request, identity
from funcplat.api.resource import Resource, check_uuid, is_uuid, respond, respond_list
from funcplat.core import functions as core


class Functions(Resource):
    """/v1/functions"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Lists functions."""
        self.policy.check("function:list", identity(req))
        listing = self.listing(req, ("name",), "function:list:all_projects")
        rows = await self.run(self.services.functions.list, identity(req), listing)
        respond_list(req, resp, "functions", views.functions(rows), listing)

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Makes a function of a package."""
        self.policy.check("function:create", identity(req))
        conf = self.services.conf.api
        upload = await forms.read(req, self.services.store, self.invocation, conf.max_body_size)
        with contextlib.closing(upload):
            fields = upload.fields
            if fields.code is None:
                raise errors.InvalidRequest('"code" must be specified, such as {"source": "package"}.')
            new = core.NewFunction(**_values(fields))
            function = await self.run(self.services.functions.create, identity(req), new, upload.package)
        self.invocation.router.prepare(function.id)
        respond(resp, views.function(function), 201)


class Function(downloads.Downloads):
    """/v1/functions/{function_id}"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response, function_id: str) -> None:
        """Shows a function, or with ``download=true`` its package."""
        self.policy.check("function:get", identity(req))
        query = queries.single(req.params)
        if queries.boolean("download", query.get("download", "")):
            function_id = _known(function_id)
            await self.download(req, resp, function_id, 0, function_id)
            return
        function = await self.run(self.services.functions.get, identity(req), _known(function_id))
        respond(resp, views.function(function))

    async def on_put(self, req: Request, resp: falcon.asgi.Response, function_id: str) -> None:
        """Changes a function; new code is called from the answer on."""
        self.policy.check("function:update", identity(req))
        function_id = _known(function_id)
        conf = self.services.conf.api
        upload = await forms.read(req, self.services.store, self.invocation, conf.max_body_size)
        with contextlib.closing(upload):
            changes = core.Changes(**_values(upload.fields))
            function = await self.run(
                self.services.functions.update,
                identity(req),
                function_id,
                changes,
                upload.package,
            )
        self.invocation.router.changed(function_id)
        self.invocation.router.prepare(function_id)
        self.desk.changed()
        respond(resp, views.function(function))

    async def on_delete(self, req: Request, resp: falcon.asgi.Response, function_id: str) -> None:
        """Deletes a function, its workers and its package; its executions stay."""
        self.policy.check("function:delete", identity(req))
        function_id = check_uuid(function_id)
        await self.run(self.services.functions.delete, identity(req), function_id)
        self.invocation.router.changed(function_id)
        self.desk.changed()
        resp.status = 204


def _values(fields: schemas.FunctionForm) -> dict[str, Any]:
    names = (
        "code",
        "runtime_id",
        "name",
        "description",
        "entry",
        "cpu",
        "memory_size",
        "timeout",
        "environment",
    )
    return {name: getattr(fields, name) for name in names}


def _known(function_id: str) -> str:
    # The old server did not check these ids: what is no uuid is simply not found.
    if not is_uuid(function_id):
        raise errors.NotFound(f"Function not found [id={function_id[:64]}]")
    return check_uuid(function_id)
