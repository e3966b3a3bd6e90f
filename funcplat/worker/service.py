"""The requests of the worker protocol."""

from __future__ import annotations

import _operator
import dataclasses
import functools
import json
import os
import pathlib
import re
from collections.abc import Callable
from typing import BinaryIO

from funcplat.worker import bodies, connection, host, http, load, loop, pool

MAX_CONNECTIONS = 512
"""Open connections at most.  Beyond, one that has never shown the secret gives way."""

# What hmac.compare_digest is, without OpenSSL, which would cost every worker's memory.
_equal: Callable[[bytes, bytes], bool] = _operator._compare_digest

_EXECUTION = re.compile(rb"[A-Za-z0-9_-]{1,64}")
_TIMEOUT = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_LOG = re.compile(rb"execution=([A-Za-z0-9_-]{1,64})(?:&offset=([0-9]{1,15}))?")
_METHODS = {
    b"/ready": b"GET",
    b"/load": b"POST",
    b"/invoke": b"POST",
    b"/log": b"GET",
    b"/cancel": b"POST",
    b"/drain": b"POST",
}


class Service:
    """Answers requests; the application of every `Connection`."""

    def __init__(self, surroundings: host.Host, events: loop.Loop) -> None:
        self._host = surroundings
        self._loop = events
        self._connections: dict[connection.Connection, None] = {}
        self._loading = False
        self._draining = False
        self._pool: pool.Pool | None = None
        self._secret = b""
        self._concurrency = surroundings.concurrency

    # -- connections --------------------------------------------------------------------------------

    def accept(self, events: int) -> None:
        """The listener is ready."""
        try:
            # PERF: not accept(), whose socket object makes enumeration members.
            fd, _address = self._host.listener._accept()  # type: ignore[attr-defined]
        except (BlockingIOError, ConnectionError):
            return
        except OSError:  # out of descriptors or memory
            self._make_room(len(self._connections))
            return
        self._make_room(MAX_CONNECTIONS)
        self._connections[connection.Connection(self._loop, fd, self)] = None

    def closed(self, connection: connection.Connection) -> None:
        self._connections.pop(connection, None)

    def _may_lend(self) -> bool:
        """Whether every client could have a handler of its own."""
        return len(self._connections) <= self._concurrency and not self._draining

    def _make_room(self, limit: int) -> None:
        if self._connections and len(self._connections) >= limit:
            oldest = next(iter(self._connections))
            next((peer for peer in self._connections if not peer.trusted), oldest).close()

    def end(self) -> None:
        """Kill everything that runs."""
        if self._pool is not None:
            self._pool.end()

    # -- requests -----------------------------------------------------------------------------------

    def serve(self, connection: connection.Connection, head: http.Head, body: bytes) -> None:
        line, headers, _length = head
        if line == b"POST /invoke":
            refusal = self._judge_invoke(connection, headers)
            if refusal is None:
                self._invoke(connection, headers, body)
            else:
                connection.answer(refusal)
        elif line == b"POST /load":
            sink = self._receive_package(len(body))
            sink.write(body)
            sink.done(connection)
        elif body:
            connection.refuse(400, "this request has no body")
        else:
            connection.answer(self._answer(connection, line, headers))

    def receive(self, connection: connection.Connection, head: http.Head) -> connection.Sink | None:
        line, headers, length = head
        if line == b"POST /invoke" and length <= http.MAX_INPUT:
            refusal = self._judge_invoke(connection, headers)
            if refusal is not None:
                return bodies.Skip(refusal)
            return bodies.Memory(functools.partial(self._input_received, headers))
        if line == b"POST /load" and length <= http.MAX_LOAD:
            return self._receive_package(length)
        if line in (b"POST /invoke", b"POST /load"):
            connection.refuse(413, "the body is larger than a worker takes")
        else:
            connection.refuse(400, "this request has no body")
        return None

    def _answer(self, connection: connection.Connection, line: bytes, headers: dict[bytes, bytes]) -> bytes:
        method, target = line.split(b" ", 1)
        path, _mark, query = target.partition(b"?")
        if path not in _METHODS or (query and path not in (b"/log", b"/cancel")):
            return http.answer(404, b"no such path")
        if method != _METHODS[path]:
            return http.answer(405, b"wrong method")
        if path == b"/ready":
            return self._ready()
        refusal = self._judge(connection, headers)
        if refusal is not None:
            return refusal
        if path == b"/cancel":
            return self._cancel(query)
        return self._drain() if path == b"/drain" else self._log(query)

    def _ready(self) -> bytes:
        state = "draining" if self._draining else "blank" if self._pool is None else "loaded"
        busy = 0
        if self._pool is not None:
            # Who drains it waits for nothing to run: what was lent counts until it has come back.
            busy = self._pool.held if self._draining else self._pool.occupied
        body = json.dumps({"state": state, "busy": busy, "concurrency": self._concurrency})
        return http.answer(200, body.encode("ascii"))

    def _drain(self) -> bytes:
        self._draining = True
        if self._pool is not None:
            self._pool.recall()
        return http.answer(200)

    def _log(self, query: bytes) -> bytes:
        fields = _LOG.fullmatch(query)
        if fields is None:
            return http.answer(400, b"the query is not execution=ID&offset=N")
        log = self._pool.output_of(fields[1]) if self._pool is not None else None
        if log is None:
            return http.answer(404, b"no such execution runs here")
        dropped = b"x-log-dropped: %d\r\n" % log.dropped if log.dropped else b""
        return http.answer(200, bytes(log.data[int(fields[2] or 0) :]), dropped)

    def _cancel(self, query: bytes) -> bytes:
        fields = _LOG.fullmatch(query)
        if fields is None:
            return http.answer(400, b"the query is not execution=ID")
        found = self._pool is not None and self._pool.cancel(fields[1])
        return http.answer(200, b'{"cancelled": true}' if found else b'{"cancelled": false}')

    # -- invoke -------------------------------------------------------------------------------------

    def _judge(self, connection: connection.Connection, headers: dict[bytes, bytes]) -> bytes | None:
        if self._pool is None:
            return http.answer(409, b"nothing is loaded yet")
        if not _equal(headers.get(b"x-secret", b""), self._secret):
            return http.answer(403, b"x-secret is wrong")
        connection.trusted = True
        return None

    def _judge_invoke(self, connection: connection.Connection, headers: dict[bytes, bytes]) -> bytes | None:
        if b"x-secret" in headers or not connection.trusted:
            refusal = self._judge(connection, headers)
            if refusal is not None:
                return refusal
        if self._draining:
            return http.answer(503, b"the worker drains")
        if self._pool is not None and self._pool.occupied >= self._concurrency:
            return http.answer(429, b"as many executions run as may")
        if _EXECUTION.fullmatch(headers.get(b"x-execution", b"")) is None:
            return http.answer(400, b"x-execution is missing or malformed")
        timeout = headers.get(b"x-timeout", b"")
        if _TIMEOUT.fullmatch(timeout) is None or float(timeout) <= 0:
            return http.answer(400, b"x-timeout is not a positive decimal")
        return None

    def _invoke(self, connection: connection.Connection, headers: dict[bytes, bytes], body: bytes) -> None:
        assert self._pool is not None
        self._pool.run(connection, headers[b"x-execution"], float(headers[b"x-timeout"]), body)

    def _input_received(
        self, headers: dict[bytes, bytes], connection: connection.Connection, body: bytes
    ) -> None:
        # Judged again: others may have taken the room while the body came in.
        refusal = self._judge_invoke(connection, headers)
        if refusal is not None:
            connection.answer(refusal)
        else:
            self._invoke(connection, headers, body)

    # -- load ---------------------------------------------------------------------------------------

    def _receive_package(self, length: int) -> connection.Sink:
        if self._loading or self._pool is not None:
            return bodies.Skip(http.answer(409, b"a worker serves one revision for its life"))
        self._loading = True
        directory = pathlib.Path(self._host.code_dir).parent
        return bodies.Package(length, directory, self._load, self._abandon_load, self._fail_load)

    def _abandon_load(self) -> None:
        self._loading = False

    def _fail_load(self, connection: connection.Connection, error: OSError) -> None:
        self._loading = False
        connection.answer(_unusable(f"the package cannot be stored: {error.strerror}"))

    def _load(self, connection: connection.Connection, body: BinaryIO) -> None:
        self._loading = False
        try:
            secret, revision = self._take(body)
        except load.LoadError as error:
            connection.answer(_unusable(str(error)))
            return
        self._secret = secret
        self._concurrency = revision.concurrency
        self._pool = pool.Pool(self._host, self._loop, revision, self._may_lend)
        connection.trusted = True
        connection.answer(http.answer(200))
        self._pool.start()

    def _take(self, body: BinaryIO) -> tuple[bytes, load.Revision]:
        line = body.readline(load.MAX_LINE + 1)
        if len(line) > load.MAX_LINE or not line.endswith(b"\n"):
            raise load.LoadError(f"the first line is longer than {load.MAX_LINE} bytes or has no end")
        secret, revision = load.parse_line(line, self._host.concurrency, self._host.carried)
        rest = body.read(1)
        if revision.path is None:
            if not rest:
                raise load.LoadError("there is neither a path nor a package")
            # A ZIP file is found from its end: the line before it does not disturb.
            load.unpack(body, self._host.code_dir)
            revision = dataclasses.replace(revision, path=self._host.code_dir)
        elif rest:
            raise load.LoadError("there is a path and a package")
        elif not os.path.isdir(revision.path):  # noqa: PTH112
            raise load.LoadError(f"{revision.path!r} is not a directory of this worker")
        return secret, revision


def _unusable(message: str) -> bytes:
    return http.answer(400, json.dumps({"message": message}).encode("ascii"))
