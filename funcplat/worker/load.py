"""What /load brings: the revision that a worker serves, and its package."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import stat
from collections.abc import Callable
from typing import Any, BinaryIO

MAX_LINE = 1024 * 1024
"""Bytes of the line of JSON before the package."""
MAX_CONCURRENCY = 1024

_CHUNK = 256 * 1024
_UTF8 = 0x0800  # the flag of a member whose name is in it
_SYSTEMS_OF_BYTES = (3, 19)  # Unix and macOS, where names are bytes
_UNICODE_PATH = 0x7075  # the tag of an extra field
_FIELD_HEAD = 4  # bytes: its tag and its length


class LoadError(Exception):
    """The body of /load cannot be used."""


@dataclasses.dataclass(frozen=True, slots=True)
class Carried:
    """The function that a worker was made with, as an image of a user holds it."""

    entry: str
    path: str  # directory of its files


@dataclasses.dataclass(frozen=True, slots=True)
class Revision:
    """One revision of one function, and the limits of its executions.  Handlers get it: it has no secret."""

    entry: str
    concurrency: int
    path: str | None  # directory of the unpacked package; None: the package follows
    import_timeout: float  # seconds
    max_result: int  # bytes
    max_log: int  # bytes
    environment: dict[str, str]
    function_id: str | None
    function_version: int | None


def parse_line(line: bytes, concurrency: int, carried: Carried | None = None) -> tuple[bytes, Revision]:
    """Parse the first line of /load: the secret, and the rest.

    ``concurrency`` is for a line that has none, ``carried`` for one whose entry is null.  Raises LoadError.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LoadError(f"the first line is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise LoadError("the first line is not a JSON object")
    labels = _field(fields, "labels", dict, lambda value: True, {})
    secret = _field(fields, "secret", str, _is_header_value).encode("ascii")
    if fields.get("entry", "") is None:
        fields |= _carried(fields, carried)
    return secret, Revision(
        entry=_field(fields, "entry", str, lambda value: all(value.rpartition("."))),
        concurrency=_field(
            fields, "concurrency", int, lambda value: 1 <= value <= MAX_CONCURRENCY, concurrency
        ),
        path=_field(fields, "path", str | None, lambda value: value is None or value.startswith("/"), None),
        import_timeout=_field(fields, "import_timeout", int | float, lambda value: 0 < value < 1e9),
        max_result=_field(fields, "max_result", int, lambda value: 0 < value < 2**31),
        max_log=_field(fields, "max_log", int, lambda value: 0 <= value < 2**31),
        environment=_field(fields, "environment", dict, _is_environment, {}),
        function_id=labels.get("function_id"),
        function_version=labels.get("function_version"),
    )


def _carried(fields: dict[str, Any], carried: Carried | None) -> dict[str, Any]:
    if fields.get("path") is not None:
        raise LoadError("there is a path and no entry")
    if carried is None:
        raise LoadError("this worker carries no function: what it was made of names no entry of one")
    return dataclasses.asdict(carried)


_REQUIRED: Any = object()


def _field(
    fields: dict[str, Any], name: str, kind: Any, valid: Callable[[Any], bool], default: Any = _REQUIRED
) -> Any:
    value = fields.get(name, default)
    if value is _REQUIRED:
        raise LoadError(f"{name!r} is missing")
    if not isinstance(value, kind) or isinstance(value, bool) or not valid(value):
        raise LoadError(f"{name!r} has a value that cannot be used")
    return value


def _is_header_value(value: str) -> bool:
    return 0 < len(value) <= 255 and all("!" <= character <= "~" for character in value)


def _is_environment(value: dict[str, Any]) -> bool:
    return all(
        name and "=" not in name and "\0" not in name and isinstance(text, str) and "\0" not in text
        for name, text in value.items()
    )


# -- packages ---------------------------------------------------------------------------------------


def unpack(package: BinaryIO, directory: str) -> None:
    """Unpack a ZIP file into a directory that does not exist yet or is empty.

    Only files and directories with names that stay inside are taken.  Raises LoadError; then nothing is left.
    """
    import zipfile  # not needed where packages come as a path

    root = pathlib.Path(directory)
    try:
        root.mkdir(mode=0o755, parents=True, exist_ok=True)
        with zipfile.ZipFile(package) as archive:
            for member in archive.infolist():
                _extract(archive, member, root)
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, ValueError, OSError) as error:
        _empty(root)
        raise LoadError(f"the package cannot be unpacked: {error}") from error
    except LoadError:
        _empty(root)
        raise


def member_path(name: str) -> tuple[str, ...]:
    """The parts of a member's name; raises LoadError for one that would leave the directory."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or "\0" in name or "\\" in name or not parts:
        raise LoadError(f"the package has a member with an unsafe name: {name!r}")
    return parts


def _extract(archive: Any, member: Any, root: pathlib.Path) -> None:
    name = _name(member)
    target = root.joinpath(*member_path(name))
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if name.endswith("/") else stat.S_IFREG):
        raise LoadError(f"the package has a member that is neither file nor directory: {name!r}")
    if name.endswith("/"):
        target.mkdir(mode=0o755, parents=True, exist_ok=True)
        return
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    mode = 0o755 if member.external_attr >> 16 & 0o111 else 0o644
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with archive.open(member) as source, os.fdopen(os.open(target, flags, mode), "wb") as file:
        while chunk := source.read(_CHUNK):
            file.write(chunk)
        if file.tell() != member.file_size:
            raise LoadError(f"the package has a member that is shorter than it says: {name!r}")


def _name(member: Any) -> str:
    """A member's name as the platform reads it, which `zipfile` does not in each version of Python."""
    if member.flag_bits & _UTF8:
        return str(member.filename)
    raw = member.orig_filename.encode("cp437")
    if (path := _unicode_path(member.extra, raw)) is not None:
        return path
    if member.create_system in _SYSTEMS_OF_BYTES:
        with contextlib.suppress(UnicodeDecodeError):
            return str(raw, "utf-8")
    return str(member.filename)


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """What Info-ZIP says in an extra field of how this name is spelled."""
    import zlib  # which is loaded with zipfile

    while len(extra) >= _FIELD_HEAD:
        tag, end = (int.from_bytes(extra[at : at + 2], "little") for at in (0, 2))
        field, extra = extra[_FIELD_HEAD : end + _FIELD_HEAD], extra[end + _FIELD_HEAD :]
        if tag == _UNICODE_PATH and field[:5] == b"\1" + zlib.crc32(raw).to_bytes(4, "little"):
            return str(field[5:], "utf-8")
    return None


def _empty(root: pathlib.Path) -> None:
    for directory, names, files in os.walk(root, topdown=False):
        for name in files:
            os.unlink(os.path.join(directory, name))  # noqa: PTH108, PTH118  os.walk gives strings
        for name in names:
            with contextlib.suppress(NotADirectoryError):
                os.rmdir(os.path.join(directory, name))  # noqa: PTH106, PTH118
