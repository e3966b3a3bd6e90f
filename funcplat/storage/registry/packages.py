"""Packages as artifacts of one repository.

The package of digest ``abcdef…`` is the tag ``package-abcdef…``, a manifest of one layer: the package's own
bytes, so that the layer's digest is the package's.  The manifest comes last, and makes the package visible.

A registry need not write a blob again that it has already, damaged or not.  So what is there is read when a
package is put again; where it is not right, the package is kept once more behind some random bytes, as a
layer of another digest, which the registry cannot take for the damaged one.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import json
import logging
import re
import secrets
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from funcplat import errors
from funcplat.storage.base import PackageInfo
from funcplat.storage.registry import failures, manifests, streams
from funcplat.storage.registry.deadline import Deadline
from funcplat.storage.registry.manifests import Descriptor
from funcplat.storage.registry.repository import Repository, digest_of
from funcplat.storage.registry.streams import Upload

LOG = logging.getLogger(__name__)
ARTIFACT_TYPE = "application/vnd.funcplat.package.v1"
PLAIN = "application/vnd.funcplat.package.v1.zip"
SALTED = "application/vnd.funcplat.package.v1.salted"
SALT = 16
"""Random bytes before the package in a layer of the kind `SALTED`."""

_EMPTY = b"{}"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TAG = re.compile(r"package-([0-9a-f]{64})")


class _State(enum.Enum):
    """What a repository has of a package."""

    ABSENT = enum.auto()  # nothing
    HIDDEN = enum.auto()  # its bytes, and no manifest that would show them
    RIGHT = enum.auto()  # all of it
    SPOILED = enum.auto()  # something under its digests that is not it


class Packages:
    """The packages of a repository.  Thread-safe."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def put(self, digest: str, size: int, data: BinaryIO, deadline: Deadline) -> None:
        upload = Upload(data, digest, size, deadline)
        state, layer = self._look(digest, size, deadline)
        if state in (_State.RIGHT, _State.HIDDEN):
            upload.drain()
        elif state is _State.ABSENT:
            self._repository.upload(layer.digest, size, upload.chunks(), deadline)
        else:
            layer = self._upload_salted(upload, size, deadline)
        if state is not _State.RIGHT:
            self._publish(digest, layer, deadline)

    @contextlib.contextmanager
    def open(self, digest: str, deadline: Deadline) -> Iterator[Iterator[bytes]]:
        layer = self._layer(digest, deadline)
        with contextlib.ExitStack() as stack:
            try:
                chunks = stack.enter_context(self._repository.open_blob(layer.digest, deadline))
            except failures.Missing as error:
                raise errors.PackageMissing(
                    f"{self._repository} has the package {digest} but not its bytes: {error.message}"
                ) from error
            yield streams.verified(_unsalted(chunks, layer), digest, str(self._repository))

    def delete(self, digest: str, deadline: Deadline) -> None:
        """Remove the manifest.  The registry clears away bytes that nothing refers to in its own time."""
        try:
            found = self._repository.manifest_digest(_tag(digest), deadline)
        except failures.Missing:
            return
        self._repository.delete_manifest(found, deadline)

    def exists(self, digest: str, deadline: Deadline) -> PackageInfo | None:
        try:
            return PackageInfo(digest, _size(self._layer(digest, deadline)))
        except errors.PackageMissing:
            return None

    def list(self, deadline: Deadline) -> list[PackageInfo]:
        tags = (_TAG.fullmatch(tag) for tag in self._repository.tags(deadline))
        infos = (self._listed(match[1], deadline) for match in tags if match)
        return [info for info in infos if info is not None]

    # -- looking -------------------------------------------------------------------------------------------

    def _listed(self, digest: str, deadline: Deadline) -> PackageInfo | None:
        try:
            return self.exists(digest, deadline)
        except errors.PackageCorrupt as error:
            LOG.warning("%s: not listed: %s", self._repository, error)
            return None

    def _layer(self, digest: str, deadline: Deadline) -> Descriptor:
        """Raises PackageMissing, PackageCorrupt for a manifest that is none of ours."""
        tag = _tag(digest)
        try:
            document = self._repository.manifest(tag, deadline)
        except failures.Missing as error:
            raise errors.PackageMissing(f"{self._repository} holds no package {digest}") from error
        try:
            return _parsed(document.media_type, document.body, digest)
        except (errors.DriverError, errors.InvalidRequest) as error:
            raise errors.PackageCorrupt(
                f"{self._repository}:{tag} is not the package that it should be: {error.message}"
            ) from error

    def _look(self, digest: str, size: int, deadline: Deadline) -> tuple[_State, Descriptor]:
        """What is there of a package, and the layer that it has or is to have."""
        plain = Descriptor(PLAIN, f"sha256:{digest}", size)
        try:
            return self._seen(plain, digest, deadline)
        except errors.DriverTimeout:
            raise
        except (failures.Missing, errors.PackageCorrupt, errors.DriverUnavailable) as error:
            # Not to be read, for now or for good: what is put behind new bytes does not depend on it.
            LOG.warning("package %s: kept anew: %s", digest, error.message)
            return _State.SPOILED, plain

    def _seen(self, plain: Descriptor, digest: str, deadline: Deadline) -> tuple[_State, Descriptor]:
        state, layer = _State.RIGHT, plain
        try:
            layer = self._layer(digest, deadline)
        except errors.PackageMissing:
            state = _State.HIDDEN
        if not self._repository.has_blob(layer.digest, deadline):
            return (_State.ABSENT if layer == plain else _State.SPOILED), plain
        self._read(layer, digest, deadline)
        return (state if _size(layer) == plain.size else _State.SPOILED), layer

    def _read(self, layer: Descriptor, digest: str, deadline: Deadline) -> None:
        """Raises PackageCorrupt unless the layer is right."""
        with self._repository.open_blob(layer.digest, deadline) as chunks:
            for _ in streams.verified(_unsalted(chunks, layer), digest, str(self._repository)):
                deadline.left(f"reading the package {digest} that is there already")

    # -- writing -------------------------------------------------------------------------------------------

    def _upload_salted(self, upload: Upload, size: int, deadline: Deadline) -> Descriptor:
        chunks = itertools.chain([secrets.token_bytes(SALT)], upload.chunks())
        digest = self._repository.upload_hashed(SALT + size, chunks, deadline)
        return Descriptor(SALTED, digest, SALT + size)

    def _publish(self, digest: str, layer: Descriptor, deadline: Deadline) -> None:
        self._put_empty(deadline)
        # A manifest is kept once too: where that was damaged, another one takes its place.
        for mark in ("", secrets.token_hex(8)):
            body = _manifest(layer, mark)
            self._repository.put_manifest(_tag(digest), manifests.OCI_MANIFEST, body, deadline)
            if self._can_be_read(digest, deadline):
                return
        raise errors.DriverError(f"{self._repository} does not give back the manifests that it accepts")

    def _can_be_read(self, digest: str, deadline: Deadline) -> bool:
        try:
            self._layer(digest, deadline)
        except errors.PackageMissing:
            return True  # somebody deleted it meanwhile
        except errors.DriverTimeout:
            raise
        except (errors.PackageCorrupt, errors.DriverUnavailable):
            return False
        return True

    def _put_empty(self, deadline: Deadline) -> None:
        """The config of every artifact, which must be there before a manifest may refer to it."""
        digest = digest_of(_EMPTY)
        if not self._repository.has_blob(digest, deadline):
            self._repository.upload(digest, len(_EMPTY), _EMPTY, deadline)


