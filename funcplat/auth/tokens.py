"""The auth driver ``tokens``: a file maps hashed tokens to projects, users and roles."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import pathlib
import stat
import time
from collections.abc import Sequence
from typing import ClassVar

from oslo_config import cfg

from funcplat import errors
from funcplat.auth import tokenfile
from funcplat.auth.base import AuthDriver, Identity
from funcplat.auth.tokenfile import add_token, default_path, generate
from funcplat.drivers.base import Context

__all__ = ["TokensDriver", "add_token", "default_path", "generate"]

LOG = logging.getLogger(__name__)

LOOK_INTERVAL = 1.0
"""Seconds for which a look at the file holds: as long may a token live that was taken out of it."""

_Signature = tuple[int, int, int]


class TokensDriver(AuthDriver):
    """Knows tokens by their SHA-256.  Not thread-safe: it is used from one event loop.

    A request costs one hash and one lookup of it.  That the lookup's time may depend on stored hashes tells
    nothing: what it compares is not the token but its hash, and nobody can choose the bits of a hash to come
    nearer to a stored one.
    """

    opts: ClassVar[Sequence[cfg.Opt]] = (
        cfg.StrOpt(
            "file",
            help="File of the tokens' hashes; made and extended by: funcplat token create. A change "
            "counts within a second. Unset: tokens.toml in state_dir. Example: /etc/funcplat/tokens.toml",
        ),
    )

    def __init__(self, options: cfg.ConfigOpts.GroupAttr, context: Context) -> None:
        super().__init__(options, context)
        self._grants: tokenfile.Grants = {}
        self._seen: _Signature | None = None
        self._looked_at = float("-inf")
        self._look: asyncio.Future[None] | None = None
        self._fault: str | None = None
        # Its own thread: behind uploads in the loop's common ones every caller would wait once a second.
        self._reader = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="auth-tokens")

    @property
    def path(self) -> pathlib.Path:
        return pathlib.Path(self.options.file) if self.options.file else default_path(self.context.state_dir)

    def check(self) -> None:
        """Read the file.  Raises DriverError that names its line and what is wrong with it."""
        try:
            self._read()
        except FileNotFoundError as error:
            raise errors.DriverError(
                f"{self.path} does not exist; make it with: funcplat token create --project P --user U"
            ) from error
        except OSError as error:
            raise errors.DriverError(f"{self.path}: {error.strerror}") from error
        self._looked_at = time.monotonic()

    async def authenticate(self, token: str | None) -> Identity:
        """Who presents this token.  Raises Unauthenticated for none, an unknown or an expired one."""
        if time.monotonic() - self._looked_at > LOOK_INTERVAL:
            await self._look_again()
        grant = self._grants.get(tokenfile.hash_token(token)) if token else None
        if grant is None:
            raise errors.Unauthenticated()
        if grant.expires_at is not None and grant.expires_at <= self.context.clock():
            raise errors.Unauthenticated("The token has expired; ask for a new one.")
        return grant.identity

    async def close(self) -> None:
        self._reader.shutdown(cancel_futures=True)

    # -- the file ------------------------------------------------------------------------------------

    async def _look_again(self) -> None:
        """Look at the file, once for all requests that wait for it: none is judged by older knowledge."""
        if self._look is None or self._look.done():
            self._look = asyncio.get_running_loop().run_in_executor(self._reader, self._read_if_changed)
        await asyncio.shield(self._look)

    def _read_if_changed(self) -> None:
        started = time.monotonic()
        fault = None
        try:
            if _signature(self.path.stat()) != self._seen:
                self._read()
                LOG.info("%s: read again, %d tokens", self.path, len(self._grants))
        except (OSError, errors.DriverError) as error:
            fault = str(error)
            if fault != self._fault:
                LOG.error("tokens are not read again, those known so far stay valid: %s", fault)  # noqa: TRY400
        self._fault = fault
        self._looked_at = started

    def _read(self) -> None:
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            self._seen = _signature(status)
            data = file.read()
        if stat.S_IMODE(status.st_mode) & ~0o640:
            LOG.warning("%s: mode %o lets others in; run: chmod 640", self.path, stat.S_IMODE(status.st_mode))
        try:
            self._grants = tokenfile.parse(data.decode(), self.path)
        except UnicodeDecodeError as error:
            raise errors.DriverError(f"{self.path}: it is not UTF-8: {error}") from error


def _signature(status: os.stat_result) -> _Signature:
    return status.st_mtime_ns, status.st_ino, status.st_size
