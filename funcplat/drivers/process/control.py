"""The driver's side of a zygote: one process and one thread that lives as long as it.

The thread matters: the kernel's parent death signal follows the thread that started a process.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import errno
import json
import logging
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from funcplat import errors
from funcplat.drivers.process import cgroups, nodejs

LOG = logging.getLogger(__name__)

_MESSAGE = 128 * 1024  # bytes
_HELLO_TIMEOUT = 20.0  # seconds; the zygote of a cold machine reads its standard library from disk
_END_TIMEOUT = 10.0  # seconds that a zygote gets to clear up
_LOG_TAIL = 2000  # bytes of a dead worker's log that are told
_ROOM = frozenset([errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EUSERS, errno.EMFILE, errno.ENFILE])

# The path of the package arrives over the socket and stays out of the command line, which functions can read.
_LOADER = """
import json, socket, sys
control = socket.socket(fileno=int(sys.argv[1]))
sys.path.insert(0, json.loads(control.recv(65536))["path"])
from funcplat.drivers.process import zygote
zygote.preload_modules()
del sys.path[0], sys.argv[1:]
zygote.main(control)
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Greeting:
    """What a new zygote is told: what to try, and what workers are made with."""

    modes: Sequence[str]  # of `sandbox.Mode`, in the order to try
    root: pathlib.Path  # an empty directory
    hidden: Sequence[pathlib.Path]  # not to be seen by functions, wherever they lie
    host_network: bool
    user: int  # first of users.SHARE user ids
    scratch: pathlib.Path
    groups: cgroups.Cgroups
    spares: int
    program: nodejs.Program | None = None  # what workers execute, where the zygote is not their interpreter

    def to_json(self) -> dict[str, Any]:
        hierarchies = [
            {"version": each.version, "path": each.path, "controllers": sorted(each.controllers)}
            for each in self.groups.hierarchies
        ]
        return {
            "op": "hello",
            "modes": list(self.modes),
            "root": str(self.root),
            "hidden": [str(path) for path in self.hidden],
            "host_network": self.host_network,
            "user": self.user,
            "scratch": str(self.scratch),
            "hierarchies": hierarchies,
            "spares": self.spares,
            "program": dataclasses.asdict(self.program) if self.program else None,
        }


@dataclasses.dataclass(slots=True, eq=False)
class Child:
    """A worker of this process, from the request on."""

    worker_id: str
    log: int = -1  # its output, open for reading
    code: str | None = None  # where it sees its code
    name: str = ""  # of its control group
    released: list[Callable[[], None]] = dataclasses.field(default_factory=list)  # called when it is gone
    answered: threading.Event = dataclasses.field(default_factory=threading.Event)
    ended: threading.Event = dataclasses.field(default_factory=threading.Event)
    zygote: Zygote | None = None  # who forks it; None: nobody was asked yet
    pid: int | None = None
    failure: errors.DriverError | None = None
    stopping: bool = False

    @property
    def running(self) -> bool:
        return self.pid is not None and not self.ended.is_set()

    def stop(self, grace: float) -> None:
        """Ask it to end; `ended` tells when nothing of it is left."""
        self.stopping = True
        if self.zygote is not None:
            self.zygote.stop(self, grace)

    def close_log(self) -> None:
        if self.log >= 0:
            os.close(self.log)
            self.log = -1


