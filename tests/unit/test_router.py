"""Routes, places and cold starts, with a backend that is played."""

import asyncio
import dataclasses
import itertools
from unittest import mock

import testtools

from funcplat import errors
from funcplat.core.routes import Route
from funcplat.core.workers import Worker
from funcplat.drivers.base import Address, Handle
from funcplat.errors import ReasonCode
from funcplat.invoke import router


class PlayedBackend:
    """Core as the router sees it; what it answers is set by the test."""

    def __init__(self, concurrency=3):
        self.reads = 0
        self.started = []
        self.prepared = []
        self.concurrency = concurrency
        self.start_error = None
        self.room = False
        self.route = Route("f", 0, "p", 5, "r1", "runtime", "available", ())
        self.numbers = itertools.count(1)

    def read(self, function_id, version):
        self.reads += 1
        if function_id != "f":
            raise errors.NotFound
        return self.route

    def start(self, revision_id):
        if self.start_error is not None:
            raise self.start_error
        worker = self.worker(revision_id)
        self.started.append(worker)
        return worker

    def worker(self, revision_id="r1"):
        name = f"w{next(self.numbers)}"
        return Worker(name, revision_id, Handle(name, Address(socket="/nowhere")), "s", self.concurrency)

    def prepare(self, revision_id):
        self.prepared.append(revision_id)

    def make_room(self, function_id, forget):
        self.start_error = None if self.room else self.start_error
        return self.room


