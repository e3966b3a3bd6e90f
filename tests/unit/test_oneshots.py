"""Calls of images that run once, with a backend that is played."""

import asyncio
import functools
import json
import threading

import testtools

from funcplat import errors
from funcplat.core.executions import Record
from funcplat.core.imageruns import Run
from funcplat.core.routes import Route
from funcplat.drivers.base import ImageRun
from funcplat.errors import ReasonCode
from funcplat.invoke import oneshots, router


class PlayedBackend:
    """Core as it is seen; what it answers is set by the test."""

    def __init__(self):
        self.outcome = ImageRun(0, b"said", 0.25)
        self.errors = []
        self.kinds = [True]
        self.asked = 0
        self.cancelled = []
        self.unreachable = False
        self.gate = threading.Event()
        self.gate.set()
        self.most = self.now = 0
        self.lock = threading.Lock()

    def is_one_shot(self, orchestrator, image):
        self.asked += 1
        kind = self.kinds.pop(0) if len(self.kinds) > 1 else self.kinds[0]
        if isinstance(kind, Exception):
            raise kind
        return kind

    def cancel(self, execution_id):
        self.cancelled.append(execution_id)
        if self.unreachable:
            raise errors.DriverUnavailable("m")

    def run(self, execution_id, revision_id, input_text, timeout):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            error = self.errors.pop(0) if self.errors else None
        try:
            if error is not None:
                raise error
            assert self.gate.wait(10)
            return Run("w1", self.outcome)
        finally:
            with self.lock:
                self.now -= 1


class Full(errors.NoCapacity):
    kind = "node"


def record():
    return Record(
        "e", "f", 0, None, None, "running", True, None, None, None, None, "p", None, 0, None, 1, None
    )


def asynchronous(test):
    @functools.wraps(test)
    def run(self):
        async def body():
            async with asyncio.timeout(20):
                await test(self)

        asyncio.run(body())

    return run


