"""Why a command did not do what was asked, and the exit code that says so.

The tree::

    Failure
    +-- FunctionFailed       1  the platform ran the function and the function failed
    +-- UsageFailure         2  what was typed cannot work, or the server refuses it as invalid
    +-- PlatformFailure      3  the platform could not do it
    +-- NotFoundFailure      4  no such function, runtime or execution (or it is another project's)
    +-- AuthFailure          5  the token is missing, unknown or not allowed to do this
    +-- ConnectionFailure    6  no server answers
    +-- ConflictFailure      7  something is in a state that does not allow it now
    +-- ConfigFailure       78  the server's configuration cannot work (EX_CONFIG)

The codes are part of the interface: scripts rely on them, so none changes its meaning.
"""

from __future__ import annotations

from typing import ClassVar

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT."""

BROKEN_PIPE = 141
"""Exit code where nobody reads the output any more: 128 + SIGPIPE."""


class Failure(Exception):
    """A command failed in a way that is expected to happen: one line for people, no traceback."""

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *details: str) -> None:
        """``details`` identify the failure to operators: an error code, a request id."""
        super().__init__(message)
        self.message = message
        self.details = details

    def __str__(self) -> str:
        shown = ", ".join(detail for detail in self.details if detail)
        return f"{self.message} ({shown})" if shown else self.message


class FunctionFailed(Failure):
    """The function itself failed."""

    exit_code = 1


class UsageFailure(Failure):
    """The command line, or what it refers to, cannot be used."""

    exit_code = 2


class PlatformFailure(Failure):
    """The platform could not do it."""

    exit_code = 3


class NotFoundFailure(Failure):
    """There is no such thing, or it belongs to another project."""

    exit_code = 4


class AuthFailure(Failure):
    """The caller is not known or not allowed to do this."""

    exit_code = 5


class ConnectionFailure(Failure):
    """No server answers."""

    exit_code = 6


class ConflictFailure(Failure):
    """Something is in a state that does not allow it now."""

    exit_code = 7


class ConfigFailure(Failure):
    """The server's configuration cannot work."""

    exit_code = 78


def by_status(status: int, code: str) -> type[Failure]:
    """The class for an HTTP error status and the server's error code.

    Some are answered with 403, as clients of the API expect, but are no question of rights.
    """
    if code in ("in_use", "too_many_versions", "version_unchanged"):
        return ConflictFailure
    if status >= 500:
        return PlatformFailure
    return {401: AuthFailure, 403: AuthFailure, 404: NotFoundFailure, 409: ConflictFailure}.get(
        status, UsageFailure
    )
