"""The file of the auth driver ``tokens``: who presents which token.

TOML, a table a token, in the order in which they were added::

    [[tokens]]
    hash = "sha256:<64 hex digits>"
    project = "demo"
    user = "alice"
    roles = ["member"]
    expires_at = 2030-01-01T00:00:00Z

The file has no token in it.  A token is 256 random bits, so its SHA-256 cannot be turned around by guessing:
a slow, salted hash, as passwords need, would cost milliseconds a request and protect nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import hashlib
import json
import os
import pathlib
import re
import secrets
import stat
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from funcplat import errors
from funcplat.auth.base import Identity

_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_KEYS = {"hash", "project", "user", "roles", "expires_at"}
_NAME = re.compile(r"[!-~][ -~]{0,254}")


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """What a token gives."""

    identity: Identity
    expires_at: datetime.datetime | None  # UTC-aware


Grants = Mapping[bytes, Grant]
"""Grants by the SHA-256 of their tokens."""


def default_path(state_dir: pathlib.Path) -> pathlib.Path:
    """Where the file is when ``[auth_tokens] file`` does not say."""
    return state_dir / "tokens.toml"


def generate() -> tuple[str, str]:
    """A new token, to be shown once, and its hash for the file."""
    token = f"fp_{secrets.token_urlsafe(32)}"
    return token, f"sha256:{hash_token(token).hex()}"


def hash_token(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def parse(text: str, path: pathlib.Path) -> Grants:
    """The grants of a file's text.  Raises DriverError that names the file, the line and what is wrong."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise errors.DriverError(f"{path}: {error}") from error
    tables = content.pop("tokens", [])
    if content or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise errors.DriverError(f"{path}: only tables [[tokens]] may stand here")
    grants: dict[bytes, Grant] = {}
    for number, table in enumerate(tables):
        fault = _fault(table)
        key = bytes.fromhex(table["hash"].partition(":")[2]) if fault is None else b""
        if fault is None and key in grants:
            fault = "its hash stands in an earlier table, too"
        if fault is not None:
            raise errors.DriverError(f"{path}: line {_line(text, number)}: {fault}")
        grants[key] = _grant(table)
    return grants


def add_token(
    path: pathlib.Path,
    token_hash: str,
    project: str,
    user: str,
    roles: Sequence[str] = (),
    expires_at: datetime.datetime | None = None,
) -> None:
    """Append a token to the file, which is made where it is missing; what stands there is kept as it is.

    Atomic, also against other callers: readers see the old file or the new one.  Raises DriverError for
    values that cannot stand in the file, for a file that is not one of tokens, and for a disk that fails.
    """
    table = ["[[tokens]]", f"hash = {json.dumps(token_hash)}", f"project = {json.dumps(project)}"]
    table += [f"user = {json.dumps(user)}", f"roles = {json.dumps(list(roles))}"]
    if expires_at is not None:
        table.append(f"expires_at = {expires_at.isoformat()}")
    try:
        path = path.resolve()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path.parent):
            text = path.read_text() if path.exists() else ""
            text = f"{text.rstrip()}\n\n".lstrip() + "\n".join(table) + "\n"
            parse(text, path)
            _replace(path, text)
    except (OSError, UnicodeDecodeError) as error:
        raise errors.DriverError(f"{path}: {error}") from error


def _fault(table: Mapping[str, Any]) -> str | None:
    """What is wrong with a table, as a sentence without a period."""
    unknown = sorted(table.keys() - _KEYS)
    if unknown:
        return f"unknown key {unknown[0]!r}; valid are {', '.join(sorted(_KEYS))}"
    if not _HASH.fullmatch(str(table.get("hash"))):
        return 'hash must be "sha256:" and 64 lower-case hex digits, as "funcplat token create" prints them'
    for key in ("project", "user"):
        if not (isinstance(table.get(key), str) and _NAME.fullmatch(table[key])):
            return f"{key} must be a text of 1 to 255 printable ASCII characters"
    roles = table.get("roles", [])
    if not (
        isinstance(roles, list) and all(isinstance(role, str) and _NAME.fullmatch(role) for role in roles)
    ):
        return 'roles must be a list of texts, such as ["admin"]'
    expires_at = table.get("expires_at")
    if expires_at is not None and not (isinstance(expires_at, datetime.datetime) and expires_at.tzinfo):
        return "expires_at must be a time with its offset, such as 2030-01-01T00:00:00Z"
    return None


def _grant(table: Mapping[str, Any]) -> Grant:
    identity = Identity(table["project"], table["user"], frozenset(table.get("roles", [])))
    return Grant(identity, table.get("expires_at"))


def _line(text: str, number: int) -> int | str:
    """The line in which the table of that number begins."""
    heads = [
        line
        for line, words in enumerate(text.splitlines(), 1)
        if words.replace(" ", "").startswith("[[tokens]]")
    ]
    return heads[number] if number < len(heads) else "?"


@contextlib.contextmanager
def _locked(directory: pathlib.Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: pathlib.Path, text: str) -> None:
    """Write beside and rename.  A file keeps its mode and owner; a new one is for its owner alone."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False))
        stack.callback(pathlib.Path(file.name).unlink, missing_ok=True)
        if path.exists():
            status = path.stat()
            os.fchown(file.fileno(), status.st_uid, status.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        pathlib.Path(file.name).rename(path)
