"""Scratch space of workers on machines without mount namespaces: directories below the system's own.

With mount namespaces a worker has a tmpfs of its own instead, see `rootfs`.  Standard library only: the
zygote imports it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil


@dataclasses.dataclass(frozen=True, slots=True)
class Scratch:
    """The scratch directories of one installation."""

    path: str

    def make(self, name: str, user: int | None, code: str | None) -> str:
        """Create a worker's directories ``tmp`` and, as a copy, ``code``; returns where.

        ``user`` owns them, and functions are the user after it; None: the same as this process.
        Raises OSError.
        """
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.path, 0o711)
        if os.lstat(self.path).st_uid != os.geteuid() or os.path.islink(self.path):
            raise OSError(errno.EEXIST, f"{self.path} belongs to somebody else; remove it")
        place = f"{self.path}/{name}"
        os.mkdir(place, 0o711)
        os.mkdir(f"{place}/tmp", 0o700)
        if code is not None:
            shutil.copytree(code, f"{place}/code", symlinks=True)
        if user is not None:
            os.chown(place, user, user)
            os.chown(f"{place}/tmp", user + 1, user + 1)
        return place

    def names(self) -> set[str]:
        """What has a directory."""
        try:
            return set(os.listdir(self.path))
        except FileNotFoundError:
            return set()

    def remove(self, name: str) -> None:
        """Remove a worker's directory.  Idempotent."""
        shutil.rmtree(f"{self.path}/{name}", ignore_errors=True)

    def close(self) -> None:
        """Remove the parent if nothing is in it."""
        with contextlib.suppress(OSError):
            os.rmdir(self.path)
