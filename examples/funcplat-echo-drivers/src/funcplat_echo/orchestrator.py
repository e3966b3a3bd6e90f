"""The orchestrator driver ``echo``: workers are processes of this machine that return their input.

It shows what a driver owes the platform.  It has no memory of its workers: each has a *record*, a file named
after it, whose lock the worker holds as long as it lives, and whoever reads the directory knows all of them.
So workers outlive the server (Capability.SURVIVES), any process can stop them, and one that died leaves a
record without a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import re
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, ClassVar

from oslo_config import cfg

from funcplat import errors
from funcplat.drivers.base import (
    Address,
    Capability,
    Feature,
    Handle,
    Isolation,
    OrchestratorDriver,
    WorkerSpec,
    WorkerState,
)

MAX_SOCKET_PATH = 107  # what the kernel takes
FLOCK = struct.Struct("hhqqi")  # struct flock of 64-bit Linux
WORKER_ID = re.compile(r"[0-9a-zA-Z-]{1,64}")


class EchoDriver(OrchestratorDriver):
    """Starts, finds and stops echo workers."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset([Capability.LOGS, Capability.SURVIVES])
    opts: ClassVar[Sequence[cfg.Opt]] = (
        cfg.StrOpt("image", default="echo", help="The image of runtimes whose functions echo. Example: echo"),
    )

    def check(self) -> None:
        with _translated():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        longest = self._directory / f"{'x' * 64}.sock"
        if len(os.fsencode(longest)) > MAX_SOCKET_PATH:
            raise errors.DriverError(f"{self._directory} is too long a path for sockets; shorten state_dir")

    def features(self) -> Iterable[Feature]:
        for name in ("cpu", "memory", "processes", "disk", "network", "mounts", "user"):
            yield Feature(name, Isolation.NONE, "not limited: an echo worker runs no code of its users")

    def check_image(self, image: str, deadline: float) -> None:
        if image != self.options.image:
            raise errors.ImageUnknown(f"this driver runs {self.options.image!r} alone, not {image!r}")

    # -- start, stop, list ---------------------------------------------------------------------------

    def start_worker(self, spec: WorkerSpec, deadline: float) -> Handle:
        """Start a process.  Of several calls for one worker id the lock of the record lets one win."""
        until = time.monotonic() + deadline
        self.check_image(spec.image, deadline)
        record = self._record(spec.worker_id)
        with _translated():
            record.touch(mode=0o600)
            reader, writer = os.pipe()
            launcher = self._launch(record, spec.concurrency, writer)
            with os.fdopen(reader, "rb", buffering=0) as ready, launcher:
                if _said_ready(ready, until) and _holder(record) is not None:
                    return self._handle(spec.worker_id)
                os.killpg(launcher.pid, signal.SIGKILL)
            log = self._log(spec.worker_id, 2000)
            _await_death(record, 1.0)
            self._clear(record)
        if time.monotonic() >= until:
            raise errors.DriverTimeout(f"worker {spec.worker_id} did not start in time")
        raise errors.DriverError(f"worker {spec.worker_id} did not start: {log!r}")

    def stop_worker(self, handle: Handle, grace: float, deadline: float) -> None:
        """Let the worker drain for ``grace`` seconds, then kill it."""
        until = time.monotonic() + deadline
        record = self._record(handle.worker_id)
        with _translated(), contextlib.suppress(ProcessLookupError), _process(record) as process:
            if process is not None:
                signal.pidfd_send_signal(process, signal.SIGTERM)
                if not select.select([process], [], [], min(grace, deadline))[0]:
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                if not select.select([process], [], [], max(until - time.monotonic(), 0))[0]:
                    raise errors.DriverTimeout(f"worker {handle.worker_id} does not end")
        self._clear(record)

    def list_workers(self, deadline: float) -> Iterable[WorkerState]:
        with _translated():
            for record in self._directory.glob("*.worker"):
                yield WorkerState(record.stem, self._handle(record.stem), _holder(record) is not None)

    def worker_logs(self, handle: Handle, limit: int, deadline: float) -> bytes:
        self._record(handle.worker_id)
        return self._log(handle.worker_id, limit)

    # -- what lies in the directory ------------------------------------------------------------------

    @property
    def _directory(self) -> pathlib.Path:
        return self.context.state_dir / "echo"

    def _record(self, worker_id: str) -> pathlib.Path:
        if not WORKER_ID.fullmatch(worker_id):
            raise errors.DriverError(f"{worker_id[:80]!r} is not a worker id")
        return self._directory / f"{worker_id}.worker"

    def _handle(self, worker_id: str) -> Handle:
        return Handle(worker_id, Address(socket=str(self._directory / f"{worker_id}.sock")))

    def _launch(self, record: pathlib.Path, concurrency: int, writer: int) -> subprocess.Popen[bytes]:
        socket = record.with_suffix(".sock")
        arguments = [str(record), str(socket), str(concurrency), str(writer)]
        try:
            with record.with_suffix(".log").open("ab") as log:
                return subprocess.Popen(
                    [sys.executable, "-m", "funcplat_echo.worker", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[writer],
                    start_new_session=True,
                )
        finally:
            os.close(writer)

    def _log(self, worker_id: str, limit: int) -> bytes:
        with _translated(), contextlib.suppress(FileNotFoundError):
            log = self._record(worker_id).with_suffix(".log").read_bytes()
            return log[-limit:] if limit else b""
        return b""

    def _clear(self, record: pathlib.Path) -> None:
        """Remove what a worker that is dead left; one that another start made alive again is left alone."""
        with (
            _translated(),
            contextlib.suppress(FileNotFoundError, BlockingIOError),
            record.open("r+") as file,
        ):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for suffix in (".sock", ".log", ".worker"):
                record.with_suffix(suffix).unlink(missing_ok=True)


def _said_ready(ready: BinaryIO, until: float) -> bool:
    readable = select.select([ready], [], [], max(until - time.monotonic(), 0))[0]
    return bool(readable) and ready.read(1) == b"+"


def _holder(record: pathlib.Path) -> int | None:
    """The process that holds the record's lock, as the kernel knows it; None: the worker is dead."""
    with contextlib.suppress(FileNotFoundError), record.open() as file:
        question = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, process = FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, question))
        return None if kind == fcntl.F_UNLCK else int(process)
    return None


def _await_death(record: pathlib.Path, patience: float) -> None:
    """Wait for a killed process to be gone.  It is nobody's child, so there is nothing to wait on."""
    until = time.monotonic() + patience
    while _holder(record) is not None and time.monotonic() < until:
        time.sleep(0.001)


@contextlib.contextmanager
def _process(record: pathlib.Path) -> Iterator[int | None]:
    """A descriptor of the record's living process, or None.

    The kernel is asked again after the descriptor was made: a number whose process has died may be another's.
    """
    number = _holder(record)
    if number is None:
        yield None
        return
    descriptor = os.pidfd_open(number)
    try:
        yield descriptor if _holder(record) == number else None
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise errors.DriverError(f"{error.filename or 'echo'}: {error.strerror}") from error
