"""A worker whose function is always the same: it returns its input.

``python -m funcplat_echo.worker RECORD SOCKET CONCURRENCY READY`` speaks the worker protocol on a Unix
socket.  As long as the process lives it holds the lock of its record, an empty file.  So everybody can ask
the kernel which process the worker is, and a second worker of the same record cannot start.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import json
import os
import pathlib
import signal
import socketserver
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any


class Worker:
    """What the worker knows: its revision, and which executions run."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.secret: str | None = None
        self.draining = False
        self.running: dict[str, bytes] = {}  # logs by execution id
        self.changed = threading.Condition()

    def state(self) -> dict[str, Any]:
        state = "draining" if self.draining else "blank" if self.secret is None else "loaded"
        return {"state": state, "busy": len(self.running), "concurrency": self.concurrency}

    def load(self, body: bytes) -> tuple[int, str]:
        """Take a revision: line, line feed, package.  The package is not looked at."""
        with self.changed:
            if self.secret is not None:
                return 409, "this worker has its revision"
            try:
                self.secret = str(json.loads(body.partition(b"\n")[0])["secret"])
            except (ValueError, KeyError, TypeError) as error:
                return 400, f"the first line cannot be used: {error!r}"
            return 200, ""

    def refusal(self, secret: str | None) -> int | None:
        """The status that says why a call does not run, None where it does."""
        if self.secret is None:
            return 409
        if secret != self.secret:
            return 403
        if self.draining:
            return 503
        return 429 if len(self.running) >= self.concurrency else None

    @contextlib.contextmanager
    def execution(self, name: str, secret: str | None, log: bytes) -> Iterator[int | None]:
        """A place among the running executions, or the status of the refusal."""
        with self.changed:
            refusal = self.refusal(secret)
            if refusal is None:
                self.running[name] = log
        try:
            yield refusal
        finally:
            with self.changed:
                if refusal is None:
                    del self.running[name]
                self.changed.notify_all()

    def drain(self) -> None:
        with self.changed:
            self.draining = True
            self.changed.notify_all()

    def wait_until_drained(self) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.draining and not self.running)


class Handler(http.server.BaseHTTPRequestHandler):
    """The worker protocol over one connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/ready":
            return self.answer(200, json.dumps(self.server.worker.state()).encode())
        values = dict(urllib.parse.parse_qsl(query))
        log = self.server.worker.running.get(values.get("execution", ""))
        if path != "/log" or log is None:
            return self.answer(404)
        return self.answer(200, log[int(values.get("offset", 0)) :])

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/load":
            status, message = self.server.worker.load(body)
            self.answer(status, json.dumps({"message": message}).encode())
        elif self.path == "/invoke":
            self.invoke(body)
        elif self.path == "/drain" and self.headers["x-secret"] == self.server.worker.secret:
            self.server.worker.drain()
            self.answer(200)
        else:
            self.answer(403 if self.path == "/drain" else 404)

    def invoke(self, body: bytes) -> None:
        """Return the input.  One that has ``seconds`` is returned so much later, to try timeouts with."""
        log = b"echo of " + body + b"\n"
        with self.server.worker.execution(
            self.headers["x-execution"], self.headers["x-secret"], log
        ) as refusal:
            if refusal is not None:
                return self.answer(refusal)
            value, timeout = json.loads(body), float(self.headers["x-timeout"])
            seconds = float(value.get("seconds", 0)) if isinstance(value, dict) else 0.0
            threading.Event().wait(min(seconds, timeout))
            headers = {"x-status": "success", "x-duration": f"{min(seconds, timeout):.3f}"}
            if seconds > timeout:
                body = b'"Function execution timeout."'
                headers |= {"x-status": "failed", "x-reason": "timeout", "x-message": "It was too slow."}
            return self.answer(200, body + log, {**headers, "x-result-length": str(len(body))})

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        for name, value in {"content-length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the worker's log is for what goes wrong."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: str, worker: Worker) -> None:
        super().__init__(address, Handler)
        self.worker = worker


def main(record: str, address: str, concurrency: str, ready: str) -> None:
    # The first process ends at once, so that the worker is nobody's child and outlives the server.
    if os.fork():
        os._exit(0)
    with pathlib.Path(record).open("r+") as life:
        try:
            fcntl.lockf(life, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            os.write(int(ready), b"+")  # another start of the same worker was faster
            return
        pathlib.Path(address).unlink(missing_ok=True)
        worker = Worker(int(concurrency))
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=worker.drain).start())
        with Server(address, worker) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            os.write(int(ready), b"+")
            os.close(int(ready))
            worker.wait_until_drained()
            server.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
