"""A real worker in a process of its own, and a client that speaks the worker protocol byte for byte."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import testtools

import funcplat.worker

WORKER = pathlib.Path(funcplat.worker.__file__).parent
SECRET = "a-secret-of-the-tests"
PATIENCE = 20.0  # seconds until a test gives up on something that should take milliseconds

_SERVE = """
import os, signal, socket, sys
sys.path.insert(0, {house!r})
from funcplat.worker import host, supervisor
def count(name):
    with open({directory!r} + "/" + name) as file:
        return int(file.read())
def confine():
    {confine}
listener = socket.socket(fileno={fd})
lifeline = {lifeline}
sys.path.remove({house!r})
supervisor.serve(host.Host(
    listener=listener, concurrency=3, lifeline=lifeline, confine=confine,
    oom_kills=lambda: count("oom_kills"), pids_hits=lambda: count("pids_hits"),
    code_dir={directory!r} + "/pushed/code", scratch={directory!r} + "/scratch",
))
"""


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclasses.dataclass(frozen=True)
class Execution:
    """An answer to /invoke that is an execution."""

    status: str
    output: Any
    log: bytes
    duration: float
    reason: str | None
    message: str
    dropped: int


class Client:
    """One connection."""

    def __init__(self, address: str | tuple[str, int]) -> None:
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.socket.setblocking(True)  # a full backlog is waited for, not an error
        self.socket.connect(address)
        self.socket.settimeout(PATIENCE)
        self.known = False  # the worker needs the secret no more

    def close(self) -> None:
        self.socket.close()

    def send(self, method: str, target: str, body: bytes = b"", **headers: str) -> None:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if not self.known or target != "/invoke":
            fields.setdefault("x-secret", SECRET)
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        lines.append(f"content-length: {len(body)}")
        self.socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def receive(self) -> Answer:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _empty, body = data.partition(b"\r\n\r\n")
        lines = head.decode("ascii").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        self.known = headers.get("x-secret") == "known"
        while len(body) < int(headers["content-length"]):
            body += self._more()
        return Answer(int(lines[0].split()[1]), headers, body)

    def _more(self) -> bytes:
        data = self.socket.recv(1 << 20)
        if not data:
            raise EOFError
        return data

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        self.send(method, target, body, **headers)
        return self.receive()

    def send_invoke(self, value: Any = None, timeout: float = 10, execution: str = "e1") -> None:
        body = json.dumps(value).encode()
        self.send("POST", "/invoke", body, x_timeout=f"{timeout:.9f}", x_execution=execution)

    def receive_execution(self) -> Execution:
        answer = self.receive()
        if answer.status != 200:
            raise AssertionError(answer)
        length = int(answer.headers["x-result-length"])
        return Execution(
            status=answer.headers["x-status"],
            output=json.loads(answer.body[:length]),
            log=answer.body[length:],
            duration=float(answer.headers["x-duration"]),
            reason=answer.headers.get("x-reason"),
            message=urllib.parse.unquote(answer.headers.get("x-message", "")),
            dropped=int(answer.headers.get("x-log-dropped", "0")),
        )

    def invoke(self, value: Any = None, timeout: float = 10, execution: str = "e1") -> Execution:
        self.send_invoke(value, timeout, execution)
        return self.receive_execution()

    def load(self, package: bytes = b"", **fields: Any) -> Answer:
        line = {
            "secret": SECRET,
            "entry": "main.main",
            "concurrency": 3,
            "path": None,
            "import_timeout": 10.0,
            "max_result": 1 << 20,
            "max_log": 1 << 20,
            "environment": {},
            "labels": {"function_id": "f-1", "function_version": 0},
        }
        return self.ask("POST", "/load", json.dumps(line | fields).encode() + b"\n" + package)


class WorkerTestCase(testtools.TestCase):
    """Starts workers and stops them; a worker must survive its test, unless the test ends it."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = tempfile.mkdtemp(prefix="worker-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        for name in ("scratch", "package"):
            os.mkdir(f"{self.directory}/{name}")
        for name in ("oom_kills", "pids_hits"):
            self.count(name, 0)

    def count(self, name: str, value: int) -> None:
        """Set what the kernel is said to have counted."""
        path = pathlib.Path(self.directory, name)
        path.with_suffix(".new").write_text(str(value))
        path.with_suffix(".new").rename(path)

    def write(self, **modules: str) -> str:
        """Write an unpacked package and return its directory."""
        for name, text in modules.items():
            path = pathlib.Path(self.directory, "package", f"{name}.py")
            path.write_text(textwrap.dedent(text))
        return f"{self.directory}/package"

    def start(self, confine: str = "pass", lifeline: int | None = None) -> Client:
        """Start a blank worker; its process is `self.process`, its address `self.address`."""
        self.address = f"{self.directory}/socket"
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(self.address)
        listener.listen(64)
        house = str(WORKER.parents[1])
        code = _SERVE.format(
            house=house, directory=self.directory, confine=confine, fd=listener.fileno(), lifeline=lifeline
        )
        fds = [listener.fileno()] + ([lifeline] if lifeline is not None else [])
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code],
            pass_fds=fds,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.addCleanup(self._stop)
        return self.connect()

    def _stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _out, errors = self.process.communicate(timeout=PATIENCE)
        self.assertEqual((0, b""), (self.process.returncode, errors), "the supervisor did not end well")

    def connect(self) -> Client:
        client = Client(self.address)
        self.addCleanup(client.close)
        return client

    def loaded(self, text: str, **fields: Any) -> Client:
        """A worker with this module ``main`` loaded."""
        client = self.start()
        answer = client.load(path=self.write(main=text), **fields)
        self.assertEqual(200, answer.status, answer)
        return client

    # -- what the outside sees ------------------------------------------------------------------------

    def handlers(self) -> list[int]:
        """The children of the supervisor."""
        return children(self.process.pid)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                self.fail(f"waited in vain for: {what}")
            time.sleep(0.002)

    def assert_gone(self, pid: int) -> None:
        self.wait_for(lambda: not pathlib.Path(f"/proc/{pid}").exists(), f"the end of process {pid}")

    def assert_serves(self, client: Client) -> None:
        """The worker still takes calls on a new connection, and answers on the old one."""
        for one in (client, self.connect()):
            self.assertEqual(200, one.ask("GET", "/ready").status)

    def in_background(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """Run in a thread; the value returned waits for it and gives its result."""
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(function()))
        thread.start()

        def result() -> Any:
            thread.join(PATIENCE)
            return results[0]

        self.addCleanup(thread.join, PATIENCE)
        return result


def children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def package(**modules: str) -> bytes:
    """A ZIP file of modules; ``__`` in a name stands for a slash."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in modules.items():
            archive.writestr(name.replace("__", "/") + ".py", textwrap.dedent(text))
    return buffer.getvalue()


def processes_with(mark: str) -> Iterator[int]:
    """Processes whose command line has the mark."""
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes():
                yield int(path.parts[2])
