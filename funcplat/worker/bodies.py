"""Where the bodies of longer requests go while they come in."""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Callable
from typing import BinaryIO

from funcplat.worker import connection

IN_MEMORY = 1024 * 1024
"""Bytes of a /load body that are kept in memory; a longer one goes to a file."""


class Skip:
    """Nowhere: the answer is known before the body is here, but the connection shall stay usable."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def write(self, data: bytes) -> None:
        pass

    def done(self, connection: connection.Connection) -> None:
        connection.answer(self._answer)

    def abandon(self) -> None:
        pass


class Memory:
    """An input longer than what came with its head."""

    def __init__(self, done: Callable[[connection.Connection, bytes], None]) -> None:
        self._done = done
        self._data = bytearray()

    def write(self, data: bytes) -> None:
        self._data += data

    def done(self, connection: connection.Connection) -> None:
        self._done(connection, bytes(self._data))

    def abandon(self) -> None:
        self._data.clear()


class Package:
    """The body of /load: a line and mostly a package, which may be larger than the worker's memory bears."""

    def __init__(
        self,
        length: int,
        directory: pathlib.Path,
        done: Callable[[connection.Connection, BinaryIO], None],
        abandoned: Callable[[], None],
        failed: Callable[[connection.Connection, OSError], None],
    ) -> None:
        self._done = done
        self._abandoned = abandoned
        self._failed = failed
        self._error: OSError | None = None
        self._file: BinaryIO = io.BytesIO()
        if length > IN_MEMORY:
            try:
                self._file = _nameless(directory)
            except OSError as error:
                self._error = error

    def write(self, data: bytes) -> None:
        if self._error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self._error = error

    def done(self, connection: connection.Connection) -> None:
        if self._error is None:
            try:
                self._file.seek(0)  # writes what is buffered
            except OSError as error:
                self._error = error
        if self._error is not None:
            self._failed(connection, self._error)
        else:
            self._done(connection, self._file)
        self._close()

    def abandon(self) -> None:
        self._abandoned()
        self._close()

    def _close(self) -> None:
        # Not close(), which would raise for what a full disk did not take.
        raw = self._file.detach() if isinstance(self._file, io.BufferedRandom) else self._file
        raw.close()


def _nameless(directory: pathlib.Path) -> BinaryIO:
    """A file that nobody else can open and that is gone when it is closed."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f".upload-{os.getpid()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    path.unlink()
    return os.fdopen(fd, "w+b")
