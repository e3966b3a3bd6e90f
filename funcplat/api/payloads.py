"""What callers of webhooks send: anything, of which JSON objects and forms become arguments."""

from __future__ import annotations

import io
import json
import urllib.parse
from typing import Any

import falcon
import falcon.media

from funcplat import errors
from funcplat.api import forms, queries
from funcplat.api.middleware import Request
from funcplat.core.deliveries import Call
from funcplat.core.signatures import HEADERS

MAX_FIELDS = 1000


def call(req: Request, body: bytes) -> Call:
    """The call of a webhook.  Raises InvalidRequest for JSON and forms that cannot be read."""
    headers = {name: value for name in HEADERS if (value := req.get_header(name)) is not None}
    return Call(headers, body, queries.single(req.params), _arguments(req.content_type or "", body))


def _arguments(content_type: str, body: bytes) -> dict[str, Any]:
    media_type = content_type.partition(";")[0].strip().lower()
    if not body:
        return {}
    if media_type == "application/json" or media_type.endswith("+json"):
        return _json(body)
    if media_type == "application/x-www-form-urlencoded":
        return _form(body)
    if media_type == "multipart/form-data":
        return _multipart(content_type, body)
    return {}


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise errors.InvalidRequest(f"The request body is not valid JSON: {error}") from error
    return value if isinstance(value, dict) else {}


def _form(body: bytes) -> dict[str, Any]:
    try:
        pairs = urllib.parse.parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise errors.InvalidRequest(f"The form cannot be read: {error}") from error
    return dict(pairs)


def _multipart(content_type: str, body: bytes) -> dict[str, Any]:
    """The form's fields; files are left out."""
    handler = falcon.media.MultipartFormHandler()
    handler.parse_options.max_body_part_count = forms.MAX_PARTS
    try:
        form = handler.deserialize(io.BytesIO(body), content_type, len(body))
        return {
            part.name: part.stream.read().decode()
            for part in form
            if part.filename is None and part.name is not None
        }
    except (falcon.HTTPError, UnicodeDecodeError) as error:
        raise errors.InvalidRequest(f"The multipart form cannot be read: {error}") from error
