"""Webhooks on the wire (API.md section 10)."""

from __future__ import annotations

import falcon.asgi

from funcplat import errors
from funcplat.api import payloads, schemas, webhook_views
from funcplat.api.middleware import Request, identity, read_body
from funcplat.api.operation import PAGE_QUERY, PROJECT_QUERY, Operation
from funcplat.api.resource import Desk, Resource, check_uuid, is_uuid, respond, respond_list
from funcplat.core import webhooks as core
from funcplat.core.targets import Reference

INVOKE = "/v1/webhooks/{webhook_id}/invoke"
WEBHOOKS, WEBHOOK = "/v1/webhooks", "/v1/webhooks/{webhook_id}"
OPERATIONS = (
    Operation(
        "get",
        WEBHOOKS,
        "List webhooks",
        200,
        webhook_views.WebhookView,
        "webhooks",
        query=(*core.FILTERS, *PROJECT_QUERY, *PAGE_QUERY),
    ),
    Operation(
        "post",
        WEBHOOKS,
        "Make a webhook",
        201,
        webhook_views.WebhookView,
        body=schemas.CreateWebhook,
        errors=(404,),
    ),
    Operation("get", WEBHOOK, "Show a webhook", 200, webhook_views.WebhookView, errors=(404,)),
    Operation(
        "put",
        WEBHOOK,
        "Change a webhook",
        200,
        webhook_views.WebhookView,
        body=schemas.UpdateWebhook,
        errors=(404,),
    ),
    Operation("delete", WEBHOOK, "Delete a webhook", 204, errors=(404,)),
    Operation(
        "post",
        WEBHOOK + "/rotate",
        "Give a webhook another secret",
        200,
        webhook_views.WebhookView,
        body=schemas.RotateWebhook,
        errors=(404, 409),
    ),
    Operation(
        "post",
        INVOKE,
        "Call a webhook's function; needs no token",
        202,
        webhook_views.InvokedView,
        errors=(400, 403, 404, 409, 413, 429, 503),
    ),
)


class Webhooks(Resource):
    """/v1/webhooks"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Lists webhooks."""
        self.policy.check("webhook:list", identity(req))
        listing = self.listing(req, core.FILTERS, "webhook:list:all_projects")
        rows = await self.run(self.services.webhooks.list, identity(req), listing)
        shown = [webhook_views.webhook(row, self.base_url(req)) for row in rows]
        respond_list(req, resp, "webhooks", shown, listing)

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Makes a webhook; a secret is in this answer alone."""
        self.policy.check("webhook:create", identity(req))
        body = schemas.decode(await self.body(req), schemas.CreateWebhook)
        new = core.NewWebhook(
            _reference(body), body.description, body.signed, body.secret, body.rate_limit, body.rate_burst
        )
        made = await self.run(self.services.webhooks.create, identity(req), new)
        respond(resp, webhook_views.webhook(made.webhook, self.base_url(req), made.secret), 201)


class Webhook(Resource):
    """/v1/webhooks/{webhook_id}"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response, webhook_id: str) -> None:
        """Shows a webhook."""
        self.policy.check("webhook:get", identity(req))
        webhook = await self.run(self.services.webhooks.get, identity(req), check_uuid(webhook_id))
        respond(resp, webhook_views.webhook(webhook, self.base_url(req)))

    async def on_put(self, req: Request, resp: falcon.asgi.Response, webhook_id: str) -> None:
        """Changes a webhook; a secret that is made for it is in this answer alone."""
        self.policy.check("webhook:update", identity(req))
        body = schemas.decode(await self.body(req), schemas.UpdateWebhook)
        changes = core.Changes(
            _reference(body), body.description, body.signed, body.secret, body.rate_limit, body.rate_burst
        )
        changed = await self.run(
            self.services.webhooks.update, identity(req), check_uuid(webhook_id), changes
        )
        respond(resp, webhook_views.webhook(changed.webhook, self.base_url(req), changed.secret))

    async def on_delete(self, req: Request, resp: falcon.asgi.Response, webhook_id: str) -> None:
        """Deletes a webhook; the executions that it made stay."""
        self.policy.check("webhook:delete", identity(req))
        await self.run(self.services.webhooks.delete, identity(req), check_uuid(webhook_id))
        resp.status = 204


class RotateWebhook(Resource):
    """/v1/webhooks/{webhook_id}/rotate"""

    async def on_post(self, req: Request, resp: falcon.asgi.Response, webhook_id: str) -> None:
        """Gives a webhook another secret; the present one is accepted for a while."""
        self.policy.check("webhook:rotate", identity(req))
        body = schemas.decode(await self.body(req) or b"{}", schemas.RotateWebhook)
        rotate = self.services.webhooks.rotate
        changed = await self.run(rotate, identity(req), check_uuid(webhook_id), body.secret, body.overlap)
        respond(resp, webhook_views.webhook(changed.webhook, self.base_url(req), changed.secret))


class InvokeWebhook(Resource):
    """/v1/webhooks/{webhook_id}/invoke"""

    unlisted = frozenset(("GET",))

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._max_call = int(desk.services.conf.webhooks.max_body_size)

    async def on_post(self, req: Request, resp: falcon.asgi.Response, webhook_id: str) -> None:
        """Calls the webhook's function; the execution is durable when this is answered."""
        if not is_uuid(webhook_id):
            raise core.missing(webhook_id)
        call = payloads.call(req, await read_body(req, self._max_call))
        admitted = await self.run(self.services.deliveries.admit, check_uuid(webhook_id), call)
        if admitted.record is not None:
            await self.invocation.calls.accept(admitted.record)
        self.desk.queued()
        respond(resp, webhook_views.InvokedView(admitted.execution_id), 202)

    async def on_get(self, req: Request, resp: falcon.asgi.Response, webhook_id: str) -> None:
        """There is nothing to see here: 404, as the old server has it, rather than 405."""
        raise errors.NotFound(f"There is nothing at {req.path[:200]}.")


def _reference(body: schemas.CreateWebhook) -> Reference:
    function_id = None if body.function_id is None else check_uuid(body.function_id)
    return Reference(function_id, body.function_version, body.function_alias)
