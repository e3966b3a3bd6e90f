"""The HTTP endpoint of ``funcplat dev``: hands calls to the main thread and answers with what comes back."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import http
import http.server
import json
import queue
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

from funcplat.cmd import failures

HOST = "127.0.0.1"
LARGEST = 64 * 1024 * 1024  # bytes of a request body


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call: a result in JSON, or a traceback in plain text."""

    ok: bool
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One request to run the function."""

    method: str
    arguments: dict[str, Any]
    outcome: concurrent.futures.Future[Outcome] = dataclasses.field(default_factory=concurrent.futures.Future)


class Server:
    """Listens on this machine in a thread of its own; `calls` gives what arrives."""

    def __init__(self, port: int) -> None:
        """``port`` 0 takes any free one.  Raises UsageFailure where the port is taken."""
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        try:
            self._server = _Listener((HOST, port), self._calls)
        except OSError as error:
            raise failures.UsageFailure(
                f"cannot listen on {HOST}:{port}: {error.strerror}; --port names another port"
            ) from error
        self.url = f"http://{HOST}:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, name="dev-http", daemon=True).start()

    def calls(self, pause: Callable[[], float]) -> Iterator[Call | None]:
        """Calls as they arrive; None after each ``pause()`` seconds without one."""
        while True:
            try:
                yield self._calls.get(timeout=pause())
            except queue.Empty:
                yield None

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Listener(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], calls: queue.SimpleQueue[Call]) -> None:
        self.calls = calls
        super().__init__(address, _Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # PERF(answer): head and body in one packet; two of them cost 40 ms on a kept connection
    disable_nagle_algorithm = True
    server: _Listener

    def do_GET(self) -> None:
        """The query string holds keyword arguments, as strings."""
        query = urllib.parse.urlsplit(self.path).query
        self._run(dict(urllib.parse.parse_qsl(query, keep_blank_values=True)))

    def do_POST(self) -> None:
        """The body is the input of the function, as for an execution on the platform."""
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > LARGEST:
            self._answer(http.HTTPStatus.BAD_REQUEST, "a Content-Length of at most 64 MiB is needed\n")
            self.close_connection = True
            return
        self._run(keywords(self.rfile.read(int(length)).decode(errors="replace")))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the main thread says what it does."""

    def _run(self, arguments: dict[str, Any]) -> None:
        if urllib.parse.urlsplit(self.path).path != "/":
            self._answer(http.HTTPStatus.NOT_FOUND, "the function is at /\n")
        elif not self._is_local():
            # A page of the web must not call functions of whoever looks at it.
            self._answer(http.HTTPStatus.FORBIDDEN, "only callers of this machine are answered\n")
        else:
            call = Call(self.command, arguments)
            self.server.calls.put(call)
            outcome = call.outcome.result()
            status = http.HTTPStatus.OK if outcome.ok else http.HTTPStatus.INTERNAL_SERVER_ERROR
            self._answer(status, outcome.text, "application/json" if outcome.ok else "text/plain")

    def _is_local(self) -> bool:
        origin = self.headers.get("Origin")
        names = [urllib.parse.urlsplit(f"//{self.headers.get('Host', HOST)}").hostname]
        if origin is not None:
            names.append(urllib.parse.urlsplit(origin).hostname)
        return all(name in (HOST, "localhost") for name in names)

    def _answer(self, status: http.HTTPStatus, text: str, content_type: str = "text/plain") -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{content_type}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def keywords(text: str) -> dict[str, Any]:
    """Keyword arguments of an input as the platform takes it: an object, or anything else as one text."""
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if value is None:
        return {}
    return value if isinstance(value, dict) else {"__function_input": text}
