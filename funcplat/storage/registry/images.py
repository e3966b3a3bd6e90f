"""Images and artifacts that users keep in registries of theirs: pinned to a digest, and read by it."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from funcplat import errors
from funcplat.storage.base import Reference
from funcplat.storage.registry import failures, manifests, names, streams
from funcplat.storage.registry.deadline import Deadline
from funcplat.storage.registry.manifests import Manifest, Platform
from funcplat.storage.registry.names import ImageName
from funcplat.storage.registry.repository import Document, Repository

DEEPEST_INDEX = 3
"""Indexes within each other that are followed."""

Opener = Callable[[ImageName, Mapping[str, str], Deadline], Repository]
"""The repository of an image, as a user."""


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """An image or artifact for one platform."""

    document: Document
    manifest: Manifest


class Images:
    """References to what users keep.  Thread-safe."""

    def __init__(self, opener: Opener, platform: Platform, allowed: Sequence[str]) -> None:
        """``allowed``: patterns of the hosts that references may name."""
        self._opener = opener
        self._platform = platform
        self._allowed = allowed

    def resolve(
        self, value: Mapping[str, Any], credentials: Mapping[str, str], deadline: Deadline
    ) -> Reference:
        name, platform = self._read(value)
        with _as_the_users(name):
            repository = self._opener(name, credentials, deadline)
            found = _find(repository, name, name.reference, platform, deadline)
            if found.manifest.is_image:
                _check_platform(repository, name, found.manifest, platform, deadline)
        return Reference(value, found.document.digest, found.manifest.size)

    @contextlib.contextmanager
    def open(
        self, reference: Reference, credentials: Mapping[str, str], deadline: Deadline
    ) -> Iterator[Iterator[bytes]]:
        """The one layer of an artifact.  Images have none of that kind: they are pulled by what runs them."""
        name, platform = self._read(reference.value)
        with contextlib.ExitStack() as stack:
            with _as_the_users(name):
                repository = self._opener(name, credentials, deadline)
                layer = self._pinned_layer(repository, name, reference, platform, deadline)
                chunks = stack.enter_context(repository.open_blob(layer.digest, deadline))
            yield streams.verified(chunks, layer.digest.removeprefix("sha256:"), str(name))

    def _pinned_layer(
        self,
        repository: Repository,
        name: ImageName,
        reference: Reference,
        platform: Platform,
        deadline: Deadline,
    ) -> manifests.Descriptor:
        try:
            found = _find(repository, name, reference.pin, platform, deadline)
        except failures.Missing as error:
            now = _find(repository, name, name.reference, platform, deadline).document.digest
            raise errors.PackageCorrupt(
                f"{name} was pinned to {reference.pin}, which is gone; it is {now} now"
            ) from error
        if found.manifest.is_image or len(found.manifest.layers) != 1:
            raise errors.NotSupported(
                f"{name} is no artifact of one file: an image is pulled by the driver that runs it"
            )
        return found.manifest.layers[0]

    def _read(self, value: Mapping[str, Any]) -> tuple[ImageName, Platform]:
        """``image``, and ``platform`` where it is not to be the usual one.  Raises InvalidRequest."""
        image = value.get("image")
        if not isinstance(image, str) or not image:
            raise failures.InvalidReference(
                'the code needs an "image", such as registry.example.org/team/name:tag'
            )
        name = names.parse(image)
        if not any(fnmatch.fnmatch(name.host.lower(), pattern.lower()) for pattern in self._allowed):
            raise failures.RegistryForbidden(
                f"images of {name.host} are not allowed here; allowed: {', '.join(self._allowed) or 'none'}"
            )
        return name, _platform(value.get("platform"), self._platform)


def _platform(value: Any, usual: Platform) -> Platform:
    if value is None:
        return usual
    try:
        return Platform.parse(value)
    except (ValueError, AttributeError) as error:
        raise failures.InvalidReference(
            f'"platform": {str(value)[:80]!r} is none, such as linux/amd64'
        ) from error


def _find(
    repository: Repository, name: ImageName, reference: str, platform: Platform, deadline: Deadline
) -> Found:
    """The manifest behind a tag or digest, through indexes to the one for the platform."""
    for _ in range(DEEPEST_INDEX):
        document = repository.manifest(reference, deadline)
        parsed = manifests.parse(document.media_type, document.body)
        if isinstance(parsed, Manifest):
            return Found(document, parsed)
        reference = parsed.choose(platform, str(name)).digest
    raise failures.ReferenceUnsupported(f"{name}: more than {DEEPEST_INDEX - 1} indexes within each other")


def _check_platform(
    repository: Repository, name: ImageName, manifest: Manifest, platform: Platform, deadline: Deadline
) -> None:
    """An image without an index says in its config what it runs on."""
    there = manifests.platform_of(repository.read_blob(manifest.config, deadline))
    if there is not None and platform.rank(there) is None:
        raise manifests.missing_platform(str(name), platform, [there])


@contextlib.contextmanager
def _as_the_users(name: ImageName) -> Iterator[None]:
    """Failures that the reference or its credentials are the reason of are the user's."""
    try:
        yield
    except failures.Missing as error:
        raise failures.ReferenceMissing(
            f"there is no image {name}: {error.message}; check its name, or push it first"
        ) from error
    except failures.Denied as error:
        raise failures.ReferenceDenied(f"the image {name} cannot be read: {error.message}") from error
    except failures.HostUnknown as error:
        raise failures.ReferenceHostUnknown(f"the image {name} cannot be read: {error.message}") from error