def _tag(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise errors.DriverError(f"{digest[:80]!r} is not a SHA-256 in hex")
    return f"package-{digest}"


def _manifest(layer: Descriptor, mark: str) -> bytes:
    """The same bytes for the same layer and mark, so that several puts at once leave one manifest."""
    config = Descriptor(manifests.OCI_EMPTY, digest_of(_EMPTY), len(_EMPTY))
    value = {
        "schemaVersion": 2,
        "mediaType": manifests.OCI_MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": config.to_json(),
        "layers": [layer.to_json()],
        **({"annotations": {"funcplat.mark": mark}} if mark else {}),
    }
    return json.dumps(value, separators=(",", ":")).encode()


def _parsed(media_type: str, body: bytes, digest: str) -> Descriptor:
    """The layer of a package's manifest.  Raises DriverError, InvalidRequest."""
    manifest = manifests.parse(media_type, body)
    if not isinstance(manifest, manifests.Manifest) or len(manifest.layers) != 1:
        raise errors.DriverError("it is not a manifest of one layer")
    layer = manifest.layers[0]
    if manifest.artifact_type != ARTIFACT_TYPE or layer.media_type not in (PLAIN, SALTED):
        raise errors.DriverError(f"it is of the kind {manifest.artifact_type[:80]!r}")
    if (layer.media_type == PLAIN) != (layer.digest == f"sha256:{digest}") or _size(layer) < 0:
        raise errors.DriverError("its layer is not that of this package")
    return layer


def _size(layer: Descriptor) -> int:
    return layer.size - (SALT if layer.media_type == SALTED else 0)


def _unsalted(chunks: Iterable[bytes], layer: Descriptor) -> Iterator[bytes]:
    skipped = SALT if layer.media_type == SALTED else 0
    for chunk in chunks:
        if kept := chunk[skipped:]:
            yield kept
        skipped = max(0, skipped - len(chunk))
