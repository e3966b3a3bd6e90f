"""The auth driver ``noauth``: everybody is let in, as one project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from oslo_config import cfg

from funcplat import errors
from funcplat.auth.base import AuthDriver, Identity

EVERYBODY = Identity("default", "noauth", frozenset(["admin"]))
"""Who every caller is: with authentication off the project is ``default``, and all is allowed."""


class NoAuthDriver(AuthDriver):
    """Looks at no token.  For one person on one machine, and for first steps."""

    authenticates: ClassVar[bool] = False
    opts: ClassVar[Sequence[cfg.Opt]] = (
        cfg.BoolOpt(
            "allow_exposed",
            default=False,
            help="Let a server without authentication listen beyond this machine, where whoever reaches "
            "it runs code on it. For networks that something else guards, such as a reverse proxy.",
        ),
    )

    def check(self) -> None:
        """Raise a DriverError where the API would be open to others, unless that was asked for twice."""
        if self.context.exposed and not self.options.allow_exposed:
            raise errors.DriverError(
                "the API would listen beyond this machine without authentication, so that whoever reaches "
                "it could run code here. Either set [auth] driver to one that authenticates, such as "
                "tokens, or set [auth_noauth] allow_exposed = true where something else guards the network"
            )

    async def authenticate(self, token: str | None) -> Identity:
        """Everybody; clients send tokens such as ``notused``, which mean nothing here."""
        return EVERYBODY
