"""Workers of functions and of their versions on the wire (API.md section 7)."""

from __future__ import annotations

from typing import ClassVar

import falcon.asgi

from funcplat import errors
from funcplat.api import queries, schemas, views
from funcplat.api.middleware import Request, identity
from funcplat.api.resource import Resource, check_uuid, respond
from funcplat.invoke.router import NoWorker


class FunctionWorkers(Resource):
    """/v1/functions/{function_id}/workers"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response, function_id: str) -> None:
        """Lists the workers of a function's version, 0 by default."""
        self.policy.check("function_worker:list", identity(req))
        query = queries.single(req.params)
        for name in sorted(query.keys() - {"function_version"}):
            raise errors.InvalidRequest(f'Unknown argument: "{name[:64]}"')
        version = queries.version("function_version", query.get("function_version", "0"))
        rows = await self.run(self.services.workers.of, identity(req), check_uuid(function_id), version)
        respond(resp, {"workers": [views.worker(row) for row in rows]})


class _Change(Resource):
    """What operators do to the workers of a function's version; without one, to those of 0."""

    noun: ClassVar[str] = "function"

    async def _version(self, req: Request, verb: str, function_id: str, number: str) -> tuple[str, int]:
        self.policy.check(f"{self.noun}:{verb}", identity(req))
        return check_uuid(function_id), queries.version("version_number", number)

    def _drained(self, worker_ids: list[str]) -> None:
        self.invocation.router.drained(worker_ids)
        self.desk.changed()


class ScaleUp(_Change):
    """/v1/functions/{function_id}/scale_up"""

    async def on_post(
        self, req: Request, resp: falcon.asgi.Response, function_id: str, version_number: str = "0"
    ) -> None:
        """Starts ``count`` more workers, 1 by default; a cap that forbids them is a 409."""
        function_id, version = await self._version(req, "scale_up", function_id, version_number)
        body = schemas.decode(await self.body(req), schemas.Scale)
        workers = self.services.workers
        revision_id = await self.run(workers.check, identity(req), function_id, version)
        await self._check_has_workers(function_id, version)
        await self.run(self.services.starts.check_room, revision_id, body.count or 1)
        await self.invocation.router.prewarm(function_id, version, body.count or 1)
        resp.status = 202

    async def _check_has_workers(self, function_id: str, version: int) -> None:
        try:
            line = await self.invocation.router.line(function_id, version)
            one_shot = await self.invocation.one_shots.takes(line)
        except NoWorker as error:
            raise errors.DriverUnavailable(error.message) from error
        if one_shot:
            raise errors.InvalidRequest("This function is an image that runs once a call: it has no workers.")


class ScaleDown(_Change):
    """/v1/functions/{function_id}/scale_down"""

    async def on_post(
        self, req: Request, resp: falcon.asgi.Response, function_id: str, version_number: str = "0"
    ) -> None:
        """Stops ``count`` workers, 1 by default, when they have nothing to do; one stays."""
        function_id, version = await self._version(req, "scale_down", function_id, version_number)
        body = schemas.decode(await self.body(req), schemas.Scale)
        workers = self.services.workers
        await self.run(workers.check, identity(req), function_id, version)
        self._drained(await self.run(workers.scale_down, function_id, version, body.count or 1))
        resp.status = 202


class Detach(_Change):
    """/v1/functions/{function_id}/detach"""

    async def on_post(
        self, req: Request, resp: falcon.asgi.Response, function_id: str, version_number: str = "0"
    ) -> None:
        """Stops every worker of the function; running executions get a grace to end."""
        function_id, version = await self._version(req, "detach", function_id, version_number)
        workers = self.services.workers
        await self.run(workers.check, identity(req), function_id, version)
        self._drained(await self.run(workers.detach, function_id, version))
        resp.status = 202


class VersionScaleUp(ScaleUp):
    """/v1/functions/{function_id}/versions/{version_number}/scale_up"""

    noun = "function_version"


class VersionScaleDown(ScaleDown):
    """/v1/functions/{function_id}/versions/{version_number}/scale_down"""

    noun = "function_version"


class VersionDetach(Detach):
    """/v1/functions/{function_id}/versions/{version_number}/detach"""

    noun = "function_version"
