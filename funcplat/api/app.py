"""The API's table of contents: every route on one screen, and the order of what surrounds them."""

from __future__ import annotations

import dataclasses
from typing import cast

import falcon
import falcon.asgi
import falcon.media

from funcplat.api import (
    aliases,
    dead_letters,
    discovery,
    errors,
    executions,
    forms,
    functions,
    jobs,
    runtimes,
    stats,
    versions,
    webhooks,
    workers,
)
from funcplat.api.front import App, Front
from funcplat.api.middleware import Door, Request
from funcplat.api.resource import Desk, Resource


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """A path and the resource that answers it."""

    path: str
    resource: type[Resource]

    @property
    def methods(self) -> tuple[str, ...]:
        """What the path is for; answers that say 404 do not count."""
        answered = (m for m in ("GET", "POST", "PUT", "DELETE") if hasattr(self.resource, f"on_{m.lower()}"))
        return tuple(method for method in answered if method not in self.resource.unlisted)


ROUTES = (
    Route("/", discovery.Root),
    Route("/healthz", discovery.Health),
    Route("/readyz", discovery.Readiness),
    Route("/metrics", stats.Metrics),
    Route("/v1", discovery.Version),
    Route("/v1/openapi.json", discovery.Document),
    Route("/v1/runtimes", runtimes.Runtimes),
    Route("/v1/runtimes/{runtime_id}", runtimes.Runtime),
    Route("/v1/runtimes/{runtime_id}/pool", runtimes.RuntimePool),
    Route("/v1/functions", functions.Functions),
    Route("/v1/functions/{function_id}", functions.Function),
    Route("/v1/functions/{function_id}/workers", workers.FunctionWorkers),
    Route("/v1/functions/{function_id}/scale_up", workers.ScaleUp),
    Route("/v1/functions/{function_id}/scale_down", workers.ScaleDown),
    Route("/v1/functions/{function_id}/detach", workers.Detach),
    Route("/v1/functions/{function_id}/versions", versions.Versions),
    Route("/v1/functions/{function_id}/versions/{version_number}", versions.Version),
    Route("/v1/functions/{function_id}/versions/{version_number}/scale_up", workers.VersionScaleUp),
    Route("/v1/functions/{function_id}/versions/{version_number}/scale_down", workers.VersionScaleDown),
    Route("/v1/functions/{function_id}/versions/{version_number}/detach", workers.VersionDetach),
    Route("/v1/aliases", aliases.Aliases),
    Route("/v1/aliases/{alias_name}", aliases.Alias),
    Route("/v1/executions", executions.Executions),
    Route("/v1/executions/{execution_id}", executions.Execution),
    Route("/v1/executions/{execution_id}/log", executions.ExecutionLog),
    Route("/v1/executions/{execution_id}/cancel", executions.Cancel),
    Route("/v1/executions/{execution_id}/redrive", executions.Redrive),
    Route("/v1/dead_letters", dead_letters.DeadLetters),
    Route("/v1/dead_letters/redrive", dead_letters.Redrive),
    Route("/v1/dead_letters/purge", dead_letters.Purge),
    Route("/v1/stats", stats.Stats),
    Route("/v1/jobs", jobs.Jobs),
    Route("/v1/jobs/{job_id}", jobs.Job),
    Route("/v1/webhooks", webhooks.Webhooks),
    Route("/v1/webhooks/{webhook_id}", webhooks.Webhook),
    Route("/v1/webhooks/{webhook_id}/rotate", webhooks.RotateWebhook),
    Route("/v1/webhooks/{webhook_id}/invoke", webhooks.InvokeWebhook),
)


def create_app(desk: Desk) -> Front:
    """The ASGI application.  Requests pass the door (id, path, identity), then the responder."""
    door = Door(desk.services.auth, desk.services.conf.api.access_log)
    app: falcon.asgi.App[Request, falcon.asgi.Response]
    app = falcon.asgi.App(middleware=[door], request_type=Request)
    app.req_options.strip_url_path_trailing_slash = True
    app.req_options.keep_blank_qs_values = True
    app.req_options.auto_parse_qs_csv = False
    handler = falcon.media.MultipartFormHandler()
    handler.parse_options.max_body_part_count = forms.MAX_PARTS
    app.req_options.media_handlers[falcon.MEDIA_MULTIPART] = handler
    app.add_error_handler(Exception, errors.on_error)
    app.add_error_handler(falcon.HTTPError, errors.on_http_error)
    for route in ROUTES:
        app.add_route(route.path, route.resource(desk))
    return Front(cast(App, app), door, executions.Executions(desk))
