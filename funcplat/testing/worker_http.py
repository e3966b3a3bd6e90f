"""The transport of the worker protocol, as tests."""

from __future__ import annotations

import socket
import time

from funcplat.testing.worker_case import GONE, WorkerCase
from funcplat.testing.workerclient import MAX_HEAD, SECRET, WorkerClient

MAX_INPUT = 16 << 20
"""Bytes of the body of /invoke."""
MAX_LOAD = (64 << 20) + (1 << 20)
"""Bytes of the body of /load."""

_BROKEN = (
    b"\r\n\r\n",
    b"GET /ready HTTP/1.0\r\ncontent-length: 0\r\n\r\n",
    b"GET /ready\r\ncontent-length: 0\r\n\r\n",
    b"PUT /ready HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
    b"get /ready HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
    b"GET  /ready HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
    b"GET ready HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
    b"GET /re ady HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
    b"GET /ready HTTP/1.1\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length:\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length: +1\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length: 1_0\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length: 0x0\r\n\r\n",
    b"GET /ready HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\nX-Secret: x\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\ncontent-length: 0\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\nx: a\r\nx: a\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\nexpect: 100-continue\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\nupgrade: h2c\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\n folded\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\nno colon\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\n: no name\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length : 0\r\n\r\n",
    b"GET /ready HTTP/1.1\ncontent-length: 0\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\nx: a\nb: c\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\nx: a\rb\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\nx: a\x00b\r\n\r\n",
    b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\nx: \xc3\xa9\r\n\r\n",
    b"GET /ready HTTP/1.1\r\nx: " + b"y" * 9000,
    # requests that have no body
    b"GET /ready HTTP/1.1\r\ncontent-length: 1\r\n\r\nx",
    b"GET /ready HTTP/1.1\r\ncontent-length: 9\r\n\r\nx",
    b"GET /log?execution=e HTTP/1.1\r\ncontent-length: 1\r\n\r\nx",
    b"POST /drain HTTP/1.1\r\ncontent-length: 1\r\n\r\nx",
)


