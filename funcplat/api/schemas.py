"""Requests: what their bodies may hold.

The OpenAPI document is made from the same classes.  In requests null is absent, a numeric string is a number,
and an unknown attribute of a typed resource is an error (as the old server had it).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from funcplat import errors
from funcplat.core import retries

Name = Annotated[str, msgspec.Meta(max_length=255)]
Entry = Annotated[str, msgspec.Meta(max_length=80)]
VersionNumber = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
S = TypeVar("S", bound=msgspec.Struct)


# -- requests ------------------------------------------------------------------------------------------------


class CreateRuntime(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/runtimes."""

    image: Name | None = None
    name: Name | None = None
    description: Name | None = None
    is_public: bool | None = None
    trusted: bool | None = None
    orchestrator: Name | None = None


class UpdateRuntime(msgspec.Struct, forbid_unknown_fields=True):
    """Body of PUT /v1/runtimes/{id}; is_public and trusted are accepted and ignored."""

    image: Name | None = None
    name: Name | None = None
    description: Name | None = None
    is_public: bool | None = None
    trusted: bool | None = None


class FunctionForm(msgspec.Struct):
    """Fields of POST and PUT /v1/functions; unknown ones are ignored."""

    name: Name | None = None
    description: Name | None = None
    runtime_id: Name | None = None
    entry: Entry | None = None
    cpu: int | None = None
    memory_size: int | None = None
    memory: int | None = None
    timeout: int | None = None
    code: dict[str, Any] | None = None
    environment: dict[str, str] | None = None


class Scale(msgspec.Struct, forbid_unknown_fields=True):
    """Body of scale_up and scale_down."""

    count: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None


class CreateVersion(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/functions/{id}/versions."""

    description: Name | None = None


class AliasRoute(msgspec.Struct, forbid_unknown_fields=True):
    """A version that an alias leads to, and its weight."""

    function_version: VersionNumber
    weight: Annotated[int, msgspec.Meta(ge=1, le=10_000)]


Routes = Annotated[list[AliasRoute], msgspec.Meta(max_length=100)]


class CreateAlias(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/aliases; routes is an addition."""

    name: Name | None = None
    function_id: str | None = None
    function_version: VersionNumber | None = None
    description: Name | None = None
    routes: Routes | None = None


class UpdateAlias(msgspec.Struct, forbid_unknown_fields=True):
    """Body of PUT /v1/aliases/{name}; name is accepted and ignored."""

    name: Name | None = None
    function_id: str | None = None
    function_version: VersionNumber | None = None
    description: Name | None = None
    routes: Routes | None = None


class Retry(msgspec.Struct, forbid_unknown_fields=True):
    """What is done where the function fails: so many attempts in all, ``delay`` seconds before the second."""

    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=retries.MAX_ATTEMPTS)]
    delay: Annotated[float, msgspec.Meta(ge=0, le=retries.MAX_DELAY)] | None = None


class CreateExecution(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/executions; input is a string, or as an addition an object."""

    function_id: str | None = None
    function_alias: Name | None = None
    function_version: VersionNumber | None = None
    sync: bool | None = None
    input: str | dict[str, Any] | None = None
    description: Name | None = None
    retry: Retry | None = None


class SelectDeadLetters(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/dead_letters/redrive and purge: those that have all of what is given."""

    ids: Annotated[list[str], msgspec.Meta(max_length=500)] | None = None
    function_id: str | None = None
    reason: Annotated[str, msgspec.Meta(max_length=32)] | None = None


class CreateJob(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/jobs; status is accepted and ignored."""

    function_id: str | None = None
    function_alias: Name | None = None
    function_version: VersionNumber | None = None
    name: Name | None = None
    pattern: Name | None = None
    first_execution_time: Name | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    function_input: str | None = None
    status: Name | None = None
    time_zone: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    missed_ticks: Name | None = None


class UpdateJob(msgspec.Struct, forbid_unknown_fields=True):
    """Body of PUT /v1/jobs/{id}; what says which function runs, and how often, is accepted and ignored."""

    name: Name | None = None
    status: Name | None = None
    pattern: Name | None = None
    next_execution_time: Name | None = None
    function_input: str | None = None
    time_zone: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    missed_ticks: Name | None = None
    function_id: Any = None
    function_alias: Any = None
    function_version: Any = None
    count: Any = None
    first_execution_time: Any = None


RateLimit = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
RateBurst = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class CreateWebhook(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/webhooks."""

    function_id: str | None = None
    function_alias: Name | None = None
    function_version: VersionNumber | None = None
    description: Name | None = None
    signed: bool | None = None
    secret: Name | None = None
    rate_limit: RateLimit | None = None
    rate_burst: RateBurst | None = None


class UpdateWebhook(CreateWebhook, forbid_unknown_fields=True):
    """Body of PUT /v1/webhooks/{id}."""


class RotateWebhook(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/webhooks/{id}/rotate; overlap in seconds."""

    secret: Name | None = None
    overlap: Annotated[float, msgspec.Meta(ge=0, le=31_536_000)] | None = None


READ_ONLY = frozenset(
    (
        "id",
        "status",
        "project_id",
        "created_at",
        "updated_at",
        "result",
        "reason",
        "worker_id",
        "count",
        "version_number",
    )
)


# -- reading requests ----------------------------------------------------------------------------------------


def decode(body: bytes, kind: type[S]) -> S:
    """A typed JSON body.  Raises InvalidRequest."""
    if not body:
        raise errors.InvalidRequest("Missing argument: this request needs a JSON object as its body.")
    try:
        # PERF(decode): straight into the struct, 1 us; the slow look at the raw object only explains errors.
        value = msgspec.json.decode(body, type=kind, strict=False)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _explained(body, error, kind) from error
    check_text(value)
    return value


def convert(fields: Mapping[str, Any], kind: type[S]) -> S:
    """A form's fields.  Raises InvalidRequest."""
    try:
        value = msgspec.convert(dict(fields), kind, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        raise errors.InvalidRequest(f"Invalid input: {error}") from error
    check_text(value)
    return value


def check_text(value: msgspec.Struct) -> None:
    """Raise InvalidRequest for text that no database can keep: NUL and lone surrogates."""
    for name in value.__struct_fields__:
        text = getattr(value, name)
        if isinstance(text, str) and ("\0" in text or not _encodable(text)):
            raise errors.InvalidRequest(f"{name} has a character that cannot be stored.")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _explained(body: bytes, error: Exception, kind: type[msgspec.Struct]) -> errors.InvalidRequest:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return errors.InvalidRequest(f"The request body is not valid JSON: {error}")
    if isinstance(value, dict):
        for name in sorted(READ_ONLY & value.keys() - set(kind.__struct_fields__)):
            return errors.InvalidRequest(
                f"Invalid input for field/attribute {name}. Cannot set read only field."
            )
    text = str(error)
    if "unknown field" in text:
        return errors.InvalidRequest(f"Unknown attribute for argument: {text}")
    return errors.InvalidRequest(f"Invalid input for field/attribute: {text}")


def json_object(name: str, value: Any) -> Any:
    """A form's field that holds a JSON object, as a string or (in JSON bodies) as it is."""
    if not isinstance(value, str):
        return value
    try:
        # Unlike json it refuses NaN, numbers without end and lone surrogates, which no answer could hold.
        decoded = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise errors.InvalidRequest(f"Invalid input, {name} is not a JSON document: {error}") from error
    if not isinstance(decoded, dict):
        raise errors.InvalidRequest(f"Invalid input, {name} must be a JSON object.")
    return decoded
