"""Where calls of aliases go: what is remembered, for how long, and whose turn it is."""

import asyncio
import collections

import testtools
from hypothesis import given
from hypothesis import strategies as st

from funcplat import errors
from funcplat.core.aliases import Alias, Route, Target
from funcplat.invoke import aliases
from funcplat.invoke.aliases import AliasTable, Turns

WEIGHTS = st.lists(st.integers(1, 40), min_size=1, max_size=6)


def routes_of(weights):
    return tuple(Route(version, weight) for version, weight in enumerate(weights))


class TurnsTests(testtools.TestCase):
    def taken(self, weights, count):
        turns = Turns(routes_of(weights))
        return [turns.next() for _ in range(count)]

    @given(WEIGHTS, st.integers(0, 300))
    def test_any_calls_in_a_row_as_many_as_the_sum_are_shared_exactly(self, weights, skipped):
        taken = self.taken(weights, skipped + sum(weights))[skipped:]
        self.assertEqual(dict(enumerate(weights)), dict(collections.Counter(taken)))

    @given(WEIGHTS)
    def test_no_route_is_ever_ahead_or_behind_by_more_than_the_others_have_turns(self, weights):
        total = sum(weights)
        counts = collections.Counter()
        for number, version in enumerate(self.taken(weights, 2 * total), start=1):
            counts[version] += 1
            for each, weight in enumerate(weights):
                # A bound of smooth round robin: within as many turns as there are routes.
                self.assertLessEqual(abs(counts[each] - number * weight / total), len(weights))

    def test_turns_lie_apart(self):
        self.assertEqual([0, 0, 1, 0], self.taken([3, 1], 4))
        self.assertEqual([0, 1] * 3, self.taken([1, 1], 6))

    def test_one_route_takes_all(self):
        self.assertEqual([0] * 5, self.taken([7], 5))


class PlayedCore:
    """Aliases as the core has them; what they lead to is set by the test."""

    def __init__(self):
        self.reads = 0
        self.leads_to = {"a": 1}
        self.routes = None
        self.error = None
        self.gate = None

    def find(self, project_id, name):
        self.reads += 1
        if self.error is not None:
            raise self.error
        if project_id != "p" or name not in self.leads_to:
            raise errors.NotFound
        return Alias("id", name, None, "f", self.leads_to[name], self.routes, "p", 0, None)

    async def run(self, function, *args):
        found = function(*args)
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        return found


