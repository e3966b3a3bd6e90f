"""A client of the worker protocol, one connection at a time, for tests.  The platform has its own.

It believes nothing: an answer that is not of the protocol is an error, however well it could be understood.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import socket
import struct
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
MAX_HEAD = 8 * 1024
"""Bytes of the head of an answer, the empty line included."""
MAX_EXPLANATION = 64 * 1024
"""Bytes of the result of a failure."""

MISSING = object()
"""As the value of a field of `WorkerClient.load`: it is left out."""

_LONGEST = 3600.0  # seconds that are waited for an execution, beyond the patience
_END = b"\r\n\r\n"
_STATUS_LINE = re.compile(r"HTTP/1\.1 ([0-9]{3})(?: [ -~]*)?")
_HEADER = re.compile(r"([a-z0-9!#$%&'*+.^_`|~-]+): ([ -~]*)")
_FORBIDDEN = frozenset(("connection", "transfer-encoding", "upgrade"))


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """An answer of a worker."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclasses.dataclass(frozen=True, slots=True)
class Execution:
    """An answer to /invoke with status 200."""

    status: str  # success or failed
    output: Any
    log: bytes
    duration: float  # seconds
    reason: str | None
    message: str
    dropped: int  # bytes of output beyond the cap

    @property
    def outcome(self) -> tuple[str, str | None]:
        """Status and reason."""
        return self.status, self.reason


class WorkerClient:
    """One connection to a worker.

    Methods raise OSError, EOFError where the worker closed it, WorkerError for an answer that breaks a rule.
    """

    def __init__(self, address: base.Address, patience: float = PATIENCE) -> None:
        self.socket = _connected(address, patience)
        self._patience = patience
        self.known = False
        """Whether the worker has said that /invoke needs the secret no more; then none is sent."""

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, method: str, target: str, body: bytes = b"", **headers: str) -> None:
        """Send a request; underscores in the names of headers stand for hyphens."""
        self.socket.settimeout(self._patience)
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        lines.append(f"content-length: {len(body)}")
        self.socket.sendall("\r\n".join(lines).encode() + _END + body)

    def receive(self) -> Answer:
        """Receive one answer, and nothing after it."""
        data = b""
        while _END not in data:
            data += self._more()
            if len(data) > MAX_HEAD and _END not in data[:MAX_HEAD]:
                raise errors.WorkerError(f"the head of an answer is longer than {MAX_HEAD} bytes")
        head, _, first = data.partition(_END)
        status, headers = _parse(head)
        body = bytearray(first)
        while len(body) < int(headers["content-length"]):
            body += self._more()
        if len(body) > int(headers["content-length"]):
            raise errors.WorkerError("an answer is longer than its content-length says")
        if "x-status" in headers:  # of an execution
            self.known = headers.get("x-secret") == "known"
        return Answer(status, headers, bytes(body))

    def _more(self) -> bytes:
        data = self.socket.recv(1 << 20)
        if not data:
            raise EOFError("the worker closed the connection")
        return data

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        """Send a request and receive its answer."""
        self.send(method, target, body, **headers)
        return self.receive()

    # -- the requests of the protocol ---------------------------------------------------------------

    def ready(self) -> Any:
        """GET /ready, parsed.  Raises WorkerError where that is not answered with 200."""
        answer = self.ask("GET", "/ready")
        if answer.status != 200:
            raise errors.WorkerError(f"{answer.status} {answer.body!r}")
        return answer.json()

    def load(self, package: bytes = b"", **fields: Any) -> Answer:
        """POST /load of a package, or with ``path`` of an unpacked one; ``fields`` are those of its line."""
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
        sent = {name: value for name, value in (line | fields).items() if value is not MISSING}
        return self.ask("POST", "/load", json.dumps(sent).encode() + b"\n" + package)

    def drain(self, secret: str = SECRET) -> Answer:
        """POST /drain."""
        return self.ask("POST", "/drain", x_secret=secret)

    def log(self, query: str, secret: str = SECRET) -> Answer:
        """GET /log with this query."""
        return self.ask("GET", f"/log?{query}", x_secret=secret)

    def send_invoke(
        self, value: Any = None, timeout: float = 10.0, secret: str | None = None, execution: str = "e1"
    ) -> None:
        """Send an execution without waiting for its end.

        ``value`` is the input, or as bytes the body; the secret is sent where it is given or needed.
        """
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        headers = {"x_timeout": f"{timeout:.9f}", "x_execution": execution}
        if secret is not None or not self.known:
            headers = {"x_secret": SECRET if secret is None else secret, **headers}
        self.send("POST", "/invoke", body, **headers)
        self.socket.settimeout(self._patience + min(timeout, _LONGEST))

    def invoke(self, value: Any = None, timeout: float = 10.0, execution: str = "e1") -> Execution:
        """Run the function once.  Raises WorkerError where the worker does not run it."""
        self.send_invoke(value, timeout, execution=execution)
        return self.receive_execution()

    def receive_execution(self) -> Execution:
        """Receive the end of an execution.  Raises WorkerError where the worker did not run it."""
        answer = self.receive()
        if answer.status != 200:
            raise errors.WorkerError(f"{answer.status} {answer.body!r}")
        return _execution(answer)