class Zygote:
    """A zygote process.  Thread-safe."""

    def __init__(self, python: str, greeting: Greeting, clear: Callable[[], None]) -> None:
        """Start nothing yet; ``clear`` removes what workers leave when the zygote itself was killed."""
        self.interpreter = greeting.program.node if greeting.program else python
        self._python = python
        self.mode = ""
        self.failures: list[tuple[str, str]] = []
        self._greeting = greeting
        self._clear = clear
        self._children: dict[str, Child] = {}
        self._lock = threading.Lock()
        self._hello = threading.Event()
        self._problem = ""
        self._control, self._far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._thread = threading.Thread(target=self._keep, name="zygote", daemon=True)

    def open(self) -> None:
        """Start the process and wait until it has tried what this machine allows.  Raises DriverError."""
        self._thread.start()
        if not self._hello.wait(_HELLO_TIMEOUT):
            self.close()
            raise errors.DriverUnavailable(f"{self.interpreter} did not start in {_HELLO_TIMEOUT:.0f} s")
        if self._problem:
            self.close()
            raise errors.DriverError(f"{self.interpreter} cannot run workers: {self._problem}")

    @property
    def alive(self) -> bool:
        return self._hello.is_set() and self._thread.is_alive() and not self._problem

    def close(self) -> None:
        """End the process with all its workers, and return when they are gone.  Idempotent."""
        with self._lock:
            for child in self._children.values():
                child.stopping = True
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(_END_TIMEOUT + 1)

    def check_memory(self, size: int) -> None:
        """Raise DriverError where a worker could not live on so many bytes."""
        if self._greeting.program is not None and size < nodejs.LEAST_MEMORY:
            raise errors.DriverError(
                f"A worker of Node.js needs {nodejs.LEAST_MEMORY >> 20} MiB of memory at least, and the "
                f"function has {size / (1 << 20):g}. Raise its memory_size."
            )

    # -- workers --------------------------------------------------------------------------------

    def start(self, child: Child, message: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """Ask for a worker; `Child.answered` tells when there is an answer.  Raises DriverUnavailable."""
        with self._lock:
            if self._problem:
                raise errors.DriverUnavailable(f"the zygote of {self.interpreter} is gone: {self._problem}")
            self._children[child.worker_id] = child
        try:
            self._send({"op": "start", "worker": child.worker_id, **message}, descriptors)
        except errors.DriverUnavailable:
            with self._lock:
                self._children.pop(child.worker_id, None)
            raise
        child.zygote = self
        if child.stopping:  # by somebody who saw no zygote to tell
            self.stop(child, 0.0)

    def stop(self, child: Child, grace: float) -> None:
        """Ask a worker to end."""
        with contextlib.suppress(errors.DriverUnavailable):  # a dead zygote has ended its workers
            self._send({"op": "stop", "worker": child.worker_id, "grace": grace})

    def _send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        rights = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        try:
            self._control.sendmsg([json.dumps(message).encode()], rights)
        except OSError as error:
            raise errors.DriverUnavailable(f"the zygote of {self.interpreter} is gone: {error}") from error

    # -- the thread -----------------------------------------------------------------------------

    def _keep(self) -> None:
        with tempfile.TemporaryFile() as output:
            try:
                process = self._spawn(output.fileno())
            except (OSError, errors.DriverUnavailable) as error:
                self._problem = str(error)
                self._hello.set()
                return
            finally:
                self._far_end.close()
            try:
                self._converse()
            finally:  # whatever happened: nobody may wait for what does not come any more
                self._control.shutdown(socket.SHUT_RDWR)
                self._end(process)
                output.seek(0)
                self._after(output.read().decode(errors="replace").strip())

    def _spawn(self, output: int) -> subprocess.Popen[bytes]:
        package = pathlib.Path(errors.__file__).parent.parent
        self._send({"path": str(package)})
        self._send(self._greeting.to_json())
        number = self._far_end.fileno()
        return subprocess.Popen(  # noqa: S603
            [self._python, "-I", "-S", "-c", _LOADER, str(number)],
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[number],
            start_new_session=True,
        )

    def _converse(self) -> None:
        while True:
            try:
                data = self._control.recv(_MESSAGE)
            except ConnectionError:
                return
            if not data:
                return
            self._hear(json.loads(data))

    def _hear(self, message: Mapping[str, Any]) -> None:
        if message["op"] == "hello":
            self._welcome(message)
            return
        with self._lock:
            child = self._children.get(message["worker"])
        if child is None:
            return
        if message["op"] == "started":
            child.name, child.code = message["name"], message["code"]
            child.pid = message["pid"]
            child.answered.set()
        elif message["op"] == "failed":
            child.failure = translate(message["errno"], message["message"])
        elif message["op"] == "ended":
            self._bury(child, _describe(message["status"], message["oom_kills"]))

    def _welcome(self, message: Mapping[str, Any]) -> None:
        self.failures = [(mode, reason) for mode, reason in message["failures"]]
        self.mode = message["mode"] or ""
        if not self.mode:
            self._problem = "; ".join(f"{mode}: {reason}" for mode, reason in self.failures)
        self._hello.set()

    def _bury(self, child: Child, how: str) -> None:
        with self._lock:
            self._children.pop(child.worker_id, None)
        if child.pid is not None and not child.stopping:
            LOG.warning("worker %s ended by itself: %s%s", child.worker_id, how, _tail(child.log))
        elif child.pid is None:
            child.failure = child.failure or errors.DriverError(
                f"worker {child.worker_id} ended before it served: {how}{_tail(child.log)}"
            )
        child.close_log()
        for release in child.released:
            release()
        child.ended.set()
        child.answered.set()

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """The conversation is over: the zygote clears up by itself, or is killed."""
        try:
            process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _after(self, output: str) -> None:
        self._control.close()
        if output:
            LOG.error("the zygote of %s ended: %s", self.interpreter, output)
        with self._lock:
            self._problem = self._problem or output or "it ended"
            orphans = list(self._children.values())
        self._clear()
        for child in orphans:
            self._bury(child, "its zygote ended")
        self._hello.set()


def translate(number: int, message: str) -> errors.DriverError:
    """The error for an errno that the kernel gave while a worker was started."""
    if number in _ROOM:
        return errors.NoCapacity(f"The machine has no room for another worker: {message}")
    return errors.DriverError(f"A worker could not be started: {message}")


def _describe(status: int, oom_kills: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    number = -code if code < 0 else code - 128  # an init tells of its supervisor's end as shells do
    how = f"signal {signal.Signals(number).name}" if number > 0 else f"exit code {code}"
    return f"{how}, out of memory" if oom_kills and number > 0 else how


def _tail(log: int) -> str:
    size = os.fstat(log).st_size
    text = os.pread(log, _LOG_TAIL, max(0, size - _LOG_TAIL)).decode(errors="replace").strip()
    return f"; its log ends: {text}" if text else ""


def remaining(end: float) -> float:
    """Seconds until a moment of time.monotonic(), at least none."""
    return max(0.0, end - time.monotonic())