class AliasTableTests(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.core = PlayedCore()

    def play(self, scenario):
        async def played():
            self.table = AliasTable(self.core.find, self.core.run)
            loop = asyncio.get_running_loop()
            self.now = loop.time()
            loop.time = lambda: self.now  # the clock is the test's
            try:
                await scenario()
            finally:
                del loop.time
                await self.table.close()

        asyncio.run(played())

    async def version(self, name="a"):
        target = await self.table.resolve("p", name)
        self.assertEqual("f", target.function_id)
        return target.version

    def test_it_is_read_once_for_calls_that_come_at_once(self):
        async def scenario():
            targets = await asyncio.gather(*(self.table.resolve("p", "a") for _ in range(5)))
            self.assertEqual([Target("f", 1)] * 5, targets)
            self.assertEqual(1, self.core.reads)

        self.play(scenario)

    def test_what_is_young_is_not_read_again(self):
        async def scenario():
            await self.version()
            self.core.leads_to["a"] = 2
            self.now += aliases.RENEW_AFTER * 0.9
            self.assertEqual(1, await self.version())
            self.assertEqual(1, self.core.reads)

        self.play(scenario)

    def test_what_is_older_is_used_and_renewed_in_the_background(self):
        async def scenario():
            await self.version()
            self.core.leads_to["a"] = 2
            self.now += aliases.RENEW_AFTER * 1.1
            self.assertEqual([1, 1], [await self.version(), await self.version()])
            await asyncio.gather(*self.table._tasks)
            self.assertEqual((2, 2), (await self.version(), self.core.reads))

        self.play(scenario)

    def test_what_is_too_old_is_waited_for(self):
        async def scenario():
            await self.version()
            self.core.leads_to["a"] = 2
            self.now += aliases.STALE_AFTER * 1.1
            self.assertEqual(2, await self.version())

        self.play(scenario)

    def test_a_change_of_this_process_holds_for_the_next_call(self):
        async def scenario():
            await self.version()
            self.core.leads_to["a"] = 2
            self.table.changed("p", "a")
            self.assertEqual(2, await self.version())

        self.play(scenario)

    def test_what_was_being_read_during_a_change_is_not_kept(self):
        async def scenario():
            await self.version()
            self.core.gate = asyncio.Event()
            self.now += aliases.STALE_AFTER * 1.1
            before = asyncio.ensure_future(self.version())
            while self.core.reads < 2:
                await asyncio.sleep(0)
            self.core.leads_to["a"] = 2
            self.table.changed("p", "a")
            after = asyncio.ensure_future(self.version())
            await asyncio.sleep(0)
            self.core.gate.set()
            # The first call came before the change.
            self.assertEqual([1, 2], [await before, await after])
            self.assertEqual(2, await self.version())

        self.play(scenario)

    def test_an_unknown_alias_is_not_found_and_not_remembered(self):
        async def scenario():
            for _ in range(2):
                with testtools.ExpectedException(errors.NotFound):
                    await self.version("b")
            self.core.leads_to["b"] = 3
            self.assertEqual(3, await self.version("b"))
            with testtools.ExpectedException(errors.NotFound):
                await self.table.resolve("other", "a")

        self.play(scenario)

    def test_a_deleted_alias_is_dropped_when_it_is_renewed(self):
        async def scenario():
            await self.version()
            del self.core.leads_to["a"]
            self.now += aliases.RENEW_AFTER * 1.1
            self.assertEqual(1, await self.version())
            await asyncio.gather(*self.table._tasks, return_exceptions=True)
            with testtools.ExpectedException(errors.NotFound):
                await self.version()

        self.play(scenario)

    def test_without_a_database_it_is_known_for_a_second(self):
        async def scenario():
            await self.version()
            self.core.error = errors.DriverUnavailable("down")
            self.now += aliases.RENEW_AFTER * 1.1
            self.assertEqual(1, await self.version())
            self.now += aliases.STALE_AFTER
            with testtools.ExpectedException(errors.DriverUnavailable):
                await self.version()
            self.core.error = None
            self.assertEqual(1, await self.version())

        self.play(scenario)

    def test_a_call_that_gives_up_does_not_end_the_reading_for_others(self):
        async def scenario():
            self.core.gate = asyncio.Event()
            calls = [asyncio.ensure_future(self.version()) for _ in range(2)]
            await asyncio.sleep(0)
            calls[0].cancel()
            self.core.gate.set()
            self.assertEqual(1, await calls[1])

        self.play(scenario)

    def test_turns_go_on_when_nothing_changed_and_begin_anew_when_it_did(self):
        async def scenario():
            self.core.routes = '[{"function_version":1,"weight":3},{"function_version":2,"weight":1}]'
            taken = []
            for _ in range(8):
                self.now += aliases.STALE_AFTER * 1.1
                taken.append(await self.version())
            self.assertEqual([1, 1, 2, 1] * 2, taken)
            self.assertEqual(8, self.core.reads)
            self.core.routes = '[{"function_version":5,"weight":1},{"function_version":6,"weight":1}]'
            self.table.changed("p", "a")
            self.assertEqual([5, 6, 5], [await self.version() for _ in range(3)])

        self.play(scenario)

    def test_what_nobody_uses_is_forgotten(self):
        async def scenario():
            for name in range(10):
                self.core.leads_to[str(name)] = 1
                await self.version(str(name))
            self.now += aliases.FORGET_AFTER * 0.9
            await self.version("3")
            self.now += aliases.FORGET_AFTER * 0.2
            self.table.sweep()
            self.assertEqual([("p", "3")], list(self.table._entries))

        self.play(scenario)
