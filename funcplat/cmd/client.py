"""The HTTP client of the command line: one kept connection, standard library only.

# PERF(start): importing httpx costs 0.24 s with the packages that a server has installed, more than
# all the rest of ``funcplat function list``; http.client costs 0.04 s.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import logging
import socket
import ssl
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from funcplat.cmd import failures

LOG = logging.getLogger(__name__)
CHUNK = 256 * 1024
PATIENCE = 60.0
"""Seconds that a server may be silent where neither the user nor the request says otherwise."""

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Body:
    """A request body whose length is known before it is sent."""

    content_type: str
    length: int  # bytes
    chunks: Iterable[bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer of the server."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    content: bytes

    def json(self) -> Any:
        """The decoded body.  Raises PlatformFailure for what is not JSON."""
        try:
            return json.loads(self.content)
        except ValueError as error:
            raise failures.PlatformFailure(
                "the server's answer is not JSON; is there a funcplat server? "
                f"It begins: {_beginning(self.content)}"
            ) from error


@dataclasses.dataclass(frozen=True, slots=True)
class Download:
    """An answer whose body is read bit by bit."""

    length: int | None  # bytes, where the server says it
    chunks: Iterator[bytes]


class Client:
    """Speaks to one server.  Not thread-safe."""

    def __init__(self, endpoint: str, token: str | None = None, timeout: float | None = None) -> None:
        """``timeout``: seconds that the server may be silent, over what each request would allow."""
        self.endpoint = endpoint.rstrip("/").removesuffix("/v1")
        self._timeout = timeout
        self._headers = {"Accept": "*/*", "User-Agent": "funcplat"}
        if token:
            self._headers["X-Auth-Token"] = token
        self._url = urllib.parse.urlsplit(self.endpoint)
        self._connection = self._new_connection()
        self._used = False

    def close(self) -> None:
        """Close the connection.  Idempotent."""
        self._connection.close()

    def get(self, path: str, query: Mapping[str, Any] | None = None, timeout: float | None = None) -> Answer:
        """GET; entries of ``query`` that are None are left out."""
        return self.request("GET", path, query=query, timeout=timeout)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Body | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """One request and its whole answer.  Raises a Failure for an error status or no answer."""
        target = self._target(path, query)
        started = time.monotonic()
        patience = self._timeout or timeout or PATIENCE
        with self._translated(patience):
            response = self._send(method, target, body, patience)
            answer = Answer(response.status, _headers(response), response.read())
        LOG.debug("%s %s: %d in %.3f s", method, target, answer.status, time.monotonic() - started)
        if answer.status >= 400:
            raise _failure(answer)
        return answer

    def download(self, path: str, query: Mapping[str, Any]) -> Download:
        """GET of many bytes.  Raises like `request`; the chunks must be read before the next request."""
        patience = self._timeout or PATIENCE
        with self._translated(patience):
            response = self._send("GET", self._target(path, query), None, patience)
            if response.status >= 400:
                raise _failure(Answer(response.status, _headers(response), response.read()))
        return Download(response.length, self._chunks(response, patience))

    def _chunks(self, response: http.client.HTTPResponse, patience: float) -> Iterator[bytes]:
        with self._translated(patience):
            while chunk := response.read(CHUNK):
                yield chunk
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)

    def _new_connection(self) -> http.client.HTTPConnection:
        try:
            host, port = self._url.hostname, self._url.port
        except ValueError as error:
            raise failures.UsageFailure(f"endpoint {self.endpoint!r}: {error}") from error
        if self._url.scheme not in ("http", "https") or not host:
            raise failures.UsageFailure(
                f"endpoint {self.endpoint!r} is not a URL such as http://127.0.0.1:7070"
            )
        if self._url.scheme == "https":
            return http.client.HTTPSConnection(host, port)
        return http.client.HTTPConnection(host, port)

    def _target(self, path: str, query: Mapping[str, Any] | None) -> str:
        given = {key: value for key, value in (query or {}).items() if value is not None}
        suffix = f"?{urllib.parse.urlencode(given)}" if given else ""
        return f"{self._url.path}{path}{suffix}"

    def _send(self, method: str, target: str, body: Body | None, timeout: float) -> http.client.HTTPResponse:
        reused = self._used and self._connection.sock is not None
        try:
            return self._exchange(method, target, body, timeout)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            # A server may close a kept connection at any time.  Only what changes nothing is repeated.
            if not (reused and method == "GET"):
                raise
            self._connection.close()
            return self._exchange(method, target, body, timeout)

    def _exchange(
        self, method: str, target: str, body: Body | None, timeout: float
    ) -> http.client.HTTPResponse:
        connection = self._connection
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        headers = dict(self._headers)
        if body is not None:
            headers |= {"Content-Type": body.content_type, "Content-Length": str(body.length)}
        elif method in ("POST", "PUT"):
            headers["Content-Length"] = "0"
        self._used = True
        try:
            connection.request(method, target, body.chunks if body else None, headers)
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses an upload answers before it has read all of it.
            if connection.sock is None:
                raise
        return connection.getresponse()

    @contextlib.contextmanager
    def _translated(self, timeout: float) -> Iterator[None]:
        with contextlib.ExitStack() as broken:
            # After any error the connection is in an unknown state.
            broken.callback(self._connection.close)
            try:
                yield
            except (OSError, http.client.HTTPException) as error:
                raise failures.ConnectionFailure(self._explained(error, timeout)) from error
            broken.pop_all()

    def _explained(self, error: Exception, timeout: float) -> str:
        endpoint = self.endpoint
        match error:
            case ConnectionRefusedError():
                return (
                    f"no server answers at {endpoint}: start one with `funcplat serve`, "
                    "or name another with --endpoint"
                )
            case TimeoutError():
                return f"the server at {endpoint} was silent for {timeout:g} s; --request-timeout allows more"
            case socket.gaierror():
                return f"the host name in {endpoint} is not known: {error.strerror}"
            case ssl.SSLError():
                return f"no TLS connection to {endpoint}: {error}"
            case http.client.RemoteDisconnected() | ConnectionError():
                return f"the server at {endpoint} closed the connection without an answer"
            case http.client.IncompleteRead():
                return f"the server at {endpoint} closed the connection in the middle of its answer"
            case OSError():
                return f"no connection to {endpoint}: {error.strerror or error}"
            case _:
                return f"what answers at {endpoint} does not speak HTTP"


def json_body(value: Any) -> Body:
    """A JSON request body."""
    content = json.dumps(value).encode()
    return Body("application/json", len(content), [content])


def form_body(fields: Mapping[str, str]) -> Body:
    """An ``application/x-www-form-urlencoded`` request body."""
    content = urllib.parse.urlencode(fields).encode()
    return Body("application/x-www-form-urlencoded", len(content), [content])


def _headers(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _failure(answer: Answer) -> failures.Failure:
    try:
        fault = json.loads(answer.content)
    except ValueError:
        fault = None
    if not isinstance(fault, dict):
        fault = {"message": f"HTTP {answer.status}: {_beginning(answer.content)}"}
    code = str(fault.get("code") or "")
    message = fault.get("message") or fault.get("faultstring") or f"HTTP {answer.status}"
    kind = failures.by_status(answer.status, code)
    return kind(str(message), code, str(fault.get("request_id") or ""))


def _beginning(content: bytes) -> str:
    return repr(content[:80].decode(errors="replace"))
