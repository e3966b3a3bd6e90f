"""Recording: batches of execution records on the database's own driver."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from funcplat import errors
from funcplat.core.executions import Record
from funcplat.db import models, session
from tests.functional import core

LONG = "x" * 2**20


class RecordingCase(core.CoreTest):
    def setUp(self) -> None:
        super().setUp()
        self.writer = self.recording()

    def write(self, *records: Record, durable: bool = False) -> None:
        self.writer.write(records, durable)

    def ended(self, **fields: Any) -> Record:
        """A synchronous execution that is over."""
        values = {"sync": True, "status": "success", "attempt": 1, "server_id": self.core.server_id}
        return self.record(**(values | fields))

    def running(self, **fields: Any) -> Record:
        """One whose row says that it runs."""
        record = self.ended(status="running", **fields)
        self.write(record)
        return record

    def counts(self, *function_ids: str) -> list[int]:
        return [self.row(models.functions, each).count for each in function_ids]

    def assert_kept(self, **fields: Any) -> None:
        record = self.ended(**fields)
        self.write(record)
        row = self.execution(record.id)
        for name, value in fields.items():
            self.assertEqual(value, getattr(row, name), name)

    # -- values ------------------------------------------------------------------------------------------


class RecordingTests(RecordingCase):
    def test_every_field_is_kept(self) -> None:
        record = self.ended(
            description="why", input="{}", result="1", reason_code="log_truncated", reason_message="m",
            worker_id="w" * 36, updated_at=session.micros(), log=b"printed", function_alias="alias",
        )  # fmt: skip
        self.write(record)
        row = self.execution(record.id)._mapping
        self.assertEqual(dict(row), {name: getattr(record, name) for name in row})

    def test_none_is_null(self) -> None:
        self.assert_kept(input=None, result=None, log=None, description=None, updated_at=None)

    def test_booleans_are_booleans(self) -> None:
        for sync in (True, False):
            record = self.ended(sync=sync)
            self.write(record)
            self.assertIs(sync, self.execution(record.id).sync)

    def test_a_log_is_any_bytes(self) -> None:
        self.assert_kept(log=bytes(range(256)) * 100)

    def test_text_is_any_unicode(self) -> None:
        self.assert_kept(input="grüße 世界", result='{"output": "🐘💥"}', description="🐘" * 255)

    def test_text_may_hold_what_means_something_to_sql(self) -> None:
        self.assert_kept(input="%s %(x)s :x ? '' \\ \" -- ; {0} %%", description="%")

    def test_results_and_logs_of_a_mebibyte_are_kept(self) -> None:
        self.assert_kept(input=LONG, result=LONG, log=LONG.encode())

    def test_a_batch_of_large_records_is_kept(self) -> None:
        records = [self.ended(result=LONG, log=LONG.encode()) for _ in range(20)]
        self.write(*records)
        self.assertEqual(
            20, len(self.rows(models.executions, sa.func.length(models.executions.c.result) > 1))
        )

    def test_times_are_64_bit(self) -> None:
        self.assert_kept(created_at=2**62, updated_at=2**62)

    # -- batches -----------------------------------------------------------------------------------------

    def test_one_batch_holds_new_rows_ends_and_counts(self) -> None:
        function = self.function()
        older = self.running(function_id=function.id)
        older.status, older.result = "success", "1"
        self.write(self.ended(function_id=function.id), older, self.record(function_id=function.id))
        self.assertEqual("success", self.execution(older.id).status)
        self.assertEqual([3], self.counts(function.id))
        self.assertEqual(3, len(self.rows(models.executions)))

    def test_an_empty_batch_is_a_no_op(self) -> None:
        self.write()

    def test_a_start_and_its_end_may_be_in_one_batch(self) -> None:
        record = self.ended(function_id=self.function().id)
        start = Record(**{name: getattr(record, name) for name in Record.__slots__} | {"status": "running"})
        record.inserted = record.counted = True
        self.write(start, record)
        self.assertEqual("success", self.execution(record.id).status)
        self.assertEqual([1], self.counts(record.function_id))

    def test_an_execution_is_counted_once_though_it_is_written_twice(self) -> None:
        function = self.function()
        record = self.running(function_id=function.id)
        record.status = "success"
        self.write(record)
        self.assertEqual([1], self.counts(function.id))

    def test_executions_are_counted_for_each_function(self) -> None:
        one, two = self.function(), self.function()
        self.write(*(self.ended(function_id=each.id) for each in (one, two, one, one)))
        self.assertEqual([3, 1], self.counts(one.id, two.id))

    def test_calls_of_a_function_that_was_deleted_are_recorded_all_the_same(self) -> None:
        record = self.ended()
        self.write(record)
        self.assertIsNotNone(self.execution(record.id))

    def test_the_end_of_a_row_that_was_deleted_is_ignored(self) -> None:
        record = self.running()
        with self.db.write() as connection:
            connection.execute(sa.delete(models.executions))
        record.status = "success"
        self.write(record)
        self.assertIsNone(self.execution(record.id))

    def test_the_end_by_another_server_is_ignored(self) -> None:
        record = self.running()
        record.status, record.server_id = "success", "somebody else"
        self.write(record)
        self.assertEqual("running", self.execution(record.id).status)

    def test_the_end_of_an_older_attempt_is_ignored(self) -> None:
        record = self.running()
        record.status, record.attempt = "success", 0
        self.write(record)
        self.assertEqual("running", self.execution(record.id).status)

    def test_the_end_of_one_that_was_settled_is_ignored(self) -> None:
        record = self.running()
        self.change(models.executions, record.id, status="error")
        record.status = "success"
        self.write(record)
        self.assertEqual("error", self.execution(record.id).status)

    def test_what_is_written_is_marked_so_that_it_is_updated_next(self) -> None:
        record = self.ended()
        self.write(record)
        self.assertEqual((True, True), (record.inserted, record.counted))

    def test_batches_of_many_writers_at_once_lose_no_count(self) -> None:
        functions = [self.function() for _ in range(3)]

        def write() -> None:
            writer = self.recording(self.open_database())
            for _ in range(5):
                writer.write([self.ended(function_id=each.id) for each in reversed(functions)], False)

        self.assertEqual([None] * 4, core.at_once(*[write] * 4))
        self.assertEqual([20, 20, 20], self.counts(*(each.id for each in functions)))

    # -- failures ----------------------------------------------------------------------------------------

    def test_a_batch_that_the_database_refuses_leaves_nothing(self) -> None:
        function = self.function()
        good, bad = self.ended(function_id=function.id), self.ended()
        bad.status = None  # type: ignore[assignment]
        self.assertRaises(errors.DriverError, self.write, good, bad)
        self.assertEqual([], self.rows(models.executions))
        self.assertEqual([0], self.counts(function.id))
        self.assertEqual((False, False), (good.inserted, good.counted))

    def test_after_a_refused_batch_the_next_is_written(self) -> None:
        bad = self.ended()
        bad.status = None  # type: ignore[assignment]
        self.assertRaises(errors.DriverError, self.write, bad)
        self.test_every_field_is_kept()

    def test_text_that_is_not_unicode_is_refused_and_the_next_batch_is_written(self) -> None:
        self.assertRaises(errors.DriverError, self.write, self.ended(), self.ended(result="\ud800"))
        self.assertEqual([], self.rows(models.executions))
        self.test_every_field_is_kept()

    def test_a_number_beyond_64_bits_is_refused_and_the_next_batch_is_written(self) -> None:
        self.assertRaises(errors.DriverError, self.write, self.ended(created_at=2**64))
        self.test_every_field_is_kept()

    def test_an_id_twice_is_refused(self) -> None:
        record = self.ended()
        self.write(record)
        self.assertRaises(errors.DriverError, self.write, self.ended(id=record.id))

    def test_closing_twice_is_a_no_op(self) -> None:
        self.write(self.ended())
        self.writer.close()
        self.writer.close()


class SQLiteDurabilityTests(RecordingCase):
    def test_a_durable_batch_waits_for_the_disk_and_another_does_not(self) -> None:
        levels = []
        for durable in (True, False, True):
            self.write(self.ended(), durable=durable)
            cursor = self.writer._connection.cursor()
            levels.append(cursor.execute("PRAGMA synchronous").fetchone()[0])
            cursor.close()
        self.assertEqual([2, 1, 2], levels)

    def test_a_connection_that_others_used_without_waiting_for_the_disk_waits_for_it_again(self) -> None:
        with self.db.write(durable=False):
            pass
        self.write(self.ended(), durable=True)
        cursor = self.writer._connection.cursor()
        self.assertEqual(2, cursor.execute("PRAGMA synchronous").fetchone()[0])
        cursor.close()


class OfAServer:
    """For databases that close connections; `tests.integration.test_databases` runs it."""

    def test_a_connection_that_the_server_closed_is_replaced(self) -> None:
        self.write(self.ended())
        self.break_connections()
        record = self.ended()
        self.write(record)
        self.assertIsNotNone(self.execution(record.id))

    def break_connections(self) -> None:
        """End every connection of the writer, as a restart of the server or a night without calls does."""
        self.writer._connection.driver_connection.close()
