"""The API described for machines: OpenAPI 3.1, made from the same schemas that read and write the bodies."""

from __future__ import annotations

import functools
import re
from typing import Any

import msgspec

from funcplat.api import (
    aliases,
    counts,
    dead_letters,
    job_views,
    jobs,
    middleware,
    schemas,
    stats,
    versions,
    views,
    webhook_views,
    webhooks,
)
from funcplat.api.operation import FUNCTION, PAGE_QUERY, PROJECT_QUERY, Operation

PATH_TYPES: dict[str, dict[str, Any]] = {
    "alias_name": {"type": "string", "maxLength": 255},
    "version_number": {"type": "integer", "minimum": 0},
}
"""Parameters in paths that are no ids."""
QUERY_TYPES: dict[str, dict[str, Any]] = {
    "all_projects": {"type": "boolean"},
    "download": {"type": "boolean"},
    "function_version": {"type": "integer", "minimum": 0},
    "limit": {"type": "integer", "minimum": 1, "maximum": 10000},
    "offset": {"type": "integer", "minimum": 0},
    "sort_dir": {"type": "string", "enum": ["asc", "desc"]},
    "wait": {"type": "integer", "minimum": 0},
}
STRUCTS = (
    schemas.CreateRuntime,
    schemas.UpdateRuntime,
    schemas.FunctionForm,
    schemas.Scale,
    schemas.CreateVersion,
    schemas.CreateAlias,
    schemas.UpdateAlias,
    schemas.CreateExecution,
    schemas.CreateJob,
    schemas.UpdateJob,
    schemas.CreateWebhook,
    schemas.UpdateWebhook,
    schemas.RotateWebhook,
    schemas.SelectDeadLetters,
    views.RuntimeView,
    views.PoolView,
    views.FunctionView,
    views.VersionView,
    views.AliasView,
    views.WorkerView,
    views.ExecutionView,
    job_views.JobView,
    webhook_views.WebhookView,
    webhook_views.InvokedView,
    counts.RedrivenView,
    counts.PurgedView,
    counts.StatsView,
    views.ErrorView,
)


OPERATIONS = (
    Operation("get", "/", "List the versions of the API", 200),
    Operation("get", "/healthz", "Whether this process answers", 200),
    Operation("get", "/readyz", "Whether this process can serve", 200, errors=(503,)),
    Operation(
        "get",
        "/metrics",
        "Counts for Prometheus",
        200,
        media="text/plain; version=0.0.4; charset=utf-8",
        errors=(503,),
    ),
    Operation("get", "/v1", "Where version 1 is", 200, errors=(302,)),
    Operation("get", "/v1/openapi.json", "This document", 200),
    Operation(
        "get",
        "/v1/runtimes",
        "List runtimes",
        200,
        views.RuntimeView,
        "runtimes",
        query=("name", *PAGE_QUERY),
    ),
    Operation(
        "post",
        "/v1/runtimes",
        "Make a runtime (admin)",
        201,
        views.RuntimeView,
        body=schemas.CreateRuntime,
    ),
    Operation("get", "/v1/runtimes/{runtime_id}", "Show a runtime", 200, views.RuntimeView, errors=(404,)),
    Operation(
        "put",
        "/v1/runtimes/{runtime_id}",
        "Change a runtime (admin)",
        200,
        views.RuntimeView,
        body=schemas.UpdateRuntime,
        errors=(404, 409),
    ),
    Operation("delete", "/v1/runtimes/{runtime_id}", "Delete a runtime (admin)", 204, errors=(404,)),
    Operation(
        "get",
        "/v1/runtimes/{runtime_id}/pool",
        "Show a runtime's pool (admin)",
        200,
        views.PoolView,
        errors=(404, 502, 503),
    ),
    Operation(
        "get",
        "/v1/functions",
        "List functions",
        200,
        views.FunctionView,
        "functions",
        query=("name", *PROJECT_QUERY, *PAGE_QUERY),
    ),
    Operation(
        "post",
        "/v1/functions",
        "Make a function",
        201,
        views.FunctionView,
        body=schemas.FunctionForm,
        form=True,
        errors=(404, 409, 502, 503),
    ),
    Operation(
        "get",
        FUNCTION,
        "Show a function, or download its package",
        200,
        views.FunctionView,
        query=("download",),
        errors=(404, 405, 502, 503),
    ),
    Operation(
        "put",
        FUNCTION,
        "Change a function",
        200,
        views.FunctionView,
        body=schemas.FunctionForm,
        form=True,
        errors=(404, 409, 502, 503),
    ),
    Operation("delete", FUNCTION, "Delete a function", 204, errors=(404,)),
    Operation(
        "get",
        FUNCTION + "/workers",
        "List the workers of a function (admin)",
        200,
        views.WorkerView,
        "workers",
        query=("function_version",),
        errors=(404,),
    ),
    Operation(
        "post",
        FUNCTION + "/scale_up",
        "Start more workers (admin)",
        202,
        body=schemas.Scale,
        errors=(404, 409),
    ),
    Operation(
        "post", FUNCTION + "/scale_down", "Stop workers (admin)", 202, body=schemas.Scale, errors=(404,)
    ),
    Operation("post", FUNCTION + "/detach", "Stop all workers (admin)", 202, errors=(404,)),
    *versions.OPERATIONS,
    *aliases.OPERATIONS,
    Operation(
        "get",
        "/v1/executions",
        "List executions",
        200,
        views.ExecutionView,
        "executions",
        query=("function_id", "status", "description", *PROJECT_QUERY, *PAGE_QUERY),
    ),
    Operation(
        "post",
        "/v1/executions",
        "Call a function",
        201,
        views.ExecutionView,
        body=schemas.CreateExecution,
        headers=("Idempotency-Key",),
        errors=(404, 409, 422, 503),
    ),
    Operation(
        "get",
        "/v1/executions/{execution_id}",
        "Show an execution",
        200,
        views.ExecutionView,
        errors=(404,),
    ),
    Operation("delete", "/v1/executions/{execution_id}", "Delete an execution", 204, errors=(404,)),
    Operation(
        "get",
        "/v1/executions/{execution_id}/log",
        "Show what the function wrote",
        200,
        query=("offset", "wait"),
        media="text/plain; charset=UTF-8",
        errors=(404,),
    ),
    *jobs.OPERATIONS,
    *webhooks.OPERATIONS,
    Operation(
        "post",
        "/v1/executions/{execution_id}/cancel",
        "Cancel an execution",
        200,
        views.ExecutionView,
        errors=(404, 409),
    ),
    Operation(
        "post",
        "/v1/executions/{execution_id}/redrive",
        "Queue a dead letter again",
        200,
        views.ExecutionView,
        errors=(404, 409),
    ),
    *dead_letters.OPERATIONS,
    *stats.OPERATIONS,
)


