"""Aliases on the wire (API.md section 6): addressed by name, with ``routes`` as an addition."""

from __future__ import annotations

from collections.abc import Iterable

import falcon.asgi

from funcplat import errors
from funcplat.api import queries, schemas, views
from funcplat.api.middleware import Request, identity
from funcplat.api.operation import PAGE_QUERY, PROJECT_QUERY, Operation
from funcplat.api.resource import Resource, check_uuid, respond, respond_list
from funcplat.core import aliases as core

ALIAS = "/v1/aliases/{alias_name}"
OPERATIONS = (
    Operation(
        "get",
        "/v1/aliases",
        "List aliases",
        200,
        views.AliasView,
        "function_aliases",
        query=(*core.FILTERS, *PROJECT_QUERY, *PAGE_QUERY),
    ),
    Operation(
        "post",
        "/v1/aliases",
        "Make an alias for versions of a function",
        201,
        views.AliasView,
        body=schemas.CreateAlias,
        errors=(404,),
    ),
    Operation("get", ALIAS, "Show an alias", 200, views.AliasView, query=("project_id",), errors=(404, 409)),
    Operation(
        "put",
        ALIAS,
        "Lead an alias elsewhere",
        200,
        views.AliasView,
        body=schemas.UpdateAlias,
        query=("project_id",),
        errors=(404, 409),
    ),
    Operation("delete", ALIAS, "Delete an alias", 204, query=("project_id",), errors=(404, 409)),
)


class Aliases(Resource):
    """/v1/aliases"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Lists aliases."""
        self.policy.check("function_alias:list", identity(req))
        listing = self.listing(req, core.FILTERS, "function_alias:list:all_projects")
        rows = await self.run(self.services.aliases.list, identity(req), listing)
        respond_list(req, resp, "function_aliases", [views.alias(row) for row in rows], listing)

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Makes an alias for a version of one of the project's functions, or for several by weight."""
        self.policy.check("function_alias:create", identity(req))
        body = schemas.decode(await self.body(req), schemas.CreateAlias)
        for name in ("name", "function_id"):
            if not getattr(body, name):
                raise errors.InvalidRequest(
                    f"Invalid input for field/attribute {name}. Mandatory field missing."
                )
        new = core.NewAlias(
            name=body.name or "",
            function_id=check_uuid(body.function_id or ""),
            function_version=body.function_version,
            routes=_routes(body.routes or ()),
            description=body.description,
        )
        alias = await self.run(self.services.aliases.create, identity(req), new)
        respond(resp, views.alias(alias), 201)


class Alias(Resource):
    """/v1/aliases/{alias_name}"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response, alias_name: str) -> None:
        """Shows an alias."""
        self.policy.check("function_alias:get", identity(req))
        alias = await self.run(self.services.aliases.get, identity(req), alias_name, _project(req))
        respond(resp, views.alias(alias))

    async def on_put(self, req: Request, resp: falcon.asgi.Response, alias_name: str) -> None:
        """Leads an alias elsewhere, or describes it anew; a new target without routes gets all calls."""
        self.policy.check("function_alias:update", identity(req))
        body = schemas.decode(await self.body(req), schemas.UpdateAlias)
        changes = core.Changes(
            function_id=None if body.function_id is None else check_uuid(body.function_id),
            function_version=body.function_version,
            routes=None if body.routes is None else _routes(body.routes),
            description=body.description,
        )
        alias = await self.run(
            self.services.aliases.update, identity(req), alias_name, changes, _project(req)
        )
        self.invocation.aliases.changed(alias.project_id, alias.name)
        respond(resp, views.alias(alias))

    async def on_delete(self, req: Request, resp: falcon.asgi.Response, alias_name: str) -> None:
        """Deletes an alias; what it leads to stays."""
        self.policy.check("function_alias:delete", identity(req))
        alias = await self.run(self.services.aliases.delete, identity(req), alias_name, _project(req))
        self.invocation.aliases.changed(alias.project_id, alias.name)
        resp.status = 204


def _project(req: Request) -> str | None:
    return queries.single(req.params).get("project_id")


def _routes(given: Iterable[schemas.AliasRoute]) -> tuple[core.Route, ...]:
    return tuple(core.Route(route.function_version, route.weight) for route in given)
