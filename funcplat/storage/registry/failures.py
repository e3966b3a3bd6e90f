"""What can go wrong between here and a registry, hop by hop, each with a code of its own.

The tree, below that of `funcplat.errors`::

    InvalidRequest
    +-- InvalidReference        not the name of an image
    +-- RegistryForbidden       a registry that the operator does not allow
    +-- ReferenceHostUnknown    the name of the registry has no address
    +-- ReferenceDenied         the registry does not let these credentials read it
    +-- ReferenceMissing        there is no such image
    +-- PlatformMissing         ... not for this platform
    +-- ReferenceUnsupported    ... of a kind that cannot be used
    DriverError
    +-- Untrusted              TLS: another certificate than one to be trusted, or no TLS at all
    +-- Denied                 the credentials are not accepted, or do not reach that far
    +-- Missing                the registry does not have what must be there
    +-- NotSupported
    |   +-- DeletionRefused    the registry does not delete
    +-- DriverUnavailable
        +-- HostUnknown        name resolution
        +-- Refused            nothing listens there
        +-- Unreachable        the network, or a connection that broke
        +-- RateLimited        too many requests
"""

from __future__ import annotations

from funcplat import errors

# -- a user can mend --------------------------------------------------------------------------------------


class InvalidReference(errors.InvalidRequest):
    """The image's name cannot be used."""

    code = "reference_invalid"


class RegistryForbidden(errors.InvalidRequest):
    """Images of this registry are not allowed here."""

    code = "reference_registry_forbidden"


class ReferenceHostUnknown(errors.InvalidRequest):
    """The name of the image's registry has no address."""

    code = "reference_host_unknown"


class ReferenceDenied(errors.InvalidRequest):
    """The image's registry does not let these credentials read it."""

    code = "reference_denied"


class ReferenceMissing(errors.InvalidRequest):
    """The registry has no such image."""

    code = "reference_missing"


class PlatformMissing(errors.InvalidRequest):
    """The image does not exist for the platform that runs functions."""

    code = "reference_platform_missing"


class ReferenceUnsupported(errors.InvalidRequest):
    """The image is of a kind that cannot be used."""

    code = "reference_unsupported"


# -- an operator can mend ----------------------------------------------------------------------------------


class HostUnknown(errors.DriverUnavailable):
    """The registry's name has no address."""

    code = "registry_host_unknown"


class Refused(errors.DriverUnavailable):
    """Nothing listens at the registry's address."""

    code = "registry_refused"


class Unreachable(errors.DriverUnavailable):
    """The registry cannot be reached, or the connection to it broke."""

    code = "registry_unreachable"


class RateLimited(errors.DriverUnavailable):
    """The registry takes no more requests for now."""

    code = "registry_rate_limited"


class Untrusted(errors.DriverError):
    """The registry could not prove that it is the one it should be."""

    code = "registry_untrusted"


class Denied(errors.DriverError):
    """The registry does not accept the credentials, or they do not reach that far."""

    code = "registry_denied"


class Missing(errors.DriverError):
    """The registry does not have it."""

    code = "registry_missing"


class DeletionRefused(errors.NotSupported):
    """The registry does not delete."""

    code = "registry_deletion_refused"
