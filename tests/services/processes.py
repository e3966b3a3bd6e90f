"""Processes of test servers: each in a session of its own, on record, and stopped by that record.

A service directory holds ``pids/NAME.json`` (pid and start time) and ``log/NAME.log`` of every process.
A process is only ever signalled while its start time is the recorded one, so that a process id which the
kernel gave away again is left alone.  What the records say is enough to stop a server from any process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

POLL_INTERVAL = 0.03


class StartError(Exception):
    """A server did not become ready; the message ends with its log."""


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """The user and group ids a process runs under."""

    uid: int
    gid: int


def free_port() -> int:
    """A TCP port of the loopback address that nobody else is given for the next minute.

    A connection that was closed leaves the port in TIME_WAIT: the kernel then hands it to nobody who asks
    for any free port, while a server that names it (with SO_REUSEADDR, as all do) gets it.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        port: int = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listener.accept()
            # the end that closes first, the accepted one, is the one that waits
            accepted.close()
    return port


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of ``pid``; None when there is no such living process."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def spawn(
    directory: pathlib.Path,
    name: str,
    argv: Sequence[object],
    *,
    env: Mapping[str, str] | None = None,
    account: Account | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start ``argv`` with its output in ``log/NAME.log`` and its record in ``pids/NAME.json``."""
    for part in ("log", "pids"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    with log_path(directory, name).open("ab") as log:
        process = subprocess.Popen(
            [str(argument) for argument in argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={**os.environ, **(env or {})},
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    record = {"pid": process.pid, "start": start_time(process.pid), "signal": int(stop_signal)}
    unfinished = directory / "pids" / f".{name}"
    unfinished.write_text(json.dumps(record))
    unfinished.rename(directory / "pids" / f"{name}.json")
    return process


def log_path(directory: pathlib.Path, name: str) -> pathlib.Path:
    return directory / "log" / f"{name}.log"


def log_tail(path: pathlib.Path, size: int = 4000) -> str:
    """The last ``size`` bytes of a log, as text."""
    if not path.exists():
        return "(no log)"
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - size))
        return log.read().decode(errors="replace")


def run(
    directory: pathlib.Path,
    name: str,
    argv: Sequence[object],
    *,
    env: Mapping[str, str] | None = None,
    account: Account | None = None,
    deadline: float = 60.0,
) -> None:
    """Run ``argv`` to its end.  Raises StartError when it fails or takes more than ``deadline`` seconds."""
    process = spawn(directory, name, argv, env=env, account=account)
    try:
        status = process.wait(deadline)
    except subprocess.TimeoutExpired:
        stop(directory, name, grace=0)
        status = None
    (directory / "pids" / f"{name}.json").unlink(missing_ok=True)
    if status != 0:
        outcome = f"did not end within {deadline:g} s" if status is None else f"ended with {status}"
        raise StartError(f"{name} {outcome}; its log:\n{log_tail(log_path(directory, name))}")


def wait_ready(
    directory: pathlib.Path,
    name: str,
    process: subprocess.Popen[bytes],
    ready: Callable[[], bool],
    deadline: float = 60.0,
) -> None:
    """Return when ``ready()`` is true.  Raises StartError at once when the process ends before.

    ``ready`` answers False for "not yet"; what it raises is a defect and passes through.
    """
    end = time.monotonic() + deadline
    while not ready():
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = process.wait(POLL_INTERVAL)
            tail = log_tail(log_path(directory, name))
            raise StartError(f"{name} ended with {status} before it was ready; its log:\n{tail}")
        if time.monotonic() > end:
            tail = log_tail(log_path(directory, name))
            raise StartError(f"{name} was not ready after {deadline:g} s; its log:\n{tail}")


def stop(directory: pathlib.Path, name: str, grace: float = 15.0) -> None:
    """Stop a recorded process by its signal, after ``grace`` seconds its session by SIGKILL.  Idempotent."""
    path = directory / "pids" / f"{name}.json"
    if not path.exists():
        return
    record = json.loads(path.read_text())
    try:
        handle = os.pidfd_open(record["pid"])
    except ProcessLookupError:
        path.unlink()
        return
    try:
        # the descriptor pins the process: after this look nobody else can be behind the number
        if record["start"] is not None and start_time(record["pid"]) == record["start"]:
            _end(handle, record["pid"], record["signal"], grace)
    finally:
        os.close(handle)
    path.unlink()


def _end(handle: int, pid: int, stop_signal: int, grace: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, stop_signal)
        if not ended(handle, grace):
            os.killpg(pid, signal.SIGKILL)
            ended(handle, grace)


def ended(handle: int, timeout: float) -> bool:
    """Wait up to ``timeout`` seconds until the process behind a pid descriptor has ended; whether it has."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def stop_all(directory: pathlib.Path) -> None:
    """Stop every recorded process of a service directory, the youngest first.  Idempotent."""
    records = sorted(directory.glob("pids/*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in records:
        stop(directory, path.stem)
