"""The public interface of storage drivers: where code is kept.

A driver has one or both of two sides, each a capability.  *Packages* are what the platform itself
keeps, addressed by the SHA-256 of their bytes.  *References* point at what a user keeps elsewhere.

A third-party driver subclasses `StorageDriver`, names the class in the entry point group
``funcplat.storage`` and runs `funcplat.testing.StorageDriverTests` against it.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from oslo_config import cfg

from funcplat import errors
from funcplat.drivers.base import Context, Feature

API_VERSION = 1
"""The version of this interface; the loader refuses a driver of another one and names both."""


class Capability(enum.StrEnum):
    """The two sides of a store."""

    PACKAGES = "packages"  # put, open, delete, exists, list
    REFERENCES = "references"  # resolve, open_reference


@dataclasses.dataclass(frozen=True, slots=True)
class PackageInfo:
    """A package that the store holds."""

    digest: str  # SHA-256 in hex
    size: int  # bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    """A user's reference, pinned to what it pointed at when it was resolved."""

    value: Mapping[str, Any]  # as the user gave it, JSON types
    pin: str  # etag or digest: exactly what later opens must find
    size: int | None  # bytes where known


class StorageDriver(abc.ABC):
    """Keeps and fetches code.

    Methods are called from several threads at once.  Only `funcplat.errors.DriverError` and its
    children may leave a method.  ``deadline`` is in seconds from now.
    """

    api_version: ClassVar[int] = API_VERSION
    capabilities: ClassVar[frozenset[Capability]] = frozenset()
    opts: ClassVar[Sequence[cfg.Opt]] = ()
    """Options, registered by the loader in the group ``[storage_<name>]``."""

    def __init__(self, options: cfg.ConfigOpts.GroupAttr, context: Context) -> None:
        """Store what is given; touch nothing outside."""
        self.options = options
        self.context = context

    def check(self) -> None:
        """Raise a DriverError that says why the driver cannot work now."""

    def close(self) -> None:
        """Release what this process holds.  Idempotent."""

    def features(self) -> Iterable[Feature]:
        """What holds on this machine, for people."""
        return ()

    # -- packages ------------------------------------------------------------------------------

    def put(self, digest: str, size: int, data: BinaryIO, deadline: float) -> None:
        """Keep ``size`` bytes of ``data`` under ``digest``; when it returns they are durable.

        Streamed, atomic and idempotent: a package is there whole or not at all, also after a
        crash, and putting the same one again (at once, or later) is a success.  What arrives is
        checked: other bytes than promised raise PackageCorrupt and leave nothing.
        """
        raise self._not_supported(Capability.PACKAGES)

    def open(self, digest: str, deadline: float) -> contextlib.AbstractContextManager[Iterator[bytes]]:
        """The package's bytes, in chunks of at most 1 MiB.

        Raises PackageMissing on entry, PackageCorrupt at the end.
        """
        raise self._not_supported(Capability.PACKAGES)

    def delete(self, digest: str, deadline: float) -> None:
        """Remove the package.  Missing: returns."""
        raise self._not_supported(Capability.PACKAGES)

    def exists(self, digest: str, deadline: float) -> PackageInfo | None:
        """What is kept under this digest, or None."""
        raise self._not_supported(Capability.PACKAGES)

    def list_packages(self, deadline: float) -> Iterable[PackageInfo]:
        """Every package kept, in no order; those put or deleted meanwhile may be missing."""
        raise self._not_supported(Capability.PACKAGES)

    # -- references ------------------------------------------------------------------------------

    def resolve(
        self, reference: Mapping[str, Any], credentials: Mapping[str, str], deadline: float
    ) -> Reference:
        """Check a user's reference as that user and pin it.  Raises errors.InvalidRequest for a bad one."""
        raise self._not_supported(Capability.REFERENCES)

    def open_reference(
        self, reference: Reference, credentials: Mapping[str, str], deadline: float
    ) -> contextlib.AbstractContextManager[Iterator[bytes]]:
        """The bytes that were pinned, or PackageCorrupt that names both pins."""
        raise self._not_supported(Capability.REFERENCES)

    def _not_supported(self, capability: Capability) -> errors.NotSupported:
        return errors.NotSupported(f"{type(self).__name__} has no capability {str(capability)!r}")
