"""Uploads of any size that exist only while they are read."""

from __future__ import annotations

import hashlib
import io
import time

MIB = 1024 * 1024
BLOCK = 64 * 1024
_FILLER = bytes(range(256)) * (BLOCK // 256 - 1) + bytes(256 - 16)


class ReaderBroke(Exception):
    """What an upload raises that breaks off."""


class Upload(io.RawIOBase):
    """An upload of ``size`` bytes that exist only while they are read, at most ``step`` at a time."""

    def __init__(self, size: int, step: int = MIB, pause: float = 0.0, breaks_at: int | None = None) -> None:
        self._size = size
        self._step = step
        self._pause = pause
        self._breaks_at = breaks_at
        self._position = 0
        self.largest_read = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = self._size if size is None or size < 0 else size
        self.largest_read = max(self.largest_read, wanted)
        time.sleep(self._pause)
        if self._breaks_at is not None and self._position >= self._breaks_at:
            raise ReaderBroke
        data = content(self._position, min(wanted, self._step, self._size - self._position))
        self._position += len(data)
        return data


def content(position: int, length: int) -> bytes:
    """Bytes of an endless file, of which no two blocks are alike."""
    first, skipped = divmod(position, BLOCK)
    blocks = (b"%016x" % number + _FILLER for number in range(first, (position + length) // BLOCK + 1))
    return b"".join(blocks)[skipped : skipped + length]


def digest_of(size: int) -> str:
    """The SHA-256 of an `Upload` of that size."""
    sha256 = hashlib.sha256()
    for position in range(0, size, MIB):
        sha256.update(content(position, min(MIB, size - position)))
    return sha256.hexdigest()
