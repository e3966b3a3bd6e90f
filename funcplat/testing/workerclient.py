"""A client of the worker protocol, one connection at a time, for tests.  The platform has its own."""

from __future__ import annotations

import dataclasses
import io
import json
import socket
import time
import urllib.parse
import zipfile
from collections.abc import Mapping
from typing import Any

from funcplat import errors
from funcplat.drivers import base

SECRET = "a-secret-of-the-tests"  # noqa: S105
PATIENCE = 30.0
"""Seconds that an answer may take."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """An answer of a worker."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Execution:
    """An answer to /invoke with status 200."""

    status: str  # success or failed
    output: Any
    log: bytes
    reason: str | None
    message: str


class WorkerClient:
    """One connection to a worker.  Raises OSError, EOFError (the worker closed it)."""

    def __init__(self, address: base.Address, patience: float = PATIENCE) -> None:
        if address.socket is not None:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(patience)
            self._socket.connect(address.socket)
        else:
            assert address.host is not None
            assert address.port is not None
            self._socket = socket.create_connection((address.host, address.port), patience)

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, method: str, target: str, body: bytes = b"", **headers: str) -> None:
        """Send a request; underscores in the names of headers stand for hyphens."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {target} HTTP/1.1", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        self._socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def receive(self) -> Answer:
        """Receive one answer."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode("ascii").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(headers["content-length"]):
            body += self._more()
        return Answer(int(status.split()[1]), headers, body)

    def _more(self) -> bytes:
        data = self._socket.recv(1 << 16)
        if not data:
            raise EOFError("the worker closed the connection")
        return data

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        """Send a request and receive its answer."""
        self.send(method, target, body, **headers)
        return self.receive()

    def load(self, package: bytes = b"", **fields: Any) -> Answer:
        """POST /load of a package, or with ``path`` of an unpacked one."""
        line: dict[str, Any] = {
            "secret": SECRET,
            "entry": "main.main",
            "concurrency": 3,
            "path": None,
            "import_timeout": 30.0,
            "max_result": 1 << 20,
            "max_log": 1 << 20,
            "environment": {},
            "labels": {},
        }
        return self.ask("POST", "/load", json.dumps(line | fields).encode() + b"\n" + package)

    def send_invoke(self, value: Any = None, timeout: float = 10.0, secret: str = SECRET) -> None:
        """Send an execution without waiting for its end."""
        body = json.dumps(value).encode()
        self.send(
            "POST", "/invoke", body, x_secret=secret, x_execution="of-the-tests", x_timeout=f"{timeout:f}"
        )

    def invoke(self, value: Any = None, timeout: float = 10.0) -> Execution:
        """Run the function once.  Raises WorkerError where the worker does not run it."""
        self.send_invoke(value, timeout)
        return self.receive_execution()

    def receive_execution(self) -> Execution:
        """Receive the end of an execution.  Raises WorkerError where the worker did not run it."""
        answer = self.receive()
        if answer.status != 200:
            raise errors.WorkerError(f"{answer.status} {answer.body!r}")
        length = int(answer.headers["x-result-length"])
        return Execution(
            status=answer.headers["x-status"],
            output=json.loads(answer.body[:length]),
            log=answer.body[length:],
            reason=answer.headers.get("x-reason"),
            message=urllib.parse.unquote(answer.headers.get("x-message", "")),
        )


def wait_until_ready(address: base.Address, patience: float = PATIENCE) -> None:
    """Return when GET /ready is answered with 200.  Raises WorkerError."""
    end = time.monotonic() + patience
    while True:
        try:
            with WorkerClient(address, patience) as client:
                answer = client.ask("GET", "/ready")
        except (OSError, EOFError) as error:
            problem = repr(error)
        else:
            if answer.status == 200:
                return
            problem = str(answer)
        if time.monotonic() >= end:
            raise errors.WorkerError(f"not ready after {patience} s: {problem}")
        time.sleep(0.02)  # a driver may return before anybody listens; the platform polls likewise


def package(files: Mapping[str, str]) -> bytes:
    """A ZIP file of text files, by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()
