"""Dead letters on the wire: executions that the platform has given up."""

from __future__ import annotations

import falcon
import falcon.asgi

from funcplat.api import counts, schemas, views
from funcplat.api.middleware import Request, identity
from funcplat.api.operation import PAGE_QUERY, PROJECT_QUERY, Operation
from funcplat.api.resource import Resource, check_uuid, respond, respond_list
from funcplat.core import executions as core
from funcplat.core.interventions import Selection

OPERATIONS = (
    Operation(
        "get",
        "/v1/dead_letters",
        "List dead letters",
        200,
        views.ExecutionView,
        "dead_letters",
        query=("function_id", "status", "description", *PROJECT_QUERY, *PAGE_QUERY),
    ),
    Operation(
        "post",
        "/v1/dead_letters/redrive",
        "Queue dead letters again",
        200,
        counts.RedrivenView,
        body=schemas.SelectDeadLetters,
    ),
    Operation(
        "post",
        "/v1/dead_letters/purge",
        "Delete dead letters",
        200,
        counts.PurgedView,
        body=schemas.SelectDeadLetters,
    ),
)


class DeadLetters(Resource):
    """/v1/dead_letters"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Lists the executions that were given up."""
        self.policy.check("dead_letter:list", identity(req))
        listing = self.listing(req, core.FILTERS, "dead_letter:list:all_projects")
        rows = await self.run(self.services.interventions.dead_letters, identity(req), listing)
        respond_list(req, resp, "dead_letters", views.executions(rows), listing)


class Redrive(Resource):
    """/v1/dead_letters/redrive"""

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Queues dead letters of the caller's project again: all of them, or those that the body names."""
        self.policy.check("dead_letter:redrive", identity(req))
        selection = _selection(await self.body(req))
        number = await self.run(self.services.interventions.redrive, identity(req), selection)
        self.desk.queued()
        respond(resp, {"redriven": number})


class Purge(Resource):
    """/v1/dead_letters/purge"""

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Deletes dead letters of the caller's project: all of them, or those that the body names."""
        self.policy.check("dead_letter:purge", identity(req))
        selection = _selection(await self.body(req))
        number = await self.run(self.services.interventions.purge, identity(req), selection)
        respond(resp, {"purged": number})


def _selection(data: bytes) -> Selection:
    body = schemas.decode(data, schemas.SelectDeadLetters)
    return Selection(
        ids=None if body.ids is None else tuple(check_uuid(each) for each in body.ids),
        function_id=None if body.function_id is None else check_uuid(body.function_id),
        reason=body.reason,
    )
