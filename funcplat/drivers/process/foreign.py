"""Workers that another process of this installation started: found by their files, ended by their pid."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import Any

from funcplat import errors
from funcplat.drivers.process import control, identity, run_dir

_POLL = 0.005  # seconds; nobody tells another process that a file is gone


def stop(files: run_dir.Files, grace: float, end: float) -> None:
    """End a worker of another process and wait until that process has cleared it away.

    ``end``: moment of time.monotonic().  Raises DriverTimeout.
    """
    with contextlib.ExitStack() as stack:
        data = files.handle().data
        pidfd = _open(data)
        if pidfd is not None:
            stack.callback(os.close, pidfd)
            _end(pidfd, grace, end)
    while files.alive():
        if time.monotonic() >= end:
            raise errors.DriverTimeout(f"worker {files.worker_id} does not end")
        time.sleep(_POLL)


def _open(data: Any) -> int | None:
    """A pidfd of the process that ``data`` names, if it still exists."""
    if "pid" not in data:
        return None
    try:
        pidfd = os.pidfd_open(data["pid"])
    except ProcessLookupError:
        return None
    with contextlib.suppress(OSError):
        if identity.of(data["pid"]).items() <= dict(data).items():
            return pidfd
    os.close(pidfd)
    return None


def _end(pidfd: int, grace: float, end: float) -> None:
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, control.remaining(end))):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)
        if select.select([pidfd], [], [], min(patience, control.remaining(end)))[0]:
            return
