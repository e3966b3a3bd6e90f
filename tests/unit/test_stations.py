"""Who has room, who is next, who waits."""

import asyncio

import testtools

from funcplat.core.workers import Worker
from funcplat.drivers.base import Address, Handle
from funcplat.invoke.stations import Station, Stations


def station(name, concurrency=2):
    worker = Worker(name, "revision", Handle(name, Address(socket="/nowhere")), "secret", concurrency)
    return Station(worker, timeout=5, since=0.0)


class StationsTests(testtools.TestCase):
    def run_async(self, coroutine):
        return asyncio.run(coroutine)

    def test_without_workers_there_is_no_place(self):
        self.assertIsNone(Stations().take())

    def test_a_worker_is_taken_until_it_is_full(self):
        stations = Stations()
        stations.add(station("a", concurrency=2))
        self.assertIsNotNone(stations.take())
        self.assertIsNotNone(stations.take())
        self.assertIsNone(stations.take())

    def test_the_worker_that_was_freed_last_is_next(self):
        stations = Stations()
        first, second = station("a", 1), station("b", 1)
        stations.add(first)
        stations.add(second)
        stations.take()
        stations.take()
        stations.give_back(second)
        stations.give_back(first)
        self.assertIs(first, stations.take())
        stations.give_back(first)
        self.assertIs(first, stations.take())

    def test_calls_fill_one_worker_before_they_take_another(self):
        stations = Stations()
        stations.add(station("a", 3))
        stations.add(station("b", 3))
        taken = [stations.take().worker.id for _ in range(6)]
        self.assertEqual(taken[:3], [taken[0]] * 3)
        self.assertEqual(taken[3:], [taken[3]] * 3)

    def test_a_freed_place_goes_to_the_first_who_waits(self):
        async def scenario():
            stations = Stations()
            only = station("a", 1)
            stations.add(only)
            stations.take()
            first, second = stations.wait().place, stations.wait().place
            stations.give_back(only)
            self.assertTrue(first.done())
            self.assertFalse(second.done())
            self.assertIsNone(stations.take())

        self.run_async(scenario())

    def test_a_new_worker_serves_as_many_as_it_has_places(self):
        async def scenario():
            stations = Stations()
            waiting = [stations.wait().place for _ in range(3)]
            stations.add(station("a", 2))
            self.assertEqual([True, True, False], [future.done() for future in waiting])
            self.assertEqual(1, stations.waiting)

        self.run_async(scenario())

    def test_who_left_the_line_gets_no_place(self):
        async def scenario():
            stations = Stations()
            gone, stays = stations.wait(), stations.wait()
            stations.leave(gone)
            only = station("a", 1)
            stations.add(only)
            self.assertIs(only, stays.place.result())
            self.assertEqual(1, only.in_flight)

        self.run_async(scenario())

    def test_a_removed_worker_is_not_taken_and_its_calls_end_in_peace(self):
        stations = Stations()
        only = station("a", 2)
        stations.add(only)
        taken = stations.take()
        stations.remove("a")
        self.assertIsNone(stations.take())
        stations.give_back(taken)
        self.assertIsNone(stations.take())
        self.assertEqual(0, only.in_flight)

    def test_a_worker_that_is_added_twice_counts_once(self):
        stations = Stations()
        stations.add(station("a", 1))
        stations.add(station("a", 1))
        stations.take()
        self.assertIsNone(stations.take())
        self.assertEqual(1, len(stations))

    def test_a_refused_place_comes_back_after_the_pause(self):
        async def scenario():
            stations = Stations()
            only = station("a", 1)
            stations.add(only)
            taken = stations.take()
            taken.in_flight += 1
            stations.refuse(taken, 0.01)
            stations.give_back(taken)
            self.assertIsNone(stations.take())
            self.assertIs(only, await asyncio.wait_for(stations.wait().place, 5))

        self.run_async(scenario())

    def test_everybody_who_waits_is_told_when_there_will_be_no_place(self):
        async def scenario():
            stations = Stations()
            waiting = [stations.wait().place for _ in range(2)]
            stations.fail_waiting(RuntimeError("none"))
            for future in waiting:
                self.assertIsInstance(future.exception(), RuntimeError)

        self.run_async(scenario())

    def test_who_waits_for_an_old_revision_moves_to_the_new_one(self):
        async def scenario():
            old, new = Stations(), Stations()
            waiting = old.wait().place
            new.add(station("b", 1))
            old.move_waiting(new)
            self.assertEqual("b", waiting.result().worker.id)
            self.assertEqual(0, old.waiting)

        self.run_async(scenario())

    def test_used_names_workers_since_it_was_last_asked(self):
        stations = Stations()
        only = station("a", 2)
        stations.add(only)
        self.assertEqual(["a"], stations.used())
        self.assertEqual([], stations.used())
        taken = stations.take()
        self.assertEqual(["a"], stations.used())
        self.assertEqual(["a"], stations.used(), "a call is still in flight")
        stations.give_back(taken)
        self.assertEqual([], stations.used())