def _connected(address: base.Address, patience: float) -> socket.socket:
    if address.socket is None:
        assert address.host is not None
        assert address.port is not None
        return socket.create_connection((address.host, address.port), patience)
    made = socket.socket(socket.AF_UNIX)
    try:
        # Blocking, with the kernel's timeout: a full backlog is waited for, not an error.
        seconds = struct.pack("ll", math.ceil(patience), 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
        made.connect(address.socket)
        made.settimeout(patience)
    except BaseException:
        made.close()
        raise
    return made


def _parse(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer; raises WorkerError for one that is not of the protocol."""
    status_line, *lines = head.decode("latin-1").split("\r\n")
    status = _STATUS_LINE.fullmatch(status_line)
    if status is None:
        raise errors.WorkerError(f"an answer begins with {status_line!r}")
    headers: dict[str, str] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None or header[1] in headers or header[1] in _FORBIDDEN:
            raise errors.WorkerError(f"an answer has the header line {line!r}")
        headers[header[1]] = header[2]
    if not re.fullmatch("[0-9]{1,10}", headers.get("content-length", "")):
        raise errors.WorkerError(f"an answer has no proper content-length: {headers}")
    return int(status[1]), headers


def _execution(answer: Answer) -> Execution:
    headers = answer.headers
    try:
        length = int(headers["x-result-length"])
        execution = Execution(
            status=headers["x-status"],
            output=json.loads(answer.body[:length], parse_constant=_no_json),
            log=answer.body[length:],
            duration=float(headers["x-duration"]),
            reason=headers.get("x-reason"),
            message=urllib.parse.unquote(headers.get("x-message", ""), errors="strict"),
            dropped=int(headers.get("x-log-dropped", "0")),
        )
    except (KeyError, ValueError) as error:
        raise errors.WorkerError(f"an execution has the headers {headers}: {error!r}") from error
    _check(execution, length, headers)
    return execution


def _check(execution: Execution, length: int, headers: Mapping[str, str]) -> None:
    """Raise WorkerError for an execution that contradicts itself."""
    failed = execution.status == "failed"
    for wrong, what in (
        (execution.status not in ("success", "failed"), "a status that is none"),
        (execution.duration < 0, "a negative duration"),
        (failed and not isinstance(execution.output, str), "a failure whose result is no text"),
        (failed and length > MAX_EXPLANATION, "a failure whose result is too long"),
        (failed and not execution.reason, "a failure without a reason"),
        (bool(execution.reason) != bool(execution.message), "a reason without a message"),
        (execution.reason is not None and execution.reason not in _REASONS, "a reason that does not exist"),
        (headers.get("x-log-dropped") == "0", "x-log-dropped though nothing was"),
    ):
        if wrong:
            raise errors.WorkerError(f"an execution has {what}: {headers}")


_REASONS = frozenset(str(code) for code in errors.ReasonCode)


def _no_json(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


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


def package(files: Mapping[str, str | bytes]) -> bytes:
    """A ZIP file of files by their names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()
