"""Workers in processes of this machine, for their contract and for tests that see their processes."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import testtools

import funcplat.worker
from funcplat.drivers.base import Address
from funcplat.testing import worker_functions
from funcplat.testing.worker_case import WorkerCase
from funcplat.testing.workerclient import Execution, WorkerClient

WORKER = pathlib.Path(funcplat.worker.__file__).parent
NOBODY = 54321  # the first of some users who have no other processes

_SERVE = """
import os, signal, socket, subprocess, sys, threading
sys.path.insert(0, {house!r})
from funcplat.worker import host, load, supervisor
def count(name):
    with open({directory!r} + "/" + name) as file:
        return int(file.read())
def confine():
    {confine}
{defect}
sys.path.remove({house!r})
supervisor.serve(host.Host(
    listener=socket.socket(fileno={fd}), concurrency=3, lifeline={lifeline}, confine=confine,
    carried={carried},
    oom_kills=lambda: count("oom_kills"), pids_hits=lambda: count("pids_hits"),
    code_dir={directory!r} + "/pushed/code", scratch={directory!r} + "/scratch",
))
"""


class LocalWorker(WorkerCase, testtools.TestCase):
    """Starts workers and stops them; a worker must survive its test, unless the test ends it.

    The last one that was started is `self.process`, with its files in `self.directory`: ``scratch``, the
    working directory of functions, ``pushed/code``, and what the kernel is said to have counted.
    """

    patience = 20.0
    suffix: ClassVar[str]
    """Of the files of modules."""
    over_tcp: ClassVar[bool] = False

    def setUp(self) -> None:
        super().setUp()
        self.lifeline: int | None = None  # descriptor that the worker is given
        self.carried: str | None = None  # directory of the functions, for a worker that is not given any
        self.before: Callable[[], None] | None = None  # called in its process before it is one
        self.counts = {"oom_kills": 0, "pids_hits": 0}  # as it is started
        self._processes: dict[Address, subprocess.Popen[bytes]] = {}

    # -- the hooks of the contract ------------------------------------------------------------------

    def start_worker(self) -> Address:
        self.make_directory()
        listener, address = self.listen()
        with listener:
            self.spawn(self.argv(listener.fileno()), address, listener.fileno())
        return address

    def stop_worker(self, address: Address) -> None:
        process = self._processes.pop(address)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        _out, errors = process.communicate(timeout=self.patience)
        self.assertEqual((0, b""), (process.returncode, errors), "the supervisor did not end well")

    def argv(self, listener: int) -> list[str]:
        """The command line of a worker that listens on a descriptor."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """The command line of a worker that is a program, without what it listens on."""
        raise NotImplementedError

    def make_directory(self) -> None:
        """Make the directory of the worker that is started next."""
        self.directory = tempfile.mkdtemp(prefix="worker-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.scratch = pathlib.Path(self.directory, "scratch")
        self.scratch.mkdir()
        for name, value in self.counts.items():
            self.count(name, value)

    def listen(self) -> tuple[socket.socket, Address]:
        """What the worker inherits, and where that is."""
        if self.over_tcp:
            listener = socket.create_server(("127.0.0.1", 0), backlog=64)
            host, port = listener.getsockname()
            return listener, Address(host=host, port=port)
        address = f"{self.directory}/socket"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        listener.listen(64)
        return listener, Address(socket=address)

    def spawn(self, argv: Sequence[str], address: Address, *descriptors: int) -> None:
        """Start a process that is the worker at an address; `stop_worker` stops it."""
        inherited = [*descriptors, *([self.lifeline] if self.lifeline is not None else [])]
        self.process = subprocess.Popen(
            argv, pass_fds=inherited, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=self.before
        )
        self._processes[address] = self.process

    def kill_worker(self) -> None:
        """End the worker without a warning, as this test wants it."""
        self.process.kill()
        self.process.wait()
        self.process.returncode = 0

    # -- functions of the test's own ----------------------------------------------------------------

    def run_module(self, text: str, **fields: Any) -> WorkerClient:
        """A connection to a new worker that has this module, whose ``main`` is its entry."""
        return self.run_files({f"main{self.suffix}": text}, **fields)

    def run_files(self, files: Mapping[str, str], **fields: Any) -> WorkerClient:
        """The same with a package of several files, which is at `self.path`."""
        client = self.start()
        self.path = self.place({name: textwrap.dedent(text) for name, text in files.items()})
        answer = client.load(path=self.path, **fields)
        self.assertEqual(200, answer.status, answer)
        return client

    # -- what the outside sees ------------------------------------------------------------------------

    def count(self, name: str, value: int) -> None:
        """Set what the kernel is said to have counted."""
        # In place, since a worker may keep the file open, as it would one of the kernel's.
        file = os.open(f"{self.directory}/{name}", os.O_WRONLY | os.O_CREAT)
        os.write(file, self.count_text(name, value).encode())
        os.close(file)

    def count_text(self, name: str, value: int) -> str:
        """How the kernel says that, in always as many bytes, so that a file is never seen half written."""
        raise NotImplementedError

    def handlers(self) -> list[int]:
        """The children of the supervisor."""
        return children(self.process.pid)

    def assert_dead(self, *pids: int) -> None:
        for pid in pids:
            self.wait_for(lambda pid=pid: is_dead(pid), f"the end of process {pid}")

    def assert_ended(self, execution: Execution, status: str, reason: str | None) -> None:
        self.assertEqual((status, reason), execution.outcome, execution)

    def assert_answers(self, *clients: WorkerClient) -> None:
        """The worker answers on a new connection, and on these."""
        for client in (*clients, self.connect()):
            self.assertEqual(200, client.ask("GET", "/ready").status)

    def new_user(self) -> int:
        """A user who has no processes, and to whom the worker's files are open."""
        if os.getuid() != 0:
            self.skipTest("needs root to become another user")
        return NOBODY + secrets.randbelow(10000)


class PythonWorker(LocalWorker):
    """Serves as a driver has it: in a process that was made for it, with a `Host`."""

    module = "main.py"
    source = worker_functions.PYTHON
    suffix = ".py"
    confine = "pass"
    """A line of Python, run in each new handler."""
    defect = ""
    """A line of Python, run in the supervisor before it serves."""

    def argv(self, listener: int) -> list[str]:
        os.chmod(self.directory, 0o755)
        os.chmod(self.scratch, 0o777)
        code = _SERVE.format(
            house=str(WORKER.parents[1]),
            directory=self.directory,
            confine=self.confine,
            defect=self.defect,
            fd=listener,
            lifeline=self.lifeline,
            carried=f"load.Carried('main.main', {self.carried!r})" if self.carried else None,
        )
        return [sys.executable, "-I", "-S", "-c", code]

    def count_text(self, name: str, value: int) -> str:
        return f"{value:09}"


class PythonProgram(PythonWorker):
    """Serves as a program of its own."""

    def argv(self, listener: int) -> list[str]:
        return [*self.command(), f"--listen=fd:{listener}"]

    def command(self) -> list[str]:
        return [
            sys.executable,
            "-I",
            "-S",
            str(WORKER),
            "--concurrency=3",
            f"--code-dir={self.directory}/pushed/code",
            f"--scratch={self.scratch}",
        ]


def children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def is_dead(pid: int) -> bool:
    """Whether a process has ended; who buries it may take their time."""
    try:
        return state(pid) in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def state(pid: int) -> str:
    """R, S, D, Z ... of a process."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