class HttpTests(WorkerCase):
    """Everything in "Transport" of the page "The worker protocol"."""

    def test_a_connection_serves_one_request_after_the_other(self) -> None:
        client = self.start()
        for _ in range(3):
            self.assertEqual("blank", client.ready()["state"])
        self.assertEqual(404, client.ask("GET", "/nothing").status)
        self.assertEqual(200, client.load(self.package()).status)
        self.assert_serves(client, client, client)

    def test_requests_that_break_the_rules_get_400_and_are_cut_off(self) -> None:
        client = self.loaded()
        for data in _BROKEN:
            with self.connect() as broken:
                broken.socket.sendall(data)
                self.assertEqual(400, broken.receive().status, data)
                self.assert_cut_off(broken)
        self.assert_serves(client)

    def test_a_request_that_comes_too_early_is_not_served(self) -> None:
        client = self.loaded()
        request = b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
        for data in (request * 2, request + request[:9]):
            with self.connect() as broken:
                broken.socket.sendall(data)
                statuses = self._statuses(broken)
                self.assertIn(statuses, ([400], [200], [200, 400]), data)
        self.assert_serves(client)

    def _statuses(self, client: WorkerClient) -> list[int]:
        """The answers on a connection until its end."""
        data = b""
        try:
            while more := client.socket.recv(1 << 16):
                data += more
        except ConnectionError:
            pass
        return [int(line[9:12]) for line in data.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]

    def test_a_head_may_have_8_kib_and_no_more(self) -> None:
        self.start()
        start, end = b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\nx-filler: ", b"\r\n\r\n"
        for size, status in ((MAX_HEAD, 200), (MAX_HEAD + 1, 400)):
            with self.connect() as client:
                client.socket.sendall(start + b"x" * (size - len(start + end)) + end)
                self.assertEqual(status, client.receive().status, size)

    def test_a_body_over_the_limit_is_refused_unread(self) -> None:
        client = self.start()
        self._assert_too_large("/load", MAX_LOAD)
        self.assertEqual(200, client.load(self.package()).status)
        self._assert_too_large("/invoke", MAX_INPUT)
        self.assert_serves(client)

    def _assert_too_large(self, target: str, limit: int) -> None:
        head = f"POST {target} HTTP/1.1\r\nx-secret: {SECRET}\r\nx-execution: e\r\nx-timeout: 1\r\n"
        for begun in (0, 100_000):
            with self.connect() as client:
                client.socket.sendall(f"{head}content-length: {limit + 1}\r\n\r\n".encode() + b" " * begun)
                self.assertEqual(413, client.receive().status)
                self.assert_cut_off(client)

    def test_paths_and_methods_that_do_not_exist_are_said_so(self) -> None:
        client = self.start()
        for method, target, status in (
            ("GET", "/", 404),
            ("GET", "/ready/", 404),
            ("GET", "/ready?x=1", 404),
            ("POST", "/invoke?execution=e1", 404),
            ("POST", "/nothing", 404),
            ("POST", "/ready", 405),
            ("GET", "/load", 405),
            ("GET", "/invoke", 405),
            ("POST", "/log", 405),
            ("GET", "/drain", 405),
        ):
            self.assertEqual(status, client.ask(method, target).status, (method, target))

    def test_a_request_may_come_byte_by_byte(self) -> None:
        client = self.loaded()
        if self.address.socket is None:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in _invoke(b'{"steps": [["value", 5]]}'):
            client.socket.sendall(bytes((byte,)))
        self.assertEqual(5, client.receive_execution().output)

    def test_a_request_that_is_not_complete_holds_nobody_up(self) -> None:
        client = self.loaded(concurrency=1)
        request = _invoke(b'{"steps": [["value", 3]]}')
        begun = {length: self.connect() for length in (9, len(request) - 9)}
        for length, other in begun.items():
            other.ready()
            other.socket.sendall(request[:length])
        for _ in range(2):  # so that the worker has seen what was sent before
            client.ready()
        self.assert_serves(client)
        for length, other in begun.items():
            other.socket.sendall(request[length:])
            self.assertEqual(3, other.receive_execution().output)

    def test_bytes_during_a_call_cut_the_client_off_and_the_function_ends(self) -> None:
        client = self.loaded()
        other = self.begin(client, ["sleep", 0.4], ["save", "done", "yes"])
        client.socket.sendall(b"x")
        self.assert_cut_off(client)
        self._assert_done(other)

    def test_a_client_that_closes_its_sending_side_is_cut_off(self) -> None:
        client = self.loaded()
        other = self.begin(client, ["sleep", 0.4], ["save", "done", "yes"])
        client.socket.shutdown(socket.SHUT_WR)
        self.assert_cut_off(client)
        self._assert_done(other)
        idle = self.connect()
        idle.socket.shutdown(socket.SHUT_WR)
        self.assert_cut_off(idle)

    def test_a_client_that_goes_away_does_not_end_the_function(self) -> None:
        client = self.loaded()
        other = self.begin(client, ["sleep", 0.4], ["save", "done", "yes"])
        client.close()
        self._assert_done(other)

    def _assert_done(self, client: WorkerClient) -> None:
        self.wait_for(lambda: self.value(client, ["ask", "cat", "done"]) == "yes", "the function's end")
        self.wait_for(lambda: client.ready()["busy"] == 0, "an idle worker")
        self.assert_serves(client)

    def test_a_client_that_reads_slowly_gets_all_and_holds_nobody_up(self) -> None:
        client = self.loaded(concurrency=1, max_result=6_000_000)
        for size in (1_000_000, 5_000_000, 1_000_000):
            self.wait_for(lambda size=size: self._reads_slowly(client, size), "a call of this client")  # type: ignore[misc]

    def _reads_slowly(self, client: WorkerClient, size: int) -> bool:
        """Make a call and read its result when somebody else has been served; False where that was first."""
        for _ in range(3):
            self.value(client, ["count"])  # as a connection that the worker knows well
        client.send_invoke({"steps": [["repeat", "x", size]]})
        time.sleep(0.2)  # That it is called, nobody tells: it is over too soon.
        with self.connect() as other:
            self.wait_for(lambda: self._is_served(other), "room for another call")
        answer = client.receive()
        self.assertIn((answer.status, len(answer.body)), ((200, size + 2), (429, len(answer.body))))
        return answer.status == 200

    def _is_served(self, client: WorkerClient) -> bool:
        client.send_invoke({"steps": [["value", "served"]]})
        return client.receive().status == 200

    def test_strangers_connections_do_not_keep_the_platform_out(self) -> None:
        client = self.loaded()
        self.assert_serves(client)
        strangers = [self.connect() for _ in range(self.max_connections + 50)]
        self.assert_serves(client)
        open_still = sum(self._is_open(stranger) for stranger in strangers)
        self.assertLessEqual(open_still, self.max_connections)
        self.assertGreaterEqual(open_still, self.max_connections // 2, "more gave way than had to")
        self.assert_serves(client)

    def _is_open(self, client: WorkerClient) -> bool:
        try:
            return client.ask("GET", "/ready").status == 200
        except GONE:
            return False


def _invoke(body: bytes) -> bytes:
    head = f"POST /invoke HTTP/1.1\r\nx-secret: {SECRET}\r\nx-execution: e\r\nx-timeout: 5\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
