"""Unpacked packages on this machine, for its workers."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import os
import pathlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from typing import BinaryIO

from funcplat.core.package_rules import PackageLimits
from funcplat.core.unpacking import unpack

LOG = logging.getLogger(__name__)

SETTLE = 300.0
"""Seconds after a directory's last use in which `CodeCache.sweep` leaves it alone: its worker starts."""

_DIGEST = re.compile(r"[0-9a-f]{32,128}")
_RECORD_SUFFIX = ".use"


@dataclasses.dataclass(frozen=True, slots=True)
class _Use:
    """What a record says."""

    digest: str
    used_at: float  # seconds since the epoch
    boot: str  # on which the directory was completed; empty: it never was
    size: int  # bytes of disk


class CodeCache:
    """Unpacked packages: one directory a digest, for all workers and processes of this machine.

    Beside each directory lies a *record*, ``<digest>.use``: its lock is held shared to look and exclusively
    to make or remove the directory, its time is that of the last use, and its text says on which boot of the
    machine the directory was completed and how much disk it takes.  Directories are not synced to disk, which
    would take longer than unpacking; so one of an earlier boot is made anew.

    Thread-safe, and safe between processes.
    """

    def __init__(self, directory: pathlib.Path, limits: PackageLimits, max_bytes: int) -> None:
        """``max_bytes`` is of disk space; `sweep` keeps it, so it may be exceeded between sweeps."""
        self._directory = directory
        self._limits = limits
        self._max_bytes = max_bytes
        self._boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def path(
        self, digest: str, open_package: Callable[[], contextlib.AbstractContextManager[Iterator[bytes]]]
    ) -> pathlib.Path:
        """The directory with the package's files.

        Where it is not there yet, one caller opens the package and unpacks it while the others wait.  Raises
        what ``open_package`` and `unpack` raise; then the next caller tries again.
        """
        directory = self._directory / digest
        with self._record(digest, fcntl.LOCK_SH) as record:
            if self._is_complete(record, digest):
                return directory
        with self._record(digest, fcntl.LOCK_EX) as record:
            if not self._is_complete(record, digest):
                self._discard(digest)
                with open_package() as chunks:
                    unpack(chunks, directory, self._limits)
                record.write(f"{self._boot} {_disk_usage(directory)}\n".encode())
                record.truncate()
        return directory

    def remove(self, digest: str) -> None:
        """Remove the directory; one that is being made is waited for.  Unknown: returns.  Idempotent."""
        with self._record(digest, fcntl.LOCK_EX):
            self._drop(digest)

    def sweep(self, in_use: Collection[str]) -> None:
        """Remove what crashes left, and the least recently used directories beyond ``max_bytes``.

        Never one whose digest is in ``in_use``, one in work, or one used within the last `SETTLE` seconds.
        """
        uses = sorted(self._uses(), key=lambda use: use.used_at)
        excess = sum(use.size for use in uses) - self._max_bytes
        for use in uses:
            unwanted = excess > 0 or use.boot != self._boot
            if unwanted and use.digest not in in_use and self._drop_unused(use.digest):
                excess -= use.size
        self._sweep_leftovers()

    # -- records -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _record(self, digest: str, lock: int) -> Iterator[BinaryIO]:
        """The locked record of a digest, made where it is missing.  LOCK_NB: raises BlockingIOError."""
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is not a digest in hex")
        self._directory.mkdir(parents=True, exist_ok=True)
        # Workers run as other users: they may enter a directory whose digest they are told, but not list.
        self._directory.chmod(0o711)
        path = self._directory / f"{digest}{_RECORD_SUFFIX}"
        while True:
            with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as record:
                fcntl.flock(record, lock)
                if _is_at(record, path):  # else it was removed while this call waited
                    yield record
                    return

    def _is_complete(self, record: BinaryIO, digest: str) -> bool:
        """Whether the directory can be used; marks it as used.  The record can be rewritten then."""
        os.utime(record.fileno())
        boot = record.read().decode().partition(" ")[0]
        if boot == self._boot and (self._directory / digest).is_dir():
            return True
        record.seek(0)
        return False

    def _uses(self) -> Iterator[_Use]:
        for path in self._directory.glob(f"*{_RECORD_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                boot, _, size = path.read_text().strip().partition(" ")
                yield _Use(path.stem, path.stat().st_mtime, boot, int(size or 0))

    # -- removal -------------------------------------------------------------------------------------

    def _drop_unused(self, digest: str) -> bool:
        try:
            with self._record(digest, fcntl.LOCK_EX | fcntl.LOCK_NB) as record:
                if time.time() - os.fstat(record.fileno()).st_mtime < SETTLE:
                    return False
                self._drop(digest)
        except BlockingIOError:
            return False
        LOG.info("unpacked package %s: removed", digest)
        return True

    def _drop(self, digest: str) -> None:
        """Remove directory and record, whose exclusive lock is held."""
        self._discard(digest)
        (self._directory / f"{digest}{_RECORD_SUFFIX}").unlink(missing_ok=True)

    def _discard(self, digest: str) -> None:
        """Remove the directory so that it is never seen in part: what is renamed is a leftover already."""
        grave = pathlib.Path(tempfile.mkdtemp(prefix=f".{digest}.", dir=self._directory))
        with contextlib.suppress(FileNotFoundError):
            (self._directory / digest).rename(grave)
        shutil.rmtree(grave, ignore_errors=True)

    def _sweep_leftovers(self) -> None:
        """Remove temporary directories whose makers are gone: those alive hold the digest's lock."""
        for path in self._directory.glob(".*"):
            digest = path.name.split(".")[1]
            if _DIGEST.fullmatch(digest):
                with (
                    contextlib.suppress(BlockingIOError),
                    self._record(digest, fcntl.LOCK_EX | fcntl.LOCK_NB),
                ):
                    shutil.rmtree(path, ignore_errors=True)
                    if not (self._directory / digest).exists():
                        self._drop(digest)


def _is_at(file: BinaryIO, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _disk_usage(directory: pathlib.Path) -> int:
    """Bytes that a directory tree takes on disk."""
    return sum(
        (pathlib.Path(parent) / name).lstat().st_blocks * 512
        for parent, _, names in os.walk(directory)
        for name in (*names, ".")
    )