class RouterTests(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.backend = PlayedBackend()
        self.gate = None
        self.run_in_threads = False

    def router(self, patience=0.0, queue_limit=10, queue_timeout=5.0):
        async def run(function, *args):
            await asyncio.sleep(0)
            if self.gate is not None and function.__name__ == "_start_sync":
                await self.gate.wait()
            if self.run_in_threads:
                return await asyncio.to_thread(function, *args)
            return function(*args)

        options = router.RouterOptions(self.backend.concurrency, patience, queue_limit, queue_timeout)
        return router.Router(self.backend, run, options)

    def test_the_first_call_starts_a_worker(self):
        async def scenario():
            routes = self.router()
            station = await routes.place(await routes.line("f", 0))
            self.assertEqual(self.backend.started, [station.worker])

        asyncio.run(scenario())

    def test_calls_that_come_at_once_share_one_start(self):
        async def scenario():
            routes = self.router()
            line = await routes.line("f", 0)
            await asyncio.gather(*(routes.place(line) for _ in range(3)))
            self.assertEqual(1, len(self.backend.started))

        asyncio.run(scenario())

    def test_six_calls_that_come_at_once_get_two_workers_of_three(self):
        async def scenario():
            routes = self.router()
            line = await routes.line("f", 0)
            await asyncio.gather(*(routes.place(line) for _ in range(6)))
            self.assertEqual(2, len(self.backend.started))

        asyncio.run(scenario())

    def test_a_route_is_read_once_for_calls_that_come_at_once(self):
        async def scenario():
            routes = self.router()
            await asyncio.gather(*(routes.line("f", 0) for _ in range(5)))
            self.assertEqual(1, self.backend.reads)

        asyncio.run(scenario())

    def test_an_unknown_function_is_not_found(self):
        async def scenario():
            routes = self.router()
            with testtools.ExpectedException(errors.NotFound):
                await routes.line("unknown", 0)

        asyncio.run(scenario())

    def test_busy_workers_are_given_time_before_another_is_started(self):
        async def scenario():
            self.backend.concurrency = 1
            routes = self.router(patience=3600.0)
            line = await routes.line("f", 0)
            first = await routes.place(line)
            second = asyncio.ensure_future(routes.place(line))
            await asyncio.sleep(0)
            line.stations.give_back(first)
            self.assertIs(first, await second)
            self.assertEqual(1, len(self.backend.started))

        asyncio.run(scenario())

    def test_a_call_that_waited_long_enough_starts_another_worker(self):
        async def scenario():
            self.backend.concurrency = 1
            routes = self.router(patience=0.001)
            line = await routes.line("f", 0)
            first = await routes.place(line)
            second = await routes.place(line)
            self.assertIsNot(first, second)
            self.assertEqual(2, len(self.backend.started))

        asyncio.run(scenario())

    # Half a second: a busy machine must not make the line stand still for as long.
    @mock.patch("funcplat.invoke.router.WATCH", 0.5)
    def test_a_line_that_moves_fast_enough_grows_no_worker(self):
        async def scenario():
            self.backend.concurrency = 1
            routes = self.router(patience=60.0, queue_limit=60)
            line = await routes.line("f", 0)
            station = await routes.place(line)
            calls = [asyncio.ensure_future(routes.place(line)) for _ in range(60)]
            for call in calls:
                await asyncio.sleep(0.02)  # a call of 20 ms
                line.stations.give_back(station)
                self.assertIs(station, await asyncio.wait_for(call, 5))
            self.assertEqual(1, len(self.backend.started))

        asyncio.run(scenario())

    def test_a_full_queue_refuses_at_once(self):
        async def scenario():
            self.gate = asyncio.Event()
            routes = self.router(queue_limit=1)
            line = await routes.line("f", 0)
            waiting = asyncio.ensure_future(routes.place(line))
            await asyncio.sleep(0)
            error = await self.refused(routes, line)
            self.assertEqual(ReasonCode.QUEUE_FULL, error.reason.code)
            self.gate.set()
            await waiting

        asyncio.run(scenario())

    def test_a_call_does_not_wait_for_ever(self):
        async def scenario():
            self.gate = asyncio.Event()
            routes = self.router(queue_timeout=0.01)
            line = await routes.line("f", 0)
            error = await self.refused(routes, line)
            self.assertEqual(ReasonCode.QUEUE_TIMEOUT, error.reason.code)
            self.assertEqual(0, line.stations.waiting)
            self.gate.set()
            await routes.close()

        asyncio.run(scenario())

    async def refused(self, routes, line):
        try:
            await routes.place(line)
        except router.NoWorker as error:
            return error
        self.fail("a place was given")

    def test_a_failed_start_tells_those_who_wait_why(self):
        async def scenario():
            self.backend.start_error = errors.DriverError("no such engine")
            routes = self.router()
            error = await self.refused(routes, await routes.line("f", 0))
            self.assertEqual(ReasonCode.START_FAILED, error.reason.code)
            self.assertEqual("no such engine", error.reason.message)

        asyncio.run(scenario())

    def test_a_defect_in_a_start_does_not_leave_calls_waiting(self):
        async def scenario():
            self.backend.start_error = ZeroDivisionError("a defect")
            routes = self.router()
            line = await routes.line("f", 0)
            error = await self.refused(routes, line)
            self.assertEqual(ReasonCode.START_FAILED, error.reason.code)
            self.assertEqual(0, line.starting)

        asyncio.run(scenario())

    def test_at_a_cap_calls_wait_for_the_workers_that_there_are(self):
        async def scenario():
            self.backend.concurrency = 1
            routes = self.router(patience=0.0)
            line = await routes.line("f", 0)
            first = await routes.place(line)
            self.backend.start_error = errors.NoCapacity("the cap is reached")
            second = asyncio.ensure_future(routes.place(line))
            while not line.stations.waiting or line.starting:
                await asyncio.sleep(0)
            line.stations.give_back(first)
            self.assertIs(first, await second)

        asyncio.run(scenario())

    def test_a_cap_is_not_asked_at_every_look(self):
        async def scenario():
            self.backend.concurrency = 1
            routes = self.router(patience=0.0)
            line = await routes.line("f", 0)
            first = await routes.place(line)
            asked = []

            def refuse(revision_id):
                asked.append(revision_id)
                raise errors.NoCapacity("the cap is reached")

            self.backend.start = refuse
            second = asyncio.ensure_future(routes.place(line))
            await asyncio.sleep(5 * router.WATCH)
            line.stations.give_back(first)
            await second
            self.assertEqual(1, len(asked))

        asyncio.run(scenario())

    def test_at_the_cap_of_the_node_another_function_gives_way(self):
        async def scenario():
            error = errors.NoCapacity("the cap is reached")
            error.kind = "node"
            self.backend.start_error, self.backend.room = error, True
            routes = self.router()
            self.assertIsNotNone(await routes.place(await routes.line("f", 0)))

        asyncio.run(scenario())

    def test_a_worker_that_gives_way_gets_no_more_calls_before_it_is_stopped(self):
        async def scenario():
            self.run_in_threads = True
            routes = self.router()
            line = await routes.line("f", 0)
            station = await routes.place(line)
            seen = []

            def make_room(function_id, forget):
                self.backend.start_error = None
                seen.append(line.stations.worker_ids)
                forget(station.worker.id)
                seen.append(line.stations.worker_ids)
                return True

            error = errors.NoCapacity("the cap is reached")
            error.kind = "node"
            self.backend.start_error, self.backend.make_room = error, make_room
            for _ in range(self.backend.concurrency):
                await routes.place(line)  # the last one finds no place, and asks for a worker
            self.assertEqual([[station.worker.id], []], seen)

        asyncio.run(scenario())

    def test_workers_of_other_servers_are_adopted_and_dropped_with_the_route(self):
        async def scenario():
            foreign = self.backend.worker()
            self.backend.route = dataclasses.replace(self.backend.route, workers=(foreign,))
            routes = self.router()
            line = await routes.line("f", 0)
            station = await routes.place(line)
            self.assertEqual(foreign, station.worker)
            line.stations.give_back(station)
            self.backend.route = dataclasses.replace(self.backend.route, workers=())
            routes.changed("f")
            await routes.line("f", 0)
            self.assertEqual(0, len(line.stations))

        asyncio.run(scenario())

    def test_a_new_revision_takes_over_who_waits(self):
        async def scenario():
            self.backend.concurrency = 1
            routes = self.router(patience=3600.0)
            line = await routes.line("f", 0)
            await routes.place(line)
            waiting = asyncio.ensure_future(routes.place(line))
            await asyncio.sleep(0)
            self.backend.route = dataclasses.replace(self.backend.route, revision_id="r2")
            routes.changed("f")
            await routes.line("f", 0)
            station = await asyncio.wait_for(waiting, 5)
            self.assertEqual("r2", station.worker.revision_id)

        asyncio.run(scenario())

    def test_a_runtime_that_is_lost_ends_the_calls_that_wait(self):
        async def scenario():
            self.backend.start_error = errors.RuntimeNotAvailable("it is not available")
            routes = self.router()
            line = await routes.line("f", 0)
            waiting = asyncio.ensure_future(self.refused(routes, line))
            await asyncio.sleep(0)
            self.backend.route = dataclasses.replace(self.backend.route, runtime_status="error")
            error = await asyncio.wait_for(waiting, 5)
            self.assertEqual(ReasonCode.RUNTIME_NOT_AVAILABLE, error.reason.code)
            await routes.close()

        asyncio.run(scenario())

    def test_a_deleted_function_ends_the_calls_that_wait(self):
        async def scenario():
            self.backend.concurrency = 1
            routes = self.router(patience=3600.0)
            line = await routes.line("f", 0)
            await routes.place(line)
            waiting = asyncio.ensure_future(self.refused(routes, line))
            await asyncio.sleep(0)
            self.backend.read = self.gone
            routes.changed("f")
            with testtools.ExpectedException(errors.NotFound):
                await routes.line("f", 0)
            error = await asyncio.wait_for(waiting, 5)
            self.assertEqual(ReasonCode.FUNCTION_DELETED, error.reason.code)

        asyncio.run(scenario())

    def gone(self, function_id, version):
        raise errors.NotFound

    def test_a_prepared_function_has_its_route_and_its_code(self):
        async def scenario():
            routes = self.router()
            routes.prepare("f")
            await routes.close()
            self.assertEqual(["r1"], self.backend.prepared)
            await routes.line("f", 0)
            self.assertEqual(1, self.backend.reads)

        asyncio.run(scenario())

    def test_prewarm_starts_as_many_as_it_is_told(self):
        async def scenario():
            routes = self.router()
            await routes.prewarm("f", 0, 3)
            await routes.close()
            self.assertEqual(3, len(self.backend.started))

        asyncio.run(scenario())
