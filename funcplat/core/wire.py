"""The platform's synchronous side of the worker protocol: what core says to a worker, once in its life.

Calls of functions go another way (`funcplat.invoke.client`).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from funcplat import errors
from funcplat.drivers.base import Address


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("worker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def load(
    address: Address, body: Mapping[str, Any], package: Iterable[bytes], size: int, deadline: float
) -> None:
    """Give a blank worker its revision: ``size`` bytes of ``package``, none where the body has a path.

    Raises WorkerError.
    """
    head = json.dumps(body).encode() + b"\n"
    with _connection(address, deadline) as connection:
        connection.putrequest("POST", "/load", skip_host=True, skip_accept_encoding=True)
        connection.putheader("content-length", str(len(head) + size))
        connection.endheaders(head)
        for chunk in package:
            connection.send(chunk)
        _expect_ok(connection, "/load")


def drain(address: Address, secret: str, deadline: float) -> None:
    """From its return on the worker refuses calls; raises WorkerError where it cannot be reached."""
    with _connection(address, deadline) as connection:
        _request(connection, "POST", "/drain", secret)
        _expect_ok(connection, "/drain")


def busy(address: Address, deadline: float) -> int:
    """How many executions the worker runs; raises WorkerError where it cannot be reached."""
    with _connection(address, deadline) as connection:
        _request(connection, "GET", "/ready", None)
        return int(json.loads(_expect_ok(connection, "/ready"))["busy"])


@contextlib.contextmanager
def _connection(address: Address, deadline: float) -> Iterator[http.client.HTTPConnection]:
    connection = (
        _UnixConnection(address.socket, deadline)
        if address.socket is not None
        else http.client.HTTPConnection(str(address.host), address.port, timeout=deadline)
    )
    try:
        yield connection
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise errors.WorkerError(f"the worker does not answer: {type(error).__name__}: {error}") from error
    finally:
        connection.close()


def _request(connection: http.client.HTTPConnection, method: str, path: str, secret: str | None) -> None:
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    connection.putheader("content-length", "0")
    if secret is not None:
        connection.putheader("x-secret", secret)
    connection.endheaders()


def _expect_ok(connection: http.client.HTTPConnection, path: str) -> bytes:
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        text = body[:500].decode("utf-8", "replace")
        raise errors.WorkerError(f"the worker answered {answer.status} to {path}: {text}")
    return body
