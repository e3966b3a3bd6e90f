"""Every error that funcplat raises on purpose.

The tree::

    FuncplatError
    +-- RequestError                 the caller can mend it
    |   +-- InvalidRequest           400  a field, a body or a query that cannot be used
    |   |   +-- InvalidPackage       400  not a package (one subclass a reason, see below)
    |   |   +-- SourceUnavailable    400  no enabled driver for this code.source
    |   |   +-- ImageUnusable        400  code.image cannot be had or run
    |   |   +-- Duplicate            400  the project has such a resource already
    |   +-- Unauthenticated          401
    |   +-- Forbidden                403
    |   |   +-- SignatureInvalid     403  a webhook's call is not signed as it must be
    |   |   +-- TimestampRejected    403  ... or not in time
    |   |   +-- InUse                403
    |   |   +-- NotVersionable       403
    |   |   +-- TooManyVersions      403
    |   |   +-- VersionUnchanged     403
    |   +-- NotFound                 404
    |   +-- NotDownloadable          405
    |   +-- Conflict                 409
    |   |   +-- RuntimeNotAvailable  409
    |   |   +-- Replayed             409  a webhook's call was let in before
    |   +-- TooLarge                 413
    |   +-- IdempotencyKeyReused     422  and RateLimited 429
    +-- Overloaded                   503  a bounded queue is full
    +-- ConfigError                  start-up only: an option that cannot work
    |   +-- PluginError              a driver is missing, broken, doubled or of another version
    |   +-- SchemaError              the database is not at the version this code needs
    |   +-- StateInUse               another server owns the state directory
    +-- DriverError                  a driver failed; the operator can mend it
    |   +-- DriverUnavailable        ... for now: the call may be tried again
    |   |   +-- DriverTimeout        ... it did not answer within its deadline
    |   |   +-- EngineFull           ... it has no disk space left
    |   +-- NotSupported             ... the driver has no such capability
    |   +-- NoCapacity               ... no room for another worker
    |   +-- ImageUnknown             ... it cannot run a runtime of this image
    |   |   +-- ImageMissing         ... there is no such image where it is looked for
    |   |   +-- ImageDenied          ... the registry does not give the image to this platform
    |   +-- PackageMissing           ... the store does not hold this package
    |   +-- PackageCorrupt           ... what the store holds is not what was put
    +-- WorkerError                  a worker broke the protocol or went away

Each class has a stable ``code``, its docstring is its default message, and ``api/errors.py`` maps
the classes to HTTP.  A failing *function* is none of these: it is a result with a `Reason`.
"""

from __future__ import annotations

import inspect
from typing import ClassVar

from funcplat.reasons import Reason as Reason
from funcplat.reasons import ReasonCode as ReasonCode


class FuncplatError(Exception):
    """Something went wrong inside the platform."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.cleandoc(type(self).__doc__ or self.code))

    @property
    def message(self) -> str:
        return str(self.args[0])


# -- what a caller can mend -----------------------------------------------------------------------


class RequestError(FuncplatError):
    """The request cannot be served as it stands."""

    code = "request_error"


class InvalidRequest(RequestError):
    """A part of the request has a value that cannot be used."""

    code = "invalid_request"


class InvalidPackage(InvalidRequest):
    """Package is not a valid ZIP package."""

    code = "package_invalid"


class PackageMemberName(InvalidPackage):
    """The package has a member whose name would leave its directory or cannot be stored."""

    code = "package_member_name"


class PackageMemberType(InvalidPackage):
    """The package has a member that is neither a file nor a directory."""

    code = "package_member_type"


class PackageDuplicateMember(InvalidPackage):
    """The package has two members of the same name."""

    code = "package_duplicate_member"


class PackageEncrypted(InvalidPackage):
    """The package has an encrypted member."""

    code = "package_encrypted"


class PackageCompression(InvalidPackage):
    """The package has a member compressed by a method that runtimes cannot read."""

    code = "package_compression"


class PackageRatio(InvalidPackage):
    """A member of the package is compressed so highly that it looks like a bomb."""

    code = "package_ratio"


class PackageTooManyMembers(InvalidPackage):
    """The package has more members than the limit."""

    code = "package_too_many_members"


class PackageTooDeep(InvalidPackage):
    """The package nests directories deeper than the limit."""

    code = "package_too_deep"


class PackageExpandsTooLarge(InvalidPackage):
    """The package's unpacked size is over the limit."""

    code = "package_expands_too_large"


class PackageOverlap(InvalidPackage):
    """Members of the package share compressed data."""

    code = "package_overlap"


class PackageLies(InvalidPackage):
    """The package's directory does not describe what its members really hold."""

    code = "package_lies"