class OneShotsTests(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.backend = PlayedBackend()
        self.room = []

    def make(self, places=2, queue_timeout=5.0, queue_limit=10, max_log=100):
        async def run(function, *args):
            return await asyncio.to_thread(function, *args)

        options = router.RouterOptions(3, 0.1, queue_limit, queue_timeout)
        make_room = lambda function_id: bool(self.room and self.room.pop())  # noqa: E731
        return oneshots.OneShots(self.backend, run, run, make_room, options, places, max_log)

    def line(self, image="x@sha256:0"):
        route = Route("f", 0, "p", 5, "r1", None, "available", (), image)
        return router.Line(route, 0.0)

    async def ran(self, outcome=None, **options):
        if outcome is not None:
            self.backend.outcome = outcome
        done = record()
        await self.make(**options).run(self.line().route, done)
        return done

    @asynchronous
    async def test_a_program_that_ends_well_is_a_success(self):
        done = await self.ran()
        self.assertEqual(
            ("success", None, b"said", "w1"), (done.status, done.reason_code, done.log, done.worker_id)
        )
        self.assertEqual({"duration": 0.25}, json.loads(done.result))

    @asynchronous
    async def test_each_bad_end_has_its_reason(self):
        cases = (
            (ImageRun(3, b"", 0.1), ReasonCode.FUNCTION_EXITED, "exit code 3", 0.1),
            (ImageRun(139, b"", 0.1), ReasonCode.FUNCTION_CRASHED, "SIGSEGV", 0.1),
            (ImageRun(255, b"", 0.1), ReasonCode.FUNCTION_CRASHED, "signal 127", 0.1),
            (ImageRun(137, b"", 5.2, timed_out=True), ReasonCode.TIMEOUT, "5 s", 5),
            (ImageRun(137, b"", 0.1, out_of_memory=True), ReasonCode.MEMORY_EXCEEDED, "memory_size", 0.1),
        )
        for outcome, code, word, duration in cases:
            done = await self.ran(outcome)
            self.assertEqual(("failed", code), (done.status, done.reason_code))
            self.assertIn(word, done.reason_message)
            self.assertEqual({"duration": duration}, json.loads(done.result))

    @asynchronous
    async def test_output_beyond_the_cap_is_dropped_and_told(self):
        done = await self.ran(ImageRun(0, b"x" * 150, 0.1, log_dropped=5))
        self.assertEqual((b"x" * 100, ReasonCode.LOG_TRUNCATED), (done.log, done.reason_code))
        self.assertIn("55 bytes", done.reason_message)
        self.assertEqual("success", done.status)
        done = await self.ran(ImageRun(1, b"x" * 150, 0.1))
        self.assertEqual(ReasonCode.FUNCTION_EXITED, done.reason_code)
        self.assertIn("50 bytes", done.reason_message)

    @asynchronous
    async def test_what_the_driver_cannot_do_is_a_reason(self):
        cases = (
            (errors.ImageMissing("m"), ReasonCode.IMAGE_UNKNOWN),
            (errors.DriverTimeout("m"), ReasonCode.DRIVER_UNAVAILABLE),
            (errors.DriverError("m"), ReasonCode.START_FAILED),
            (errors.RuntimeNotAvailable("m"), ReasonCode.RUNTIME_NOT_AVAILABLE),
            (errors.InvalidRequest("m"), ReasonCode.BAD_ARGUMENTS),
        )
        for error, code in cases:
            self.backend.errors = [error]
            with self.assertRaises(router.NoWorker) as caught:
                await self.ran()
            self.assertEqual((code, "m"), (caught.exception.reason.code, caught.exception.reason.message))

    @asynchronous
    async def test_a_function_that_is_gone_is_not_found(self):
        self.backend.errors = [errors.NotFound()]
        with self.assertRaises(errors.NotFound):
            await self.ran()

    @asynchronous
    async def test_no_more_run_at_once_than_there_are_places(self):
        shots, self.backend.gate = self.make(places=2), threading.Event()
        runs = [asyncio.ensure_future(shots.run(self.line().route, record())) for _ in range(5)]
        while self.backend.now < 2:
            await asyncio.sleep(0.001)
        self.backend.gate.set()
        await asyncio.gather(*runs)
        self.assertEqual(2, self.backend.most)

    @asynchronous
    async def test_who_waits_too_long_for_a_place_is_told(self):
        shots, self.backend.gate = self.make(places=1, queue_timeout=0.05), threading.Event()
        first = asyncio.ensure_future(shots.run(self.line().route, record()))
        await asyncio.sleep(0)
        with self.assertRaises(router.NoWorker) as caught:
            await shots.run(self.line().route, record())
        self.assertEqual(ReasonCode.QUEUE_TIMEOUT, caught.exception.reason.code)
        self.backend.gate.set()
        await first

    @asynchronous
    async def test_what_has_a_thread_is_cancelled_in_it_and_nothing_else_is(self):
        shots, self.backend.gate = self.make(), threading.Event()
        self.assertFalse(shots.under_way("e"))
        run = asyncio.ensure_future(shots.run(self.line().route, record()))
        while not self.backend.now:
            await asyncio.sleep(0.001)
        self.assertEqual((True, False), (shots.under_way("e"), shots.under_way("another")))
        await shots.cancel("e")
        self.backend.unreachable = True
        await shots.cancel("e")  # no error: it is to be tried again
        self.backend.gate.set()
        await run
        self.assertFalse(shots.under_way("e"))
        self.assertEqual(["e", "e"], self.backend.cancelled)

    @asynchronous
    async def test_the_queue_is_bounded(self):
        shots, self.backend.gate = self.make(places=1, queue_limit=1), threading.Event()
        runs = [asyncio.ensure_future(shots.run(self.line().route, record())) for _ in range(2)]
        await asyncio.sleep(0)
        with self.assertRaises(router.NoWorker) as caught:
            await shots.run(self.line().route, record())
        self.assertEqual(ReasonCode.QUEUE_FULL, caught.exception.reason.code)
        self.backend.gate.set()
        await asyncio.gather(*runs)

    @asynchronous
    async def test_a_cap_is_waited_for_and_a_place_is_not_held_meanwhile(self):
        self.backend.errors = [errors.NoCapacity("full")]
        shots = self.make(places=1)
        first = asyncio.ensure_future(shots.run(self.line().route, record()))
        while self.backend.errors:
            await asyncio.sleep(0)
        second = record()
        await shots.run(self.line().route, second)
        self.assertFalse(first.done())
        self.assertEqual("success", second.status)
        await first

    @asynchronous
    async def test_a_cap_that_stays_is_told(self):
        self.backend.errors = [errors.NoCapacity("full")] * 100
        with self.assertRaises(router.NoWorker) as caught:
            await self.ran(queue_timeout=0.2)
        self.assertEqual(
            (ReasonCode.NO_CAPACITY, "full"), (caught.exception.reason.code, str(caught.exception))
        )

    @asynchronous
    async def test_at_the_hosts_cap_an_idle_worker_gives_way(self):
        self.backend.errors = [Full("full")]
        self.room = [True]
        done = await self.ran(queue_timeout=0.01)
        self.assertEqual("success", done.status)

    @asynchronous
    async def test_who_waits_when_the_server_ends_is_told_at_once(self):
        shots, self.backend.gate = self.make(places=1, queue_timeout=60.0), threading.Event()
        first = asyncio.ensure_future(shots.run(self.line().route, record()))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(shots.run(self.line().route, record()))
        await asyncio.sleep(0)
        shots.end()
        for call in (second, shots.run(self.line().route, record())):
            with self.assertRaises(router.NoWorker) as caught:
                await call
            self.assertEqual(ReasonCode.WORKER_STOPPED, caught.exception.reason.code)
        self.backend.gate.set()
        await first

    @asynchronous
    async def test_the_kind_of_a_revision_is_asked_once_by_all(self):
        shots, line = self.make(), self.line()
        self.assertEqual([True] * 3, await asyncio.gather(*[shots.takes(line) for _ in range(3)]))
        self.assertEqual(1, self.backend.asked)

    @asynchronous
    async def test_a_kind_that_could_not_be_told_is_asked_again(self):
        shots, line = self.make(), self.line()
        self.backend.kinds = [errors.DriverUnavailable("pulling"), False]
        with self.assertRaises(router.NoWorker) as caught:
            await shots.takes(line)
        self.assertEqual(ReasonCode.DRIVER_UNAVAILABLE, caught.exception.reason.code)
        self.assertFalse(await shots.takes(line))

    @asynchronous
    async def test_a_package_is_no_image(self):
        self.assertFalse(await self.make().takes(self.line(image=None)))
        self.assertEqual(0, self.backend.asked)
