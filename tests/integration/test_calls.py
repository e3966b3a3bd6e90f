"""Calls against a worker that is played over a real Unix socket: what becomes of each way it may answer."""

import asyncio
import contextlib
import itertools
import json
import pathlib
import tempfile

import testtools

from funcplat import errors
from funcplat.core.executions import Record, new_id
from funcplat.core.routes import Route
from funcplat.core.workers import Worker
from funcplat.drivers.base import Address, Handle
from funcplat.errors import ReasonCode
from funcplat.invoke import calls
from funcplat.invoke.recorder import Recorder
from funcplat.invoke.router import Router, RouterOptions


def answer(status="success", result=b'"ok"', log=b"", **headers):
    head = {
        "content-length": len(result) + len(log),
        "x-status": status,
        "x-duration": "0.000001",
        "x-result-length": len(result),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + result + log


def refusal(status):
    return f"HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n".encode()


class PlayedWorkers:
    """Starts workers that answer from a script: bytes, or None to close the connection without an answer."""

    def __init__(self, directory, script):
        self.directory = pathlib.Path(directory)
        self.script = iter(script)
        self.requests = []
        self.numbers = itertools.count()
        self.loop = asyncio.get_running_loop()
        self.servers = []
        self.unreachable = False

    def read(self, function_id, version):
        return Route(function_id, version, "p", 5, "r", "runtime", "available", ())

    def make_room(self, function_id, forget):
        return False

    def start(self, revision_id):
        path = str(self.directory / f"{next(self.numbers)}.sock")
        if not self.unreachable:
            starting = asyncio.run_coroutine_threadsafe(
                asyncio.start_unix_server(self.serve, path), self.loop
            )
            self.servers.append(starting.result(10))
        return Worker(path, revision_id, Handle(path, Address(socket=path)), "secret", 3)

    async def serve(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
                self.requests.append((head, await reader.readexactly(length)))
                said = next(self.script)
                if said is None:
                    break
                writer.write(said)
        writer.close()

    def close(self):
        for server in self.servers:
            server.close()


class CallsTests(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = tempfile.TemporaryDirectory(prefix="fp-")
        self.addCleanup(self.directory.cleanup)
        self.lost = []
        self.cause = None
        self.written = []

    def call(self, script, times=1, unreachable=False, write=None, text='{"name": "Q"}'):
        """Run ``times`` calls one after the other; returns their records and the played workers."""

        async def scenario():
            workers = PlayedWorkers(self.directory.name, script)
            workers.unreachable = unreachable
            recorder = Recorder(write or (lambda batch, durable: self.written.extend(batch)))
            router = Router(workers, asyncio.to_thread, RouterOptions(3, 0.01, 10, 5.0))
            running = calls.Calls(router, None, recorder, "server", 1.0, self.note_lost, self.judge)
            records = []
            for _ in range(times):
                line = await router.line("f", 0)
                records.append(await running.run(line, self.record(text)))
            await router.close()
            await running.close()
            await recorder.close()
            workers.close()
            return records, workers

        return asyncio.run(scenario())

    def judge(self, record):
        self.fail(f"a synchronous call is not tried again: {record}")

    async def note_lost(self, worker_id):
        self.lost.append(worker_id)
        return self.cause

    def record(self, text):
        values = dict.fromkeys(Record.__slots__)
        values |= {"id": new_id(), "function_id": "f", "function_version": 0, "status": "running"}
        values |= {"sync": True, "input": text, "attempt": 1, "inserted": False, "counted": False}
        return Record(**values)

    def test_an_answer_becomes_a_record(self):
        said = answer(result=b'{"hello":"Q"}', log=b"hello Q\n")
        [record], workers = self.call([said])
        self.assertEqual("success", record.status)
        self.assertEqual('{"output": {"hello":"Q"}, "duration": 0.000001}', record.result)
        self.assertEqual(b"hello Q\n", record.log)
        self.assertEqual([record], self.written)
        head, body = workers.requests[0]
        self.assertEqual(b'{"name": "Q"}', body)
        self.assertIn(b"x-secret: secret\r\n", head)
        self.assertIn(f"x-execution: {record.id}\r\n".encode(), head)
        self.assertIn(b"x-timeout: 5\r\n", head)

    def test_a_failure_keeps_its_reason(self):
        said = answer("failed", b'"boom"', x_reason="function_raised", x_message="it%20broke")
        [record], _ = self.call([said])
        self.assertEqual("failed", record.status)
        self.assertEqual(("function_raised", "it broke"), (record.reason_code, record.reason_message))

    def test_dropped_output_is_a_remark_on_a_success(self):
        [record], _ = self.call([answer(x_log_dropped=7)])
        self.assertEqual(("success", ReasonCode.LOG_TRUNCATED), (record.status, record.reason_code))
        self.assertIn("7 bytes", record.reason_message)

    def test_connections_are_kept_between_calls(self):
        records, workers = self.call([answer(), answer()], times=2)
        self.assertEqual(["success"] * 2, [record.status for record in records])
        self.assertEqual(1, len(workers.servers))

    def test_a_full_worker_is_asked_again_later(self):
        [record], workers = self.call([refusal(429), answer()])
        self.assertEqual("success", record.status)
        self.assertEqual(2, len(workers.requests))

    def test_a_draining_worker_is_left_for_another_one(self):
        [record], workers = self.call([refusal(503), answer()])
        self.assertEqual("success", record.status)
        self.assertEqual(2, len(workers.servers))

    def test_a_worker_that_dies_in_a_call_fails_it_once_and_is_reported(self):
        [record], workers = self.call([None])
        self.assertEqual(("failed", ReasonCode.WORKER_DIED), (record.status, record.reason_code))
        self.assertEqual(1, len(workers.requests), "the function may have run: it is not called again")
        self.assertEqual([record.worker_id], self.lost)

    def test_an_answer_that_is_not_of_the_protocol_fails_the_call(self):
        for said in (
            b"nonsense\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            answer() + b"more",
        ):
            with self.subTest(said):
                [record], _ = self.call([said])
                self.assertEqual(("failed", ReasonCode.WORKER_DIED), (record.status, record.reason_code))

    def test_an_endless_head_fails_the_call(self):
        [record], _ = self.call([b"HTTP/1.1 200 OK\r\n" + b"x" * 10_000])
        self.assertEqual("failed", record.status)

    def test_workers_that_cannot_be_reached_end_the_call_after_three(self):
        [record], _ = self.call([], unreachable=True)
        self.assertEqual(("error", ReasonCode.WORKER_DIED), (record.status, record.reason_code))
        self.assertEqual(3, len(self.lost))

    def test_a_call_whose_worker_died_says_how(self):
        self.cause = "the kernel killed it, out of memory"
        [record], _ = self.call([None])
        self.assertEqual(("failed", ReasonCode.WORKER_DIED), (record.status, record.reason_code))
        self.assertEqual(f"the worker died during the execution: {self.cause}", record.reason_message)

    def test_what_is_no_json_object_reaches_the_function_as_its_input(self):
        _, workers = self.call([answer()], text="plain")
        self.assertEqual(b'{"__function_input": "plain"}', workers.requests[0][1])

    def test_without_an_input_the_body_is_null(self):
        _, workers = self.call([answer()], text=None)
        self.assertEqual(b"null", workers.requests[0][1])

    def test_an_outcome_that_the_database_refuses_is_recorded_without_it(self):
        def write(batch, durable):
            if any(record.log for record in batch):
                raise errors.DriverError("bytes that it does not take")
            self.written.extend(batch)

        [record], _ = self.call([answer(log=b"\0")], write=write)
        self.assertEqual(("error", ReasonCode.PLATFORM_ERROR), (record.status, record.reason_code))
        self.assertEqual([record], self.written)

    def test_a_database_that_does_not_answer_is_the_callers_to_know(self):
        def write(batch, durable):
            raise errors.DriverUnavailable("down")

        with testtools.ExpectedException(errors.DriverUnavailable):
            self.call([answer()], write=write)

    def test_a_forged_result_that_is_not_json_fails_the_call(self):
        for forged in (b"{", b'"a" "b"', b"nonsense", b"", b"[" * 100_000):
            with self.subTest(forged[:20]):
                [record], _ = self.call([answer(result=forged)])
                self.assertEqual(("failed", "result_not_json"), (record.status, record.reason_code))
                json.loads(record.result)
