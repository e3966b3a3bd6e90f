"""The public interface of auth drivers: who is calling.

A third-party driver subclasses `AuthDriver` and names the class in the entry point group
``funcplat.auth``.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from oslo_config import cfg

from funcplat.drivers.base import Context

API_VERSION = 1
"""The version of this interface; the loader refuses a driver of another one and names both."""


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """A caller, as the auth driver knows them."""

    project_id: str
    user_id: str
    roles: frozenset[str]
    token: str | None = dataclasses.field(default=None, repr=False)

    @property
    def is_admin(self) -> bool:
        """Admins see single resources of every project (API.md section 11)."""
        return "admin" in self.roles


class AuthDriver(abc.ABC):
    """Turns a token into an `Identity`.  Asynchronous: it stands at the door."""

    api_version: ClassVar[int] = API_VERSION
    opts: ClassVar[Sequence[cfg.Opt]] = ()
    """Options, registered by the loader in the group ``[auth_<name>]``."""
    authenticates: ClassVar[bool] = True
    """False: everybody is let in, so a server must not listen beyond loopback unless told twice."""
    challenge: ClassVar[str] = "X-Auth-Token"
    """The WWW-Authenticate header of a 401."""

    def __init__(self, options: cfg.ConfigOpts.GroupAttr, context: Context) -> None:
        """Store what is given; touch nothing outside."""
        self.options = options
        self.context = context

    def check(self) -> None:
        """Raise a DriverError that says why the driver cannot work now."""

    async def close(self) -> None:
        """Release what this process holds.  Idempotent."""

    @abc.abstractmethod
    async def authenticate(self, token: str | None) -> Identity:
        """Who presents this token.

        Raises Unauthenticated, or DriverUnavailable where that cannot be known: never lets in by default.
        """
