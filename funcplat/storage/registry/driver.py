"""The storage driver ``registry``."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from oslo_config import cfg

from funcplat import errors, registryauth
from funcplat.drivers.base import Context, Feature, Isolation
from funcplat.storage.base import Capability, PackageInfo, Reference, StorageDriver
from funcplat.storage.registry import names
from funcplat.storage.registry.deadline import Deadline
from funcplat.storage.registry.images import Images
from funcplat.storage.registry.manifests import Platform
from funcplat.storage.registry.names import ImageName
from funcplat.storage.registry.packages import Packages
from funcplat.storage.registry.repository import Repository
from funcplat.storage.registry.tokens import Authorizer
from funcplat.storage.registry.transport import Transport

CHECK_SECONDS = 20.0
"""What the look at the registry at start may take."""


class RegistryDriver(StorageDriver):
    """Resolves images to digests, and keeps packages as artifacts where a repository is configured."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability)
    opts: ClassVar[Sequence[cfg.Opt]] = (
        cfg.StrOpt(
            "repository",
            help="Repository that keeps the packages, with its registry's host, for them alone. "
            "Unset: only references to images are served. Example: registry.example.org/funcplat/packages",
        ),
        cfg.StrOpt(
            "username",
            help="User for the repository of the packages. Unset: what auth_file says. Example: funcplat",
        ),
        cfg.StrOpt("password", secret=True, help="Password or access token of that user."),
        cfg.StrOpt(
            "auth_file",
            help="File of the form of Docker's config.json with credentials for registries: those that the "
            "nodes pull with, so that an image is resolved as it will be pulled. It is read anew each time. "
            "Unset: only what callers give. Example: /etc/funcplat/registry-auth.json",
        ),
        cfg.StrOpt(
            "ca_file",
            help="File in PEM with authorities that are trusted beside those of the system, for "
            "registries with a certificate of your own. Example: /etc/funcplat/registry-ca.pem",
        ),
        cfg.ListOpt(
            "plain_http",
            default=["localhost", "127.0.0.0/8", "::1"],
            help="Registries that are spoken to without TLS: hosts, host:port, addresses or networks. "
            "Passwords and code go over the network unprotected, so the default is this machine alone. "
            "Example: 127.0.0.0/8, registry.lab.example.org:5000",
        ),
        cfg.ListOpt(
            "registries",
            default=["*"],
            help="Hosts that the images of functions may come from, as patterns in which * is anything. "
            "The default is any, as for Docker itself. Example: docker.io, *.example.org, 127.0.0.1:*",
        ),
        cfg.StrOpt(
            "platform",
            help="What images must run on, as os/architecture[/variant]. Unset: linux and this machine's "
            "architecture. Example: linux/arm64",
        ),
    )

    def __init__(self, options: cfg.ConfigOpts.GroupAttr, context: Context) -> None:
        super().__init__(options, context)
        self._transport = Transport(options.ca_file, options.plain_http)
        self._authorizer = Authorizer(self._transport)

    def check(self) -> None:
        """Raise a DriverError where an option cannot work, or packages cannot be pushed."""
        self._transport.check()
        self._platform()
        if self._auth_file is not None:
            self._auth_file.check()
        if self.options.repository:
            deadline = Deadline.after(CHECK_SECONDS)
            self._package_repository(deadline).probe_upload(deadline)

    def close(self) -> None:
        self._transport.close()

    def features(self) -> Iterable[Feature]:
        if not self.options.repository:
            yield Feature("packages", Isolation.NONE, "[storage_registry] repository is not set")
            return
        host, name = _repository_name(self.options.repository)
        yield Feature(
            "durability", Isolation.PARTIAL, f"packages in {host}/{name}, as durable as this registry"
        )
        if self._transport.base(host).scheme == "https":
            yield Feature("transport", Isolation.ENFORCED, f"TLS to {host}")
        else:
            yield Feature("transport", Isolation.NONE, f"{host} is in [storage_registry] plain_http")

    # -- packages ------------------------------------------------------------------------------------------

    def put(self, digest: str, size: int, data: BinaryIO, deadline: float) -> None:
        """Keep a package.  What is there already is read and, where it was damaged, kept anew."""
        until = Deadline.after(deadline)
        self._packages(until).put(digest, size, data, until)

    @contextlib.contextmanager
    def open(self, digest: str, deadline: float) -> Iterator[Iterator[bytes]]:
        """The package's bytes.  The deadline is that of opening, and of each wait for more bytes."""
        until = Deadline.after(deadline)
        with self._packages(until).open(digest, until) as chunks:
            yield chunks

    def delete(self, digest: str, deadline: float) -> None:
        """Remove the package; its bytes go with the registry's next garbage collection.

        Raises DeletionRefused where the registry does not delete.
        """
        until = Deadline.after(deadline)
        self._packages(until).delete(digest, until)

    def exists(self, digest: str, deadline: float) -> PackageInfo | None:
        until = Deadline.after(deadline)
        return self._packages(until).exists(digest, until)

    def list_packages(self, deadline: float) -> Iterable[PackageInfo]:
        """Every package.  Costs one request for each of them."""
        until = Deadline.after(deadline)
        return self._packages(until).list(until)

    # -- references ----------------------------------------------------------------------------------------

    def resolve(
        self, reference: Mapping[str, Any], credentials: Mapping[str, str], deadline: float
    ) -> Reference:
        """Pin ``{"image": name}`` to the digest of the manifest for the platform.

        ``credentials`` may have ``username`` and ``password``, ``identitytoken`` or ``registrytoken``; where
        there are none, those of the option auth_file are used.  ``{"platform": "linux/arm64"}`` asks for
        another platform than the configured one.  Raises kinds of InvalidRequest for what the user can mend.
        """
        return self._images().resolve(reference, credentials, Deadline.after(deadline))

    @contextlib.contextmanager
    def open_reference(
        self, reference: Reference, credentials: Mapping[str, str], deadline: float
    ) -> Iterator[Iterator[bytes]]:
        """The bytes of an artifact of one layer.  Raises NotSupported for an image, which is pulled."""
        with self._images().open(reference, credentials, Deadline.after(deadline)) as chunks:
            yield chunks

    # -- parts ---------------------------------------------------------------------------------------------

    @property
    def _auth_file(self) -> registryauth.AuthFile | None:
        return _auth_file(self.options.auth_file)

    def _packages(self, deadline: Deadline) -> Packages:
        return Packages(self._package_repository(deadline))

    def _package_repository(self, deadline: Deadline) -> Repository:
        if not self.options.repository:
            raise errors.NotSupported(
                "[storage_registry] repository is not set: it is where packages are kept"
            )
        host, name = _repository_name(self.options.repository)
        given = {"username": self.options.username, "password": self.options.password}
        return self._repository(host, name, given, deadline)

    def _images(self) -> Images:
        return Images(self._image_repository, self._platform(), self.options.registries)

    def _image_repository(
        self, name: ImageName, credentials: Mapping[str, str], deadline: Deadline
    ) -> Repository:
        return self._repository(name.host, name.repository, credentials, deadline)

    def _repository(self, host: str, name: str, given: Mapping[str, Any], deadline: Deadline) -> Repository:
        credentials = registryauth.Credentials.of(given)
        if credentials == registryauth.ANONYMOUS and self._auth_file is not None:
            left = deadline.left(f"asking who to be to {host}")
            credentials = self._auth_file.find(host, name, left)
        return Repository(self._transport, self._authorizer, host, name, credentials)

    def _platform(self) -> Platform:
        if not self.options.platform:
            return Platform.here()
        try:
            return Platform.parse(self.options.platform)
        except ValueError as error:
            raise errors.DriverError(f"[storage_registry] platform: {error}") from error


def _auth_file(path: str | None) -> registryauth.AuthFile | None:
    return registryauth.AuthFile(pathlib.Path(path), "[storage_registry] auth_file") if path else None


def _repository_name(text: str) -> tuple[str, str]:
    try:
        return names.parse_repository(text)
    except errors.InvalidRequest as error:
        raise errors.DriverError(f"[storage_registry] repository: {error.message}") from error
