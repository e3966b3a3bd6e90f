"""The storage driver ``echo``: packages in a SQLite file.

A package is rows of at most 1 MiB under the number of their upload.  They are written in short transactions
while the upload arrives; the last transaction gives them their digest.  What has none after an hour belongs
to an upload that a crash cut off, and goes at the next start.
"""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, ClassVar

from oslo_config import cfg

from funcplat import errors
from funcplat.drivers.base import Feature, Isolation
from funcplat.storage.base import Capability, PackageInfo, StorageDriver

CHUNK = 1024 * 1024
ABANDONED = 3600.0  # seconds

SCHEMA = """
CREATE TABLE IF NOT EXISTS uploads (id INTEGER PRIMARY KEY AUTOINCREMENT, started_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS packages (
    digest TEXT PRIMARY KEY, size INTEGER NOT NULL, upload INTEGER NOT NULL REFERENCES uploads
);
CREATE TABLE IF NOT EXISTS chunks (
    upload INTEGER NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (upload, number)
);
"""
ORPHANS = "SELECT id FROM uploads WHERE id NOT IN (SELECT upload FROM packages)"


class EchoStorage(StorageDriver):
    """Keeps packages in one file."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset([Capability.PACKAGES])
    opts: ClassVar[Sequence[cfg.Opt]] = (
        cfg.StrOpt(
            "file", help="The SQLite file. Unset: echo.sqlite in state_dir. Example: /srv/packages.sqlite"
        ),
    )

    def check(self) -> None:
        with self._writing(60.0) as database:
            for statement in SCHEMA.split(";"):
                database.execute(statement)
            self._forget(database, f"{ORPHANS} AND started_at < ?", time.time() - ABANDONED)

    def features(self) -> Iterable[Feature]:
        yield Feature("durability", Isolation.ENFORCED, f"{self._path}, synced at each commit")

    def put(self, digest: str, size: int, data: BinaryIO, deadline: float) -> None:
        _check_digest(digest)
        until = time.monotonic() + deadline
        with self._writing(deadline) as database:
            upload = database.execute("INSERT INTO uploads (started_at) VALUES (?)", (time.time(),)).lastrowid
        try:
            self._receive(upload, digest, size, data, until)
            with self._writing(until - time.monotonic()) as database:
                self._publish(database, upload, digest, size)
        except BaseException:
            with self._writing(deadline) as database:
                self._forget(database, "SELECT ?", upload)
            raise

    @contextlib.contextmanager
    def open(self, digest: str, deadline: float) -> Iterator[Iterator[bytes]]:
        _check_digest(digest)
        # One transaction sees one state of the file: a delete meanwhile changes nothing for this reader.
        with self._connected(deadline) as database:
            query = "SELECT upload FROM packages WHERE digest = ?"
            row = database.execute(query, (digest,)).fetchone()
            if row is None:
                raise errors.PackageMissing(f"{self._path} holds no package {digest}")
            yield self._read(database, row[0], digest)

    def delete(self, digest: str, deadline: float) -> None:
        _check_digest(digest)
        with self._writing(deadline) as database:
            row = database.execute("SELECT upload FROM packages WHERE digest = ?", (digest,)).fetchone()
            if row is not None:
                database.execute("DELETE FROM packages WHERE digest = ?", (digest,))
                self._forget(database, "SELECT ?", row[0])

    def exists(self, digest: str, deadline: float) -> PackageInfo | None:
        _check_digest(digest)
        with self._connected(deadline) as database:
            row = database.execute("SELECT size FROM packages WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else PackageInfo(digest, row[0])

    def list_packages(self, deadline: float) -> Iterable[PackageInfo]:
        with self._connected(deadline) as database:
            return [PackageInfo(*row) for row in database.execute("SELECT digest, size FROM packages")]

    # -- the file ------------------------------------------------------------------------------------

    @property
    def _path(self) -> pathlib.Path:
        return pathlib.Path(self.options.file or self.context.state_dir / "echo.sqlite")

    @contextlib.contextmanager
    def _connected(self, deadline: float, begin: str = "BEGIN") -> Iterator[sqlite3.Connection]:
        """A transaction on a connection of its own; SQLite's errors are translated."""
        with _translated():
            database = sqlite3.connect(
                self._path, timeout=max(deadline, 0.0), isolation_level=None, check_same_thread=False
            )
        with contextlib.closing(database):
            with _translated():
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                database.execute(begin)
            with _translated():
                yield database
                if database.in_transaction:
                    database.execute("COMMIT")

    def _writing(self, deadline: float) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """A transaction that writes takes its lock at once: later SQLite would refuse instead of wait."""
        return self._connected(deadline, "BEGIN IMMEDIATE")

    def _receive(self, upload: int | None, digest: str, size: int, data: BinaryIO, until: float) -> None:
        sha256, received, number = hashlib.sha256(), 0, 0
        while chunk := data.read(CHUNK):
            sha256.update(chunk)
            received += len(chunk)
            number += 1
            if received > size or time.monotonic() > until:
                break
            with self._writing(until - time.monotonic()) as database:
                database.execute("INSERT INTO chunks VALUES (?, ?, ?)", (upload, number, chunk))
        if time.monotonic() > until:
            raise errors.DriverTimeout(f"package {digest}: {received} of {size} bytes arrived in time")
        if received != size or sha256.hexdigest() != digest:
            raise errors.PackageCorrupt(f"package {digest}: other bytes arrived than were announced")

    def _publish(self, database: sqlite3.Connection, upload: int | None, digest: str, size: int) -> None:
        row = database.execute("SELECT upload FROM packages WHERE digest = ?", (digest,)).fetchone()
        database.execute("INSERT OR REPLACE INTO packages VALUES (?, ?, ?)", (digest, size, upload))
        if row is not None:
            self._forget(database, "SELECT ?", row[0])

    def _read(self, database: sqlite3.Connection, upload: int, digest: str) -> Iterator[bytes]:
        sha256 = hashlib.sha256()
        with _translated():
            for (chunk,) in database.execute(
                "SELECT data FROM chunks WHERE upload = ? ORDER BY number", (upload,)
            ):
                sha256.update(chunk)
                yield chunk
        if sha256.hexdigest() != digest:
            raise errors.PackageCorrupt(f"{self._path}: package {digest} was damaged; put it again")

    def _forget(self, database: sqlite3.Connection, which: str, value: object) -> None:
        """Remove uploads and their bytes; ``which`` is a query for their numbers."""
        database.execute(f"DELETE FROM chunks WHERE upload IN ({which})", (value,))
        database.execute(f"DELETE FROM uploads WHERE id IN ({which})", (value,))


def _check_digest(digest: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise errors.DriverError(f"{digest[:80]!r} is not a SHA-256 in hex")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """SQLite's errors become the driver's; a busy file may be tried again."""
    try:
        yield
    except sqlite3.OperationalError as error:
        busy = error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        raise (errors.DriverUnavailable if busy else errors.DriverError)(f"SQLite: {error}") from error
    except sqlite3.Error as error:
        raise errors.DriverError(f"SQLite: {error}") from error
