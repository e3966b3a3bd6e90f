"""The load generator where wrk is not: raw sockets and epoll, in a process of its own.

``python -m benchmarks.client CONNECTIONS SECONDS``, with the request as JSON on standard input.
"""

from __future__ import annotations

import json
import re
import select
import socket
import statistics
import sys
import time
import urllib.parse

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Connection:
    """One request at a time."""

    def __init__(self, address: tuple[str, int], data: bytes) -> None:
        self._data = data
        self._received = b""
        self._sent_at = 0.0
        self._socket = socket.create_connection(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = self._socket.fileno()

    def send(self) -> None:
        self._sent_at = time.perf_counter()
        self._socket.sendall(self._data)

    def receive(self) -> tuple[float, bytes] | None:
        """Latency and answer, or None while it is not complete.  Raises ConnectionError."""
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError("the peer closed the connection")
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        found = _LENGTH.search(self._received, 0, max(end, 0))
        if end < 0 or found is None or len(self._received) < end + 4 + int(found[1]):
            return None
        answer, self._received = self._received, b""
        return time.perf_counter() - self._sent_at, answer


def main() -> None:
    count, seconds = int(sys.argv[1]), float(sys.argv[2])
    wanted = json.load(sys.stdin)
    url = urllib.parse.urlsplit(wanted["url"])
    assert url.hostname is not None
    connections = [Connection((url.hostname, url.port or 80), _bytes(url, wanted)) for _ in range(count)]
    started = time.perf_counter()
    start, text = b"HTTP/1.1 %d " % wanted["status"], wanted["text"].encode()
    latencies, wrong = _load({each.fd: each for each in connections}, started + seconds, start, text)
    spans = statistics.quantiles(latencies, n=100, method="inclusive")
    result = {
        "requests": len(latencies),
        "seconds": time.perf_counter() - started,
        "p50": spans[49],
        "p99": spans[98],
        "wrong": wrong,
    }
    print("RESULT", json.dumps(result))


def _bytes(url: urllib.parse.SplitResult, wanted: dict[str, object]) -> bytes:
    body = str(wanted["body"]).encode()
    headers = wanted["headers"]
    assert isinstance(headers, dict)
    lines = [f"POST {url.path or '/'} HTTP/1.1", f"Host: {url.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _load(
    connections: dict[int, Connection], until: float, start: bytes, text: bytes
) -> tuple[list[float], int]:
    latencies, wrong = [], 0
    with select.epoll() as poll:
        for each in connections.values():
            poll.register(each.fd, select.EPOLLIN)
            each.send()
        while time.perf_counter() < until:
            for fd, _ in poll.poll(1.0):
                received = connections[fd].receive()
                if received is not None:
                    latencies.append(received[0])
                    wrong += not (received[1].startswith(start) and text in received[1])
                    connections[fd].send()
    return latencies, wrong


if __name__ == "__main__":
    main()
