"""The three encodings of POST and PUT /v1/functions: multipart, form, JSON (API.md section 4.2)."""

from __future__ import annotations

import dataclasses
import urllib.parse
from typing import Any

import falcon.asgi
import falcon.asgi.multipart
import falcon.media.multipart
import msgspec

from funcplat import errors
from funcplat.api import schemas
from funcplat.api.middleware import Request, read_body
from funcplat.bootstrap import Invocation
from funcplat.core import packages
from funcplat.core.packagestore import PackageStore

MAX_FIELD = 256 * 1024
"""Bytes of one field besides the package."""
MAX_PARTS = 64


@dataclasses.dataclass(slots=True)
class Upload:
    """A function's fields and its package, which the receiver must close."""

    fields: schemas.FunctionForm
    spool: packages.Spool | None
    package: packages.Spooled | None

    def close(self) -> None:
        if self.spool is not None:
            self.spool.close()


async def read(req: Request, store: PackageStore, invocation: Invocation, max_body: int) -> Upload:
    """The fields and the package of a request.  Raises InvalidRequest and TooLarge."""
    media_type = (req.content_type or "").partition(";")[0].strip().lower()
    spool: packages.Spool | None = None
    values: dict[str, Any] = {
        key: value[-1] if isinstance(value, list) else value for key, value in req.params.items()
    }
    if media_type == "multipart/form-data":
        parts, spool = await _multipart(req, store, invocation, max_body)
        values |= parts
    elif media_type == "application/x-www-form-urlencoded":
        values |= _form(await read_body(req, max_body))
    elif body := await read_body(req, max_body):
        values |= _json(body)
    try:
        fields = _fields(values)
        package = await invocation.run(spool.finish) if spool is not None else None
    except errors.FuncplatError:
        if spool is not None:
            spool.close()
        raise
    return Upload(fields, spool, package)


def _fields(values: dict[str, Any]) -> schemas.FunctionForm:
    for name in ("code", "environment"):
        if name in values:
            values[name] = schemas.json_object(name, values[name])
    fields = schemas.convert(values, schemas.FunctionForm)
    if fields.memory_size is None:
        fields.memory_size = fields.memory
    if "code" in values and fields.code is not None:
        _check_code(fields.code)
    _check_environment(fields.environment or {})
    return fields


def _check_code(code: dict[str, Any]) -> None:
    if len(msgspec.json.encode(code)) > 65_535:
        raise errors.InvalidRequest("Invalid input, code is longer than 65535 bytes.")


def _check_environment(environment: dict[str, str]) -> None:
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise errors.InvalidRequest(f"environment has a name or value that cannot be set: {name[:64]!r}")


def _form(body: bytes) -> dict[str, str]:
    try:
        pairs = urllib.parse.parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=1000)
    except ValueError as error:
        raise errors.InvalidRequest(f"The form cannot be read: {error}") from error
    return dict(pairs)


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise errors.InvalidRequest(f"The request body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise errors.InvalidRequest("The request body must be a JSON object.")
    return value


async def _multipart(
    req: Request, store: PackageStore, invocation: Invocation, max_body: int
) -> tuple[dict[str, str], packages.Spool | None]:
    values: dict[str, str] = {}
    spool: packages.Spool | None = None
    try:
        form = await req.get_media()
        async for part in form:
            name = part.name or ""
            if name == "package" and _is_file(part):
                _check_first(spool)
                spool = await invocation.run(store.spool)
                await _receive(part, spool, invocation)
            elif part.filename is None:
                values[name] = await _field(name, part)
    except BaseException as error:
        if spool is not None:
            spool.close()
        if isinstance(error, falcon.MediaMalformedError | falcon.MediaNotFoundError | UnicodeDecodeError):
            raise errors.InvalidRequest(f"The multipart form cannot be read: {error}") from error
        raise
    return values, spool


def _check_first(spool: packages.Spool | None) -> None:
    if spool is not None:
        raise errors.InvalidRequest('There is more than one file part "package".')


async def _field(name: str, part: falcon.asgi.multipart.BodyPart) -> str:
    data: bytes = await part.stream.read(MAX_FIELD)
    if not part.stream.eof:
        raise errors.TooLarge(f"The field {name[:64]!r} is larger than {MAX_FIELD} bytes.")
    return data.decode()


def _is_file(part: falcon.asgi.multipart.BodyPart) -> bool:
    return part.filename is not None or part.content_type not in ("text/plain",)


async def _receive(
    part: falcon.asgi.multipart.BodyPart, spool: packages.Spool, invocation: Invocation
) -> None:
    async for chunk in part.stream:
        # Hashing and writing a chunk take about as long as two switches of threads; disks may take longer.
        await invocation.run(spool.write, chunk)
