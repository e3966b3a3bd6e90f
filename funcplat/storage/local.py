"""The storage driver ``local``: packages as files of this machine.

A package of digest ``abcdef…`` is the file ``ab/abcdef…`` below the driver's directory.  It is written to a
temporary file beside, checked on the way, synced, and renamed: so it is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import pathlib
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, ClassVar, cast

from oslo_config import cfg

from funcplat import errors
from funcplat.drivers.base import Feature, Isolation
from funcplat.storage.base import Capability, PackageInfo, StorageDriver

LOG = logging.getLogger(__name__)

CHUNK = 1024 * 1024
"""Bytes of a package that are held at once."""

TEMPORARY_GRACE = 3600.0
"""Seconds after its last write from which on a temporary file may be one that a crash left."""

_DIGEST = re.compile(r"[0-9a-f]{64}")

_PASSING_NAMES = "EAGAIN EBUSY EINTR EIO EMFILE ENFILE ENOMEM ESTALE ETIMEDOUT EHOSTDOWN EHOSTUNREACH"
_PASSING = frozenset(getattr(errno, name) for name in _PASSING_NAMES.split())
"""Errors after which the same call may well succeed; those of hosts are of network file systems."""

_REMEDIES = {
    errno.ENOSPC: "free space there or give [storage_local] directory a larger disk",
    errno.EDQUOT: "raise the quota of this server's user there",
    errno.EROFS: "mount it writable or set [storage_local] directory to another one",
    errno.EACCES: "give this server's user the right to read, write and enter it",
    errno.EPERM: "give this server's user the right to read, write and enter it",
    errno.ENOTDIR: "a file stands where a directory must be: move it away",
}


class LocalDriver(StorageDriver):
    """Keeps packages in a directory, for one server or for several that share the file system."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset([Capability.PACKAGES])
    opts: ClassVar[Sequence[cfg.Opt]] = (
        cfg.StrOpt(
            "directory",
            help="Directory that keeps the packages, on a file system that locks and renames as POSIX says. "
            "Unset: packages in state_dir. Example: /srv/funcplat/packages",
        ),
    )

    def check(self) -> None:
        """Raise a DriverError where packages cannot be written; remove what crashes left."""
        with _translated(self._directory):
            self._make_directories()
            with tempfile.TemporaryFile(dir=self._temporaries) as probe:
                probe.write(b"funcplat")
                probe.flush()
                os.fsync(probe.fileno())
            self._remove_leftovers()

    def features(self) -> Iterable[Feature]:
        yield Feature(
            "durability", Isolation.ENFORCED, f"files in {self._directory}, synced before an upload ends"
        )

    def put(self, digest: str, size: int, data: BinaryIO, deadline: float) -> None:
        """Keep a package.  Always writes, so that putting it again mends a damaged one."""
        path = self._path(digest)
        until = time.monotonic() + deadline
        with self._temporary() as (file, temporary):
            _copy(data, file, digest, size, until, self._directory)
            with _translated(self._directory):
                self._publish(file, temporary, path)

    @contextlib.contextmanager
    def open(self, digest: str, deadline: float) -> Iterator[Iterator[bytes]]:
        """The package's bytes.  The deadline is that of opening: a reader may be slow."""
        path = self._path(digest)
        with contextlib.ExitStack() as stack:
            with _translated(self._directory):
                try:
                    file = stack.enter_context(path.open("rb", buffering=0))
                except FileNotFoundError as error:
                    raise errors.PackageMissing(f"{self._directory} holds no package {digest}") from error
            yield _verified(file, digest, path)

    def delete(self, digest: str, deadline: float) -> None:
        self._unlink(self._path(digest))

    def exists(self, digest: str, deadline: float) -> PackageInfo | None:
        path = self._path(digest)
        with _translated(self._directory):
            try:
                return PackageInfo(digest, path.stat().st_size)
            except FileNotFoundError:
                return None

    def list_packages(self, deadline: float) -> Iterable[PackageInfo]:
        """Every package kept.  A list, so that nothing is left to fail when it is read."""
        with _translated(self._directory):
            self._remove_leftovers()
            return [info for path in _files_below(self._directory) if (info := _info(path)) is not None]

    # -- places --------------------------------------------------------------------------------------

    @property
    def _directory(self) -> pathlib.Path:
        if self.options.directory:
            return pathlib.Path(self.options.directory)
        return self.context.state_dir / "packages"

    @property
    def _temporaries(self) -> pathlib.Path:
        return self._directory / "tmp"

    def _path(self, digest: str) -> pathlib.Path:
        if not _DIGEST.fullmatch(digest):
            raise errors.DriverError(f"{digest[:80]!r} is not a SHA-256 in hex")
        return self._directory / digest[:2] / digest

    def _make_directories(self) -> None:
        if not self._temporaries.is_dir():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._temporaries.mkdir(mode=0o700, exist_ok=True)
            _sync_directory(self._directory.parent)

    # -- writing -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[tuple[BinaryIO, pathlib.Path]]:
        """A temporary file, locked as a sign of life and removed at the end unless it was renamed."""
        with _translated(self._directory):
            self._make_directories()
            descriptor, name = tempfile.mkstemp(prefix="put-", dir=self._temporaries)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(os.fdopen(descriptor, "wb", buffering=0))
            stack.callback(self._unlink, pathlib.Path(name))
            with _translated(self._directory):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield cast(BinaryIO, file), pathlib.Path(name)

    def _unlink(self, path: pathlib.Path) -> None:
        with _translated(self._directory):
            path.unlink(missing_ok=True)

    def _publish(self, file: BinaryIO, temporary: pathlib.Path, path: pathlib.Path) -> None:
        os.fsync(file.fileno())
        if not path.parent.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _sync_directory(self._directory)
        temporary.rename(path)
        _sync_directory(path.parent)

    def _remove_leftovers(self) -> None:
        for path in self._temporaries.iterdir():
            with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
                if time.time() - os.fstat(file.fileno()).st_mtime > TEMPORARY_GRACE:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a put that lives holds it
                    path.unlink(missing_ok=True)
                    LOG.info("removed %s, which a crash left", path)


