"""Errors on the wire: the one table from error classes to HTTP, and the one shape that all answers have.

``faultstring`` stands at the top level because old clients need it there, and is what ``message`` is;
``code`` is stable; ``request_id`` finds the request in the log (API.md section 1.2).
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import falcon
import falcon.asgi
import msgspec

from funcplat import errors

LOG = logging.getLogger(__name__)

STATUS: dict[type[errors.FuncplatError], int] = {
    errors.RequestError: 400,
    errors.InvalidRequest: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.NotDownloadable: 405,
    errors.Conflict: 409,
    errors.TooLarge: 413,
    errors.IdempotencyKeyReused: 422,
    errors.RateLimited: 429,
    errors.Overloaded: 503,
    errors.DriverUnavailable: 503,
    errors.NotSupported: 501,
    errors.NoCapacity: 503,
    errors.DriverError: 502,
    errors.WorkerError: 502,
    errors.FuncplatError: 500,
}

HTTP_CODES = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    431: "headers_too_large",
}
"""Codes of the errors that the web framework itself finds."""


def status_of(error: errors.FuncplatError) -> int:
    """By the nearest class in the error's own order of classes."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def body(status: int, code: str, message: str, request_id: str) -> bytes:
    return msgspec.json.encode(
        {
            "faultstring": message,
            "faultcode": "Client" if status < 500 else "Server",
            "debuginfo": None,
            "code": code,
            "message": message,
            "request_id": request_id,
        }
    )


def answer(resp: falcon.asgi.Response, status: int, code: str, message: str, request_id: str) -> None:
    resp.status = status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = body(status, code, message, request_id)
    resp.stream = None
    resp.text = resp.media = None


@dataclasses.dataclass(frozen=True, slots=True)
class Explained:
    """What a caller is told about an error."""

    status: int
    code: str
    message: str

    def body(self, request_id: str) -> bytes:
        return body(self.status, self.code, self.message, request_id)


def explain(error: Exception, request_id: str, what: str) -> Explained:
    """What to say of an error; those that are not the caller's go to the log. ``what``: method and path."""
    internal = f"An internal error occurred; look for {request_id} in the server's log."
    if not isinstance(error, errors.FuncplatError):
        LOG.error("%s %s failed", request_id, what, exc_info=error)
        return Explained(500, errors.FuncplatError.code, internal)
    status = status_of(error)
    if status >= 500:
        LOG.error("%s %s: %s: %s", request_id, error.code, what, error.message, exc_info=error)
    return Explained(status, error.code, internal if status == 500 else error.message)


async def on_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Exception, params: Any
) -> None:
    """For all errors but the framework's own."""
    found = explain(error, req.context.id, f"{req.method} {req.path}")
    if found.status == 401:
        resp.set_header("WWW-Authenticate", req.context.challenge)
    if isinstance(error, errors.RateLimited):
        resp.set_header("Retry-After", str(error.retry_after))
    answer(resp, found.status, found.code, found.message, req.context.id)


async def on_http_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: falcon.HTTPError, params: Any
) -> None:
    status = error.status_code
    if error.headers:
        resp.set_headers(error.headers)
    message = error.description or error.title or "The request cannot be served."
    if status == 404:
        message = f"There is nothing at {req.path[:200]}."
    if status == 405:
        allowed = dict(error.headers or {}).get("Allow", "")
        message = f"{req.method} is not possible at {req.path[:200]}; possible: {allowed}."
    answer(resp, status, HTTP_CODES.get(status, "request_error"), message, req.context.id)
