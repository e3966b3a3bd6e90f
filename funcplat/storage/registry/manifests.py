"""What registries say about images: manifests, indexes of platforms, descriptors.  Values only."""

from __future__ import annotations

import dataclasses
import json
import platform as machine
from collections.abc import Mapping, Sequence
from typing import Any

from funcplat import errors
from funcplat.storage.registry import failures, names

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

INDEXES = frozenset([OCI_INDEX, DOCKER_INDEX])
MANIFESTS = frozenset([OCI_MANIFEST, DOCKER_MANIFEST])
IMAGE_CONFIGS = frozenset([OCI_CONFIG, DOCKER_CONFIG])
# All four, always: a registry converts what it thinks that a client does not know, which changes the digest.
ACCEPT = ", ".join([OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST])

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "i686": "386",
    "i386": "386",
    "loongarch64": "loong64",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    @classmethod
    def parse(cls, text: str) -> Platform:
        """``os/architecture[/variant]``.  Raises ValueError."""
        parts = text.lower().split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise ValueError(f"{text[:80]!r} is not a platform such as linux/amd64 or linux/arm/v7")
        return cls(*parts)

    @classmethod
    def here(cls) -> Platform:
        """That of this machine."""
        name = machine.machine().lower()
        return cls.parse(f"linux/{_ARCHITECTURES.get(name, name)}")

    def rank(self, other: Platform) -> int | None:
        """How well what is made for the other runs on this one: 0 is best, None is not at all."""
        if (self.os, self.architecture) != (other.os, other.architecture):
            return None
        own, others = self._level, other._level
        if other.variant in (self.variant, "") or own == others:
            return 0 if other.variant == self.variant else 1
        # A processor runs what is made for the earlier versions of its architecture.
        return 1 + own - others if 0 < others < own else None

    @property
    def _level(self) -> int:
        """The number of the variant, or that of the architecture's first one."""
        first = {"arm64": 8, "amd64": 1}.get(self.architecture, 0)
        return int(self.variant[1:]) if self.variant[1:].isdecimal() else first


@dataclasses.dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest refers to."""

    media_type: str
    digest: str  # sha256:…
    size: int  # bytes
    platform: Platform | None = None

    @classmethod
    def of(cls, value: Any) -> Descriptor:
        """From JSON.  Raises ValueError."""
        if not isinstance(value, dict):
            raise ValueError("a descriptor is not an object")  # noqa: TRY004  one kind for a bad manifest
        digest, size = value.get("digest"), value.get("size")
        if not isinstance(digest, str) or not names.is_digest(digest):
            raise ValueError(f"{str(digest)[:80]!r} is not a digest sha256:…")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ValueError(f"{str(size)[:80]!r} is not a size")
        return cls(str(value.get("mediaType", "")), digest, size, _platform(value.get("platform")))

    def to_json(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """An image's or artifact's: its config and layers."""

    artifact_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def is_image(self) -> bool:
        """Whether it is a container image, and no artifact of another kind."""
        return self.config.media_type in IMAGE_CONFIGS

    @property
    def size(self) -> int:
        """Bytes of all that it refers to, as they are kept."""
        return sum(layer.size for layer in self.layers) + (self.config.size if self.is_image else 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Index:
    """Manifests of one image for several platforms."""

    entries: tuple[Descriptor, ...]

    def choose(self, wanted: Platform, image: str) -> Descriptor:
        """The entry that runs best on a platform.  Raises PlatformMissing that says which there are."""
        ranked = [
            (rank, number, entry)
            for number, entry in enumerate(self.entries)
            if entry.platform is not None and (rank := wanted.rank(entry.platform)) is not None
        ]
        if not ranked:
            raise missing_platform(image, wanted, [e.platform for e in self.entries if e.platform])
        return min(ranked)[2]


def missing_platform(image: str, wanted: Platform, there: Sequence[Platform]) -> failures.PlatformMissing:
    # Builders put what they say about an image into its index, as the platform unknown/unknown.
    listed = ", ".join(sorted({str(each) for each in there if each.os != "unknown"})) or "none"
    return failures.PlatformMissing(
        f"the image {image} does not exist for {wanted}, but for: {listed}. Build it for {wanted} as well"
    )


def parse(media_type: str, body: bytes) -> Manifest | Index:
    """What a registry answered.  Raises ReferenceUnsupported for another kind, DriverError for nonsense."""
    try:
        value = json.loads(body)
        kind = _kind(media_type, value)
        if kind in INDEXES:
            return Index(tuple(map(Descriptor.of, value["manifests"])))
        if kind in MANIFESTS:
            return _manifest(value)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise errors.DriverError(f"the registry's manifest cannot be read: {error}") from error
    raise failures.ReferenceUnsupported(
        f"a manifest of the kind {kind[:120]!r} cannot be used; push the image again with a current client"
    )


def _manifest(value: Mapping[str, Any]) -> Manifest:
    config = Descriptor.of(value["config"])
    layers = tuple(map(Descriptor.of, value["layers"]))
    return Manifest(str(value.get("artifactType") or config.media_type), config, layers)


def _kind(media_type: str, value: Any) -> str:
    """The kind that the document gives itself, else that of the answer: some servers say only JSON."""
    if not isinstance(value, dict):
        raise ValueError("it is not an object")  # noqa: TRY004  one kind for a bad manifest
    if "manifests" in value and ("layers" in value or "config" in value):
        # CVE-2021-41190: one client would take it for this, another for that.
        raise ValueError("it is an index and a manifest at once")
    stated = media_type.partition(";")[0].strip().lower()
    return str(value.get("mediaType") or stated)


def _platform(value: Any) -> Platform | None:
    if not isinstance(value, dict) or not value.get("os") or not value.get("architecture"):
        return None
    return Platform(*(str(value.get(key) or "").lower() for key in ("os", "architecture", "variant")))


def platform_of(config: bytes) -> Platform | None:
    """What an image's config says it runs on; None where it says nothing.  Raises DriverError."""
    try:
        return _platform(json.loads(config))
    except (ValueError, RecursionError) as error:
        raise errors.DriverError(f"the image's config cannot be read: {error}") from error