def _copy(
    data: BinaryIO, file: BinaryIO, digest: str, size: int, until: float, directory: pathlib.Path
) -> None:
    """Copy and check; what ``data`` raises is its owner's and is not translated."""
    sha256 = hashlib.sha256()
    copied = 0
    while chunk := data.read(CHUNK):
        copied += len(chunk)
        if copied > size:
            raise errors.PackageCorrupt(f"package {digest}: more than the {size} bytes announced arrived")
        if time.monotonic() > until:
            raise errors.DriverTimeout(f"package {digest}: {copied} of {size} bytes were written in time")
        sha256.update(chunk)
        with _translated(directory):
            _write_all(file, chunk)
    if copied != size:
        raise errors.PackageCorrupt(f"package {digest}: {copied} of the {size} bytes announced arrived")
    if sha256.hexdigest() != digest:
        raise errors.PackageCorrupt(f"package {digest}: what arrived has the digest {sha256.hexdigest()}")


def _write_all(file: BinaryIO, chunk: bytes) -> None:
    """Write without a buffer, so that a full disk shows here and not when the file is closed."""
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]


def _verified(file: BinaryIO, digest: str, path: pathlib.Path) -> Iterator[bytes]:
    sha256 = hashlib.sha256()
    while True:
        with _translated(path):
            chunk = file.read(CHUNK)
        if not chunk:
            break
        sha256.update(chunk)
        yield chunk
    if sha256.hexdigest() != digest:
        raise errors.PackageCorrupt(f"{path} was damaged: it has the digest {sha256.hexdigest()}; restore it")


def _files_below(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """The files of the directories in this one.  Not Path.glob: it passes over what may not be read."""
    for child in directory.iterdir():
        if len(child.name) == 2 and child.is_dir():
            yield from child.iterdir()


def _info(path: pathlib.Path) -> PackageInfo | None:
    if not _DIGEST.fullmatch(path.name) or path.parent.name != path.name[:2]:
        return None
    try:
        return PackageInfo(path.name, path.stat().st_size)
    except FileNotFoundError:
        return None  # deleted meanwhile


def _sync_directory(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _translated(path: pathlib.Path) -> Iterator[None]:
    """Turn errors of the operating system into those of drivers, with what to do."""
    try:
        yield
    except OSError as error:
        kind = errors.DriverUnavailable if error.errno in _PASSING else errors.DriverError
        remedy = _REMEDIES.get(error.errno or 0)
        message = f"{error.filename or path}: {error.strerror or error}"
        raise kind(f"{message}; {remedy}" if remedy else message) from error
