"""Functions on the wire (API.md sections 4 and 7)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import falcon
import falcon.asgi

from funcplat import errors
from funcplat.api import forms, queries, schemas, views
from funcplat.api.middleware import Request, identity
from funcplat.api.resource import Resource, check_uuid, is_uuid, respond, respond_list
from funcplat.core import functions as core
from funcplat.invoke.router import NoWorker


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


class Function(Resource):
    """/v1/functions/{function_id}"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response, function_id: str) -> None:
        """Shows a function, or with ``download=true`` its package."""
        self.policy.check("function:get", identity(req))
        query = queries.single(req.params)
        if queries.boolean("download", query.get("download", "")):
            await self._download(req, resp, _known(function_id))
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

    async def _download(self, req: Request, resp: falcon.asgi.Response, function_id: str) -> None:
        stack = contextlib.ExitStack()
        package = self.services.functions.download(identity(req), function_id)
        size, chunks = await self.run(stack.enter_context, package)
        resp.content_type = "application/zip"
        resp.set_header("Content-Disposition", f'attachment; filename="{function_id}"')
        resp.set_stream(self._stream(chunks, stack), size)

    async def _stream(self, chunks: Iterator[bytes], stack: contextlib.ExitStack) -> AsyncIterator[bytes]:
        try:
            while chunk := await self.run(next, chunks, b""):
                yield chunk
        finally:
            await self.run(stack.close)


class FunctionWorkers(Resource):
    """/v1/functions/{function_id}/workers"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response, function_id: str) -> None:
        """Lists the workers of a function's version, 0 by default."""
        self.policy.check("function_worker:list", identity(req))
        query = queries.single(req.params)
        for name in sorted(query.keys() - {"function_version"}):
            raise errors.InvalidRequest(f'Unknown argument: "{name[:64]}"')
        version = queries.integer("function_version", query.get("function_version", "0"))
        rows = await self.run(self.services.workers.of, identity(req), check_uuid(function_id), version)
        respond(resp, {"workers": [views.worker(row) for row in rows]})


class ScaleUp(Resource):
    """/v1/functions/{function_id}/scale_up"""

    async def on_post(self, req: Request, resp: falcon.asgi.Response, function_id: str) -> None:
        """Starts ``count`` more workers, 1 by default; a cap that forbids them is a 409."""
        self.policy.check("function:scale_up", identity(req))
        function_id = check_uuid(function_id)
        body = schemas.decode(await self.body(req), schemas.Scale)
        workers = self.services.workers
        revision_id = await self.run(workers.check, identity(req), function_id, 0)
        await self._check_has_workers(function_id)
        await self.run(self.services.starts.check_room, revision_id, body.count or 1)
        await self.invocation.router.prewarm(function_id, 0, body.count or 1)
        resp.status = 202


    async def _check_has_workers(self, function_id: str) -> None:
        try:
            line = await self.invocation.router.line(function_id, 0)
            one_shot = await self.invocation.one_shots.takes(line)
        except NoWorker as error:
            raise errors.DriverUnavailable(error.message) from error
        if one_shot:
            raise errors.InvalidRequest("This function is an image that runs once a call: it has no workers.")


class ScaleDown(Resource):
    """/v1/functions/{function_id}/scale_down"""

    async def on_post(self, req: Request, resp: falcon.asgi.Response, function_id: str) -> None:
        """Stops ``count`` workers, 1 by default, when they have nothing to do; one stays."""
        self.policy.check("function:scale_down", identity(req))
        function_id = check_uuid(function_id)
        body = schemas.decode(await self.body(req), schemas.Scale)
        workers = self.services.workers
        await self.run(workers.check, identity(req), function_id, 0)
        drained = await self.run(workers.scale_down, function_id, 0, body.count or 1)
        self.invocation.router.drained(drained)
        self.desk.changed()
        resp.status = 202


class Detach(Resource):
    """/v1/functions/{function_id}/detach"""

    async def on_post(self, req: Request, resp: falcon.asgi.Response, function_id: str) -> None:
        """Stops every worker of the function; running executions get a grace to end."""
        self.policy.check("function:detach", identity(req))
        function_id = check_uuid(function_id)
        workers = self.services.workers
        await self.run(workers.check, identity(req), function_id, 0)
        drained = await self.run(workers.detach, function_id, 0)
        self.invocation.router.drained(drained)
        self.desk.changed()
        resp.status = 202


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
