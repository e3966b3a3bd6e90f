"""The directory of an installation's workers: their sockets, handles and logs.

``<worker>.sock`` listens from before the worker exists until all of it is gone, and nobody but the worker and
those who start it hold that socket open: so whether somebody listens says whether the worker exists, to any
process and after any crash.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import re
import socket as sockets
import tempfile
from collections.abc import Iterator

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.process import identity

_LONGEST = 107  # bytes of a Unix socket's path: sun_path without its NUL
_WORKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TEMPLATE = "root-"
_BACKLOG = 512  # connections of routers and probes that wait while a worker starts


def short_name(owner: str) -> str:
    """Eight characters for an installation, in the names of what belongs to it."""
    return hashlib.blake2s(owner.encode(), digest_size=4).hexdigest()


@dataclasses.dataclass(frozen=True, slots=True)
class RunDir:
    """The files of all workers of one installation on this machine."""

    path: pathlib.Path

    def make(self) -> None:
        """Create it; nobody but this user may enter.  Raises DriverError."""
        longest = len(os.fsencode(self.path / f"{'0' * 36}.sock"))
        if longest > _LONGEST:
            raise errors.DriverError(
                f"Sockets in {self.path} would have paths of {longest} bytes, and {_LONGEST} is the most; "
                "set [orchestrator_process] run_dir to a short path such as /run/funcplat"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
        except OSError as error:
            raise errors.DriverError(f"{self.path} cannot be used: {error}") from error

    def remove(self) -> None:
        """Remove it if nothing is in it."""
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def make_template(self) -> pathlib.Path:
        """An empty directory for the zygotes of this process to mount on, each in a namespace of its own.

        Nobody may remove it while a zygote lives: the kernel would take the mount away with it.
        """
        own = identity.of(os.getpid())
        prefix = f"{_TEMPLATE}{own['pid']}-{own['started']}-"
        return pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=self.path))

    def remove_dead_templates(self) -> None:
        """Remove the directories of processes that were killed."""
        for path in self.path.glob(f"{_TEMPLATE}*"):
            if not identity.is_alive(path.name.removeprefix(_TEMPLATE)):
                with contextlib.suppress(FileNotFoundError):
                    path.rmdir()

    def files(self, worker_id: str) -> Files:
        """Where a worker's files are.  Raises DriverError for an id that is no file name."""
        if not _WORKER.fullmatch(worker_id):
            raise errors.DriverError(f"{worker_id!r} cannot be the id of a worker")
        return Files(self.path, worker_id)

    def workers(self) -> Iterator[Files]:
        """All that has a socket, whether alive or not."""
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(self.path.glob("*.sock")):
                if _WORKER.fullmatch(path.stem):
                    yield Files(self.path, path.stem)


@dataclasses.dataclass(frozen=True, slots=True)
class Files:
    """The files of one worker."""

    directory: pathlib.Path
    worker_id: str

    @property
    def socket(self) -> pathlib.Path:
        return self.directory / f"{self.worker_id}.sock"

    @property
    def log(self) -> pathlib.Path:
        return self.directory / f"{self.worker_id}.log"

    @property
    def record(self) -> pathlib.Path:
        return self.directory / f"{self.worker_id}.json"

    def paths(self) -> list[pathlib.Path]:
        """All of them, in the order in which they are removed: the socket is what counts, so last."""
        return [self.log, self.record, self.socket]

    def listen(self) -> sockets.socket:
        """Bind the worker's socket.  It gets its name only when it listens, so that a name means a listener.

        Raises FileExistsError where it has one, OSError.
        """
        listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        temporary = self.directory / f".{self.worker_id[:36]}"
        try:
            listener.bind(str(temporary))
            listener.listen(_BACKLOG)
            os.link(temporary, self.socket)  # unlike rename, it takes no name that somebody has
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                raise FileExistsError(errno.EEXIST, f"{temporary} exists") from error
            raise
        finally:
            temporary.unlink(missing_ok=True)
        return listener

    def alive(self) -> bool:
        """Whether somebody listens on the worker's socket."""
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(self.socket))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            except BlockingIOError:  # so many wait for it that the queue is full
                return True
        return True

    def save(self, handle: base.Handle) -> None:
        """Keep the handle for other processes."""
        self.record.write_text(json.dumps(handle.to_json()))

    def handle(self) -> base.Handle:
        """What was saved, or the address alone where the worker is only about to start."""
        try:
            return base.Handle.from_json(json.loads(self.record.read_text()))
        except (FileNotFoundError, ValueError):
            return base.Handle(self.worker_id, base.Address(socket=str(self.socket)))

    def remove(self) -> None:
        """Remove all of them.  Idempotent."""
        for path in self.paths():
            path.unlink(missing_ok=True)