@functools.lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """The OpenAPI document."""
    _, components = msgspec.json.schema_components(STRUCTS, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "funcplat",
            "version": "1.0",
            "summary": "A function platform; speaks the wire of OpenStack Qinling's /v1",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}},
        },
        "paths": paths,
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": _operation_id(operation),
        "parameters": [
            *_path_parameters(operation.path),
            *_query_parameters(operation.query),
            *_headers(operation.headers),
        ],
        "responses": _responses(operation),
        "security": [{"token": []}] if _is_closed(operation.path) else [],
    }
    if operation.body is not None:
        described["requestBody"] = _request_body(operation)
    elif operation.path == webhooks.INVOKE:
        described["requestBody"] = {"content": {"*/*": {"schema": {}}}}
    return described


def _operation_id(operation: Operation) -> str:
    words = re.findall("[a-z0-9]+", operation.path.removeprefix("/v1/").lower())
    return "_".join((operation.method, *words))


def _is_closed(path: str) -> bool:
    return path.startswith("/v1/") and not middleware.is_open(path)


_UUID: dict[str, Any] = {"type": "string", "format": "uuid"}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": PATH_TYPES.get(name, _UUID)}
        for name in re.findall(r"{(\w+)}", path)
    ]


def _query_parameters(names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "schema": QUERY_TYPES.get(name, {"type": "string"})} for name in names
    ]


def _headers(names: tuple[str, ...]) -> list[dict[str, Any]]:
    schema = {"type": "string", "minLength": 1, "maxLength": 255}
    return [{"name": name, "in": "header", "schema": schema} for name in names]


def _request_body(operation: Operation) -> dict[str, Any]:
    assert operation.body is not None
    schema = {"$ref": f"#/components/schemas/{operation.body.__name__}"}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if operation.form:
        package = {"type": "string", "format": "binary", "description": "the package, a ZIP file"}
        multipart = {"allOf": [schema, {"type": "object", "properties": {"package": package}}]}
        content["multipart/form-data"] = {"schema": multipart}
        content["application/x-www-form-urlencoded"] = {"schema": schema}
    return {"required": True, "content": content}


def _responses(operation: Operation) -> dict[str, Any]:
    responses = {str(operation.status): _success(operation)}
    codes = {*operation.errors}
    if _is_closed(operation.path):
        codes |= {400, 401, 403}
    if operation.body is not None:
        codes |= {413}
    for code in sorted(codes):
        responses[str(code)] = _error(code)
    return responses


def _success(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {"description": operation.summary}
    if operation.status == 204 or (operation.status == 202 and operation.answer is None):
        return described
    schema: dict[str, Any] = {"type": "object"}
    if operation.media != "application/json":
        schema = {"type": "string"}
    if operation.answer is not None:
        schema = {"$ref": f"#/components/schemas/{operation.answer.__name__}"}
    if operation.key is not None:
        schema = {
            "type": "object",
            "properties": {operation.key: {"type": "array", "items": schema}, "next": {"type": "string"}},
            "required": [operation.key],
        }
    described["content"] = {operation.media: {"schema": schema}}
    if "download" in operation.query:
        described["content"]["application/zip"] = {"schema": {"type": "string", "format": "binary"}}
    return described


def _error(code: int) -> dict[str, Any]:
    if code == 302:
        return {"description": "Moved to the path with a slash at its end"}
    schema = {"$ref": "#/components/schemas/ErrorView"}
    if code == 503:
        schema = {"type": "object"}
    return {"description": "See the code in the body", "content": {"application/json": {"schema": schema}}}
