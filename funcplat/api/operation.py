"""One method of one path, as the OpenAPI document describes it."""

from __future__ import annotations

import dataclasses

import msgspec

PROJECT_QUERY = ("all_projects", "project_id")
PAGE_QUERY = ("limit", "marker", "sort_key", "sort_dir")
FUNCTION = "/v1/functions/{function_id}"


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    summary: str
    status: int
    answer: type[msgspec.Struct] | None = None
    key: str | None = None  # lists: the envelope's key
    body: type[msgspec.Struct] | None = None
    form: bool = False  # the body may be multipart or a form as well
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    media: str = "application/json"
    errors: tuple[int, ...] = ()
