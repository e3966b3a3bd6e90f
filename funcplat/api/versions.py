"""Versions of functions on the wire (API.md section 5)."""

from __future__ import annotations

import dataclasses

import falcon.asgi

from funcplat.api import downloads, queries, schemas, views
from funcplat.api.middleware import Request, identity
from funcplat.api.operation import FUNCTION, PAGE_QUERY, Operation
from funcplat.api.resource import Resource, check_uuid, respond, respond_list

VERSIONS = FUNCTION + "/versions"
VERSION = VERSIONS + "/{version_number}"
OPERATIONS = (
    Operation(
        "get",
        VERSIONS,
        "List the versions of a function",
        200,
        views.VersionView,
        "function_versions",
        query=PAGE_QUERY,
        errors=(404,),
    ),
    Operation(
        "post",
        VERSIONS,
        "Make a version of a function's package",
        201,
        views.VersionView,
        body=schemas.CreateVersion,
        errors=(404,),
    ),
    Operation(
        "get",
        VERSION,
        "Show a version, or download its package",
        200,
        views.VersionView,
        query=("download",),
        errors=(404, 502, 503),
    ),
    Operation("delete", VERSION, "Delete a version", 204, errors=(404,)),
    Operation(
        "post",
        VERSION + "/scale_up",
        "Start more workers of a version (admin)",
        202,
        body=schemas.Scale,
        errors=(404, 409),
    ),
    Operation(
        "post",
        VERSION + "/scale_down",
        "Stop workers of a version (admin)",
        202,
        body=schemas.Scale,
        errors=(404,),
    ),
    Operation("post", VERSION + "/detach", "Stop all workers of a version (admin)", 202, errors=(404,)),
)


class Versions(Resource):
    """/v1/functions/{function_id}/versions"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response, function_id: str) -> None:
        """Lists the versions of a function, by number."""
        self.policy.check("function_version:list", identity(req))
        listing = self.listing(req, (), None)
        if "sort_key" not in req.params:
            listing = dataclasses.replace(listing, sort_key="version_number")
        rows = await self.run(self.services.versions.list, identity(req), check_uuid(function_id), listing)
        respond_list(req, resp, "function_versions", [views.version(row) for row in rows], listing)

    async def on_post(self, req: Request, resp: falcon.asgi.Response, function_id: str) -> None:
        """Keeps the function's present package under the next number."""
        self.policy.check("function_version:create", identity(req))
        body = schemas.decode(await self.body(req), schemas.CreateVersion)
        version = await self.run(
            self.services.versions.create, identity(req), check_uuid(function_id), body.description
        )
        respond(resp, views.version(version), 201)


class Version(downloads.Downloads):
    """/v1/functions/{function_id}/versions/{version_number}"""

    async def on_get(
        self, req: Request, resp: falcon.asgi.Response, function_id: str, version_number: str
    ) -> None:
        """Shows a version, or with ``download=true`` its package."""
        self.policy.check("function_version:get", identity(req))
        function_id, number = check_uuid(function_id), queries.version("version_number", version_number)
        # Before the package is opened: what is no version has none either, the function's own code included.
        version = await self.run(self.services.versions.get, identity(req), function_id, number)
        if queries.boolean("download", queries.single(req.params).get("download", "")):
            await self.download(req, resp, function_id, number, f"{function_id}_{number}")
            return
        respond(resp, views.version(version))

    async def on_delete(
        self, req: Request, resp: falcon.asgi.Response, function_id: str, version_number: str
    ) -> None:
        """Deletes a version and its workers; its executions stay, and its number is not given again."""
        self.policy.check("function_version:delete", identity(req))
        function_id, number = check_uuid(function_id), queries.version("version_number", version_number)
        await self.run(self.services.versions.delete, identity(req), function_id, number)
        self.invocation.router.changed(function_id)
        self.desk.changed()
        resp.status = 204
