"""The packages that the platform keeps: rows and bytes, kept in step through crashes.

Bytes are stored outside of transactions, and rows refer to them by digest, so each may exist without the
other for a while.  What holds at every moment: a package that a revision refers to is in its store.

* `keep` first *touches* the package's row (which keeps `sweep` away for the grace), then stores the bytes;
  the caller's transaction then refers to it (`refer`).
* `sweep` takes a package whose last touch is older than the grace and that no revision refers to from stored
  to deleting, deletes the bytes, then the row.  A deletion that died in between is taken up again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping

import sqlalchemy as sa
import tenacity

from funcplat import errors, plugins
from funcplat.core import packages
from funcplat.db import models
from funcplat.db.session import Database

LOG = logging.getLogger(__name__)
T = models.packages


@dataclasses.dataclass(frozen=True, slots=True)
class StoreOptions:
    """How packages are kept."""

    store: str  # name of the storage driver of uploads
    limits: packages.PackageLimits
    deadline: float  # seconds of a driver's call
    grace: float  # seconds that an unreferenced package is kept
    spool: pathlib.Path  # where uploads are received


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """A package whose bytes are in a store."""

    store: str  # name of the storage driver
    digest: str  # SHA-256 in hex
    size: int  # bytes


class PackageStore:
    """Keeps packages in the configured storage driver.  Thread-safe."""

    def __init__(
        self,
        db: Database,
        storages: Mapping[str, plugins.GuardedStorage],
        cache: packages.CodeCache,
        options: StoreOptions,
    ) -> None:
        self._db = db
        self._storages = storages
        self._cache = cache
        self._options = options
        self._retried = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(errors.DriverUnavailable),
            stop=tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(options.deadline),
            wait=tenacity.wait_exponential_jitter(initial=0.1, max=2.0),
            reraise=True,
        )

    def spool(self) -> packages.Spool:
        """Where an upload is received."""
        return packages.Spool(self._options.spool, self._options.limits.max_size)

    def check(self, package: packages.Spooled) -> None:
        """Raises InvalidPackage and its kinds."""
        packages.check(package.file, package.size, self._options.limits)

    def check_source(self, source: str) -> None:
        """Raise SourceUnavailable where no enabled driver serves this code source."""
        if source == "package":
            return
        if source == "swift":
            raise errors.SourceUnavailable(
                'Code source "swift" needs the storage driver "swift"; '
                f"enabled here: {', '.join(self._storages)}."
            )
        raise errors.InvalidRequest(
            f"Invalid code source {source[:64]!r}: no storage driver of that name is enabled; "
            'valid are "package" and "image".'
        )

    def keep(self, package: packages.Spooled) -> Stored:
        """Store the bytes of a checked package; refer to what is returned within the grace."""
        stored = Stored(self._options.store, package.sha256, package.size)
        self._touch(stored, package.md5)
        storage = self._storages[stored.store]
        for attempt in self._retried.copy():
            with attempt:
                package.file.seek(0)
                storage.put(stored.digest, stored.size, package.file, self._options.deadline)
        return stored

    def refer(self, connection: sa.Connection, package: Stored) -> None:
        """Within the transaction that writes the referring row: the package is stored, or Conflict."""
        where = sa.and_(T.c.digest == package.digest, T.c.store == package.store, T.c.state != "deleting")
        values = {"state": "stored", "touched_at": models.now()}
        if connection.execute(sa.update(T).where(where).values(values)).rowcount != 1:
            raise errors.Conflict("the package was deleted while it was being uploaded; upload it again")

    def size(self, connection: sa.Connection, store: str, digest: str) -> int:
        query = sa.select(T.c.size).where(T.c.digest == digest, T.c.store == store)
        return int(connection.execute(query).scalar_one())

    @contextlib.contextmanager
    def open(self, store: str, digest: str) -> Iterator[Iterator[bytes]]:
        """The package's bytes.  Raises NotFound where the store lost it."""
        if store not in self._storages:
            raise errors.DriverError(f"the package's storage driver {store!r} is not enabled")
        try:
            with self._storages[store].open(digest, self._options.deadline) as chunks:
                yield chunks
        except errors.PackageMissing as error:
            raise errors.NotFound(f"the package {digest} is not in the store {store!r}") from error

    def unpacked(self, store: str, digest: str) -> pathlib.Path:
        """A directory of this machine with the package's files."""
        return self._cache.path(digest, self._opener(store, digest))

    def sweep(self) -> int:
        """Delete packages that nothing refers to; returns how many.  Bounds the unpacked ones as well."""
        with self._db.write(durable=False) as connection:
            connection.execute(sa.delete(models.revisions).where(_OUTLIVED))
        # The bytes in a store that is not enabled now are left for when it is again.
        where = sa.and_(self._unreferenced(), T.c.store.in_(self._storages))
        with self._db.read() as connection:
            rows = list(connection.execute(sa.select(T.c.digest, T.c.store).where(where)))
            in_use = set(connection.execute(_DIGESTS_IN_USE).scalars())
        self._cache.sweep(in_use)
        return sum(self._try_delete(row.digest, row.store) for row in rows)

    def _try_delete(self, digest: str, store: str) -> bool:
        try:
            return self._delete(digest, store)
        except errors.DriverError as error:
            LOG.warning("package %s: not deleted, to be tried again: %s", digest, error)
            return False

    def _opener(
        self, store: str, digest: str
    ) -> Callable[[], contextlib.AbstractContextManager[Iterator[bytes]]]:
        return lambda: self.open(store, digest)

    def _touch(self, package: Stored, md5: str) -> None:
        values = {
            "digest": package.digest,
            "store": package.store,
            "md5": md5,
            "size": package.size,
            "state": "storing",
            "touched_at": models.now(),
        }
        where = sa.and_(T.c.digest == package.digest, T.c.store == package.store)
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Deleting),
            stop=tenacity.stop_after_delay(self._options.deadline),
            wait=tenacity.wait_random_exponential(max=1.0),
            reraise=True,
        ):
            with attempt, self._db.write() as connection:
                touched = sa.update(T).where(where, T.c.state != "deleting").values(touched_at=models.now())
                if connection.execute(touched).rowcount == 0:
                    if connection.execute(sa.select(T.c.state).where(where)).first() is not None:
                        raise _Deleting
                    _insert_or_retry(connection, values)

    def _unreferenced(self) -> sa.ColumnElement[bool]:
        revision = models.revisions
        referred = sa.exists().where(revision.c.digest == T.c.digest, revision.c.store == T.c.store)
        old = T.c.touched_at < models.now() - int(self._options.grace * 1_000_000)
        return sa.and_(old, ~referred) | (T.c.state == "deleting")

    def _delete(self, digest: str, store: str) -> bool:
        where = sa.and_(T.c.digest == digest, T.c.store == store)
        with self._db.write() as connection:
            claimed = sa.update(T).where(where, self._unreferenced()).values(state="deleting")
            if connection.execute(claimed).rowcount != 1:
                return False
        self._storages[store].delete(digest, self._options.deadline)
        self._cache.remove(digest)
        with self._db.write() as connection:
            connection.execute(sa.delete(T).where(where, T.c.state == "deleting"))
        LOG.info("package %s: deleted from store %s", digest, store)
        return True


# Revisions that were superseded and of which no worker is left.
_OUTLIVED = sa.and_(
    models.revisions.c.current.is_(None),
    ~sa.exists().where(
        models.workers.c.revision_id == models.revisions.c.id, models.workers.c.state != "deleted"
    ),
)
_DIGESTS_IN_USE = (
    sa.select(models.revisions.c.digest)
    .join(models.workers, models.workers.c.revision_id == models.revisions.c.id)
    .where(models.workers.c.state != "deleted")
)


class _Deleting(errors.Conflict):
    """The package is being deleted; try again."""


def _insert_or_retry(connection: sa.Connection, values: Mapping[str, object]) -> None:
    try:
        connection.execute(sa.insert(T).values(values))
    except sa.exc.IntegrityError as error:
        raise _Deleting from error
