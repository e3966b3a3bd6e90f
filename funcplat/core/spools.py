"""Receiving a package of unknown length into a temporary file."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import logging
import pathlib
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, Self, cast

from funcplat import errors

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Spooled:
    """A package received into a temporary file, which is positioned at its start."""

    file: BinaryIO
    size: int  # bytes
    sha256: str  # in hex
    md5: str  # in hex; for clients that compare it, never trusted


class Spool:
    """Receives a package into an unnamed file, so that a crash leaves nothing.  Not thread-safe."""

    def __init__(self, directory: pathlib.Path, max_size: int) -> None:
        self._max_size = max_size
        self._size = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        with room("receive a package"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed by close()
        self._file = cast(BinaryIO, file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def write(self, chunk: bytes) -> None:
        """Append a chunk.  Raises TooLarge as soon as it is over the limit, Overloaded on a full disk."""
        self._size += len(chunk)
        if self._size > self._max_size:
            raise errors.TooLarge(f"The package is larger than the limit of {self._max_size} bytes.")
        self._sha256.update(chunk)
        self._md5.update(chunk)
        with room("receive a package"):
            self._file.write(chunk)

    def finish(self) -> Spooled:
        """What was received.  Its file lives until `close`."""
        with room("receive a package"):
            self._file.seek(0)
        return Spooled(self._file, self._size, self._sha256.hexdigest(), self._md5.hexdigest())

    def close(self) -> None:
        """Remove what was received.  Idempotent."""
        with contextlib.suppress(OSError):  # a full disk, when the buffer cannot be written: nobody wants it
            self._file.close()


@contextlib.contextmanager
def room(action: str) -> Iterator[None]:
    """Tell a full disk from other trouble: it is the platform's, it passes, and the operator must know."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        LOG.error("no space left to %s: %s; free some on the disk of state_dir", action, error)  # noqa: TRY400
        raise errors.Overloaded(
            f"The platform has no disk space left to {action}; try again later."
        ) from error
