"""Batches of records."""

import asyncio
import threading

import testtools

from funcplat import errors
from funcplat.invoke.recorder import Recorder


class RecorderTests(testtools.TestCase):
    def test_what_arrives_during_a_transaction_is_the_next_batch(self):
        gate, batches = threading.Event(), []

        def record(batch, durable):
            batches.append(list(batch))
            gate.wait(10)

        async def scenario():
            recorder = Recorder(record)
            first = recorder.write("a")
            while not batches:
                await asyncio.sleep(0)
            others = [recorder.write(name) for name in "bcd"]
            gate.set()
            await asyncio.gather(first, *others)
            await recorder.close()

        asyncio.run(scenario())
        self.assertEqual([["a"], ["b", "c", "d"]], batches)

    def test_one_durable_record_makes_its_batch_durable(self):
        seen = []

        async def scenario():
            recorder = Recorder(lambda batch, durable: seen.append(durable))
            await recorder.write("a")
            await recorder.write("b", durable=True)
            await recorder.close()

        asyncio.run(scenario())
        self.assertEqual([False, True], seen)

    def test_a_bad_record_does_not_take_its_neighbours_with_it(self):
        kept = []

        def record(batch, durable):
            if "bad" in batch:
                raise errors.DriverError("too long")
            kept.extend(batch)

        async def scenario():
            recorder = Recorder(record)
            results = await asyncio.gather(
                *(recorder.write(name) for name in ("a", "bad", "b")), return_exceptions=True
            )
            await recorder.close()
            return results

        results = asyncio.run(scenario())
        self.assertEqual(["a", "b"], sorted(kept))
        self.assertIsNone(results[0])
        self.assertIsInstance(results[1], errors.DriverError)
        self.assertIsNone(results[2])

    def test_close_writes_what_is_queued(self):
        kept = []

        async def scenario():
            recorder = Recorder(lambda batch, durable: kept.extend(batch))
            futures = [recorder.write(number) for number in range(1000)]
            await recorder.close()
            await asyncio.gather(*futures)

        asyncio.run(scenario())
        self.assertEqual(list(range(1000)), kept)

    def test_a_defect_reaches_the_caller_and_not_the_thread(self):
        answers = iter([ZeroDivisionError("a defect"), None])

        def record(batch, durable):
            if (error := next(answers)) is not None:
                raise error

        async def scenario():
            recorder = Recorder(record)
            with testtools.ExpectedException(ZeroDivisionError):
                await recorder.write("a")
            await recorder.write("b")
            await recorder.close()

        asyncio.run(scenario())
