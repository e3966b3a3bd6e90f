"""Bytes that are checked on their way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from funcplat import errors
from funcplat.storage.registry.deadline import Deadline

CHUNK = 512 * 1024
"""Bytes of an upload that are held at once, twice."""


class Upload:
    """What is being put, checked on its way."""

    def __init__(self, data: BinaryIO, digest: str, size: int, deadline: Deadline) -> None:
        self._data = data
        self._digest = digest
        self._size = size
        self._deadline = deadline

    def chunks(self) -> Iterator[bytes]:
        """All of it; the last chunk once everything is known to be right, so that no wrong upload is whole.

        Raises PackageCorrupt, DriverTimeout, and what ``data`` raises.
        """
        sha256, read, held = hashlib.sha256(), 0, b""
        while chunk := self._data.read(CHUNK):
            read += len(chunk)
            if read > self._size:
                raise errors.PackageCorrupt(
                    f"package {self._digest}: more than the {self._size} bytes announced arrived"
                )
            self._deadline.left(f"package {self._digest}: sending {read} of {self._size} bytes")
            sha256.update(chunk)
            if held:
                yield held
            held = chunk
        if read != self._size:
            raise errors.PackageCorrupt(
                f"package {self._digest}: {read} of the {self._size} bytes announced arrived"
            )
        if sha256.hexdigest() != self._digest:
            raise errors.PackageCorrupt(
                f"package {self._digest}: what arrived has the digest {sha256.hexdigest()}"
            )
        if held:
            yield held

    def drain(self) -> None:
        """Only check it."""
        for _ in self.chunks():
            pass


def verified(chunks: Iterable[bytes], digest: str, where: str) -> Iterator[bytes]:
    """The same chunks; raises PackageCorrupt after the last one unless they have this SHA-256 (in hex)."""
    sha256 = hashlib.sha256()
    for chunk in chunks:
        sha256.update(chunk)
        yield chunk
    if sha256.hexdigest() != digest:
        raise errors.PackageCorrupt(
            f"{digest} of {where} was damaged: what arrived has the digest {sha256.hexdigest()}; "
            "upload it again"
        )
