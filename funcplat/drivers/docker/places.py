"""Directories that a worker's container shares with the platform: its socket and its code.

Both are bound into the container.  The code is bound read-only.  The socket's directory can be written to
until the socket is there, and by nobody but the platform from then on: it lies on the disk of this machine,
which a function could fill else.  No code of a function runs before that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Collection

from funcplat import errors

SOCKET = "w"
FREE = "free"
UNDER_WAY = 120.0
"""Seconds that making or taking a container may take."""
_LONGEST = 107  # bytes of a socket's path


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """The directories of one container."""

    path: pathlib.Path

    @classmethod
    def at(cls, path: str) -> Place:
        return cls(pathlib.Path(path))

    @property
    def sockets(self) -> pathlib.Path:
        return self.path / "s"

    @property
    def socket(self) -> pathlib.Path:
        return self.sockets / SOCKET

    @property
    def code(self) -> pathlib.Path:
        return self.path / "code"

    def seal(self) -> None:
        """From now on the container can change nothing here.  Idempotent."""
        self.sockets.chmod(0o755)

    def mark(self) -> None:
        """Its container waits for a function."""
        with contextlib.suppress(FileNotFoundError):  # it was removed
            (self.path / FREE).touch()

    def unmark(self) -> bool:
        """Take the container; False: it is not ready yet, or was taken by somebody else."""
        try:
            (self.path / FREE).unlink()
        except FileNotFoundError:
            return False
        return True

    def is_abandoned(self) -> bool:
        """Whether who made or took the container has given up: it has had no mark for long."""
        try:
            return not (self.path / FREE).exists() and self.path.stat().st_mtime < time.time() - UNDER_WAY
        except FileNotFoundError:
            return True

    def release(self) -> None:
        """Its container is about to be removed: without one it may go at once, whoever comes to that."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path, (0, 0))

    def give_code(self, source: pathlib.Path) -> None:
        """Show the container an unpacked package, by links to its files where that is possible.  Idempotent.

        Raises DriverError.
        """
        try:
            self.code.chmod(0o755)
            _link_tree(str(source), str(self.code))
        except OSError as error:
            raise errors.DriverError(f"the code at {source} cannot be given to a worker: {error}") from error


class Places:
    """All the places of an installation on this machine."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root

    def make(self) -> Place:
        """A new place.  Raises DriverError."""
        place = Place(self.root / uuid.uuid4().hex)
        if len(os.fsencode(place.socket)) > _LONGEST:
            raise errors.DriverError(
                f"the path of a socket below {self.root} is longer than {_LONGEST} bytes; "
                "set [orchestrator_docker] run_dir to a shorter directory"
            )
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.path.mkdir(mode=0o755)
            place.code.mkdir(mode=0o755)
            place.sockets.mkdir()
            place.sockets.chmod(0o777)  # the container's user is nobody here; `seal` takes this back
        except OSError as error:
            raise errors.DriverError(f"no directory for a worker can be made: {error}") from error
        return place

    def remove(self, place: Place) -> None:
        """Remove a place whose container is gone.  Idempotent."""
        if place.path.parent.name != self.root.name:
            return  # none of this installation's, whatever a container's label says
        while place.path.exists():
            with contextlib.suppress(FileNotFoundError):  # somebody else removes it at the same moment
                shutil.rmtree(place.path)

    def collect(self, used: Collection[str], age: float) -> None:
        """Remove places without a container that are released, or ``age`` seconds old: a crash left them."""
        with contextlib.suppress(FileNotFoundError):
            for entry in list(os.scandir(self.root)):
                if entry.path not in used and entry.stat().st_mtime < time.time() - age:
                    self.remove(Place.at(entry.path))


def _link_tree(source: str, target: str) -> None:
    for entry in os.scandir(source):
        path = f"{target}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o755)  # noqa: PTH102  PERF: strings, for thousands of files
            os.chmod(path, 0o755)  # noqa: PTH101, S103  whatever the umask is
            _link_tree(entry.path, path)
        else:
            _link(entry.path, path)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        return
    except OSError:  # another file system, or too many links
        shutil.copy2(source, target, follow_symlinks=False)