class ChecksumMismatch(InvalidRequest):
    """Package md5 mismatch."""

    code = "checksum_mismatch"


class ChecksumUnchanged(InvalidRequest):
    """The function code checksum is not changed."""

    code = "checksum_unchanged"


class LimitOutOfRange(InvalidRequest):
    """A resource limit is not within the allowable range."""

    code = "limit_out_of_range"


class SourceUnavailable(InvalidRequest):
    """No storage driver is enabled for this code source."""

    code = "source_unavailable"


class ImageUnusable(InvalidRequest):
    """The image cannot be had, or no driver can run it."""

    code = "image_unusable"


class Duplicate(InvalidRequest):
    """The project has such a resource already."""

    code = "duplicate"


class Unauthenticated(RequestError):
    """Authentication required: send a valid token in the X-Auth-Token header."""

    code = "unauthenticated"


class Forbidden(RequestError):
    """Operation not allowed"""

    code = "forbidden"


class InUse(Forbidden):
    """The resource is still in use."""

    code = "in_use"


class SignatureInvalid(Forbidden):
    """The call is not signed with a secret of this webhook: webhook-signature does not match."""

    code = "signature_invalid"


class TimestampRejected(Forbidden):
    """The webhook-timestamp of the call is too far from the present time."""

    code = "timestamp_rejected"


class NotVersionable(Forbidden):
    """Only functions made from a package have versions."""

    code = "not_versionable"


class TooManyVersions(Forbidden):
    """The function has as many versions as it may have; delete one first."""

    code = "too_many_versions"


class VersionUnchanged(Forbidden):
    """Function package not changed since the latest version."""

    code = "version_unchanged"


class NotFound(RequestError):
    """The resource does not exist or belongs to another project."""

    code = "not_found"


class NotDownloadable(RequestError):
    """Functions made from an image have no package to download."""

    code = "not_downloadable"


class Conflict(RequestError):
    """The resource is not in a state that allows this."""

    code = "conflict"


class RuntimeNotAvailable(Conflict):
    """The runtime is not available."""

    code = "runtime_not_available"


class IdempotencyKeyReused(RequestError):
    """Something else was asked with this Idempotency-Key before; use another key."""

    code = "idempotency_key_reused"


class Replayed(Conflict):
    """The very same signed call was let in before; another attempt needs a new webhook-timestamp."""

    code = "replayed"


class RateLimited(RequestError):
    """More calls than are allowed in the time; try again later."""

    code = "rate_limited"

    def __init__(self, message: str | None = None, retry_after: int = 1) -> None:
        """``retry_after``: seconds after which there is room for one more."""
        super().__init__(message)
        self.retry_after = retry_after


class TooLarge(RequestError):
    """The request body is over the limit."""

    code = "too_large"


class Overloaded(FuncplatError):
    """The platform has as much to do as it accepts; try again later."""

    code = "overloaded"


# -- what stops a server from starting ------------------------------------------------------------


class ConfigError(FuncplatError):
    """The configuration cannot work."""

    code = "config_error"


class PluginError(ConfigError):
    """A driver cannot be loaded."""

    code = "plugin_error"


class SchemaError(ConfigError):
    """The database schema is not the one this release needs; run: funcplat db upgrade"""

    code = "schema_error"


class StateInUse(ConfigError):
    """Another server uses this state directory."""

    code = "state_in_use"


# -- drivers and workers ----------------------------------------------------------------------------


class DriverError(FuncplatError):
    """A driver failed."""

    code = "driver_error"


class DriverUnavailable(DriverError):
    """What the driver talks to does not answer now; the call may be tried again."""

    code = "driver_unavailable"


class DriverTimeout(DriverUnavailable):
    """The driver did not answer within its deadline."""

    code = "driver_timeout"


class EngineFull(DriverUnavailable):
    """What the driver talks to has no disk space left."""

    code = "engine_full"


class NotSupported(DriverError):
    """The driver has no such capability."""

    code = "not_supported"


class NoCapacity(DriverError):
    """The driver has no room for another worker."""

    code = "no_capacity"


class ImageUnknown(DriverError):
    """The driver cannot run a runtime of this image."""

    code = "image_unknown"


class ImageMissing(ImageUnknown):
    """There is no such image."""

    code = "image_missing"


class ImageDenied(ImageUnknown):
    """The registry does not give the image to this platform."""

    code = "image_denied"


class PackageMissing(DriverError):
    """The package store does not hold this package."""

    code = "package_missing"


class PackageCorrupt(DriverError):
    """The package store holds other bytes than were put."""

    code = "package_corrupt"


class WorkerError(FuncplatError):
    """A worker broke the worker protocol or went away."""

    code = "worker_error"
