"""The database: transactions, clocks, errors, and the schema from empty to newest."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, ClassVar

import alembic.autogenerate
import alembic.command
import alembic.runtime.migration
import sqlalchemy as sa
import testtools

from funcplat import errors
from funcplat.db import models, session
from tests import services
from tests.functional import core

T = models.servers
# One row of each table, with every column that the first version had and needed.
FIRST_ROWS: dict[str, dict[str, Any]] = {
    "installation": {"id": "i", "created_at": 1},
    "servers": {"id": "s", "node": "n", "started_at": 1, "lease_expires_at": 2},
    "runtimes": {
        "id": "r",
        "image": "python3",
        "is_public": True,
        "trusted": True,
        "status": "available",
        "orchestrator": "process",
        "project_id": "p",
        "created_at": 1,
    },
    "packages": {"digest": "d", "store": "local", "md5": "m", "size": 1, "state": "stored", "touched_at": 1},
    "functions": {
        "id": "f",
        "runtime_id": "r",
        "code": "{}",
        "entry": "main.main",
        "cpu": 100,
        "memory_size": 2**35,
        "timeout": 5,
        "environment": "{}",
        "count": 1,
        "latest_version": 0,
        "project_id": "p",
        "created_at": 1,
    },
    "revisions": {
        "id": "v",
        "function_id": "f",
        "version": 0,
        "current": True,
        "runtime_id": "r",
        "store": "local",
        "digest": "d",
        "entry": "main.main",
        "cpu": 100,
        "memory_size": 2**35,
        "environment": "{}",
        "created_at": 1,
    },
    "workers": {
        "id": "w",
        "revision_id": "v",
        "slot": 0,
        "function_id": "f",
        "function_version": 0,
        "project_id": "p",
        "orchestrator": "process",
        "server_id": "s",
        "node": "n",
        "state": "ready",
        "secret": "x",
        "concurrency": 3,
        "created_at": 1,
        "updated_at": 1,
        "used_at": 1,
    },
    "executions": {
        "id": "e",
        "function_id": "f",
        "function_version": 0,
        "status": "queued",
        "sync": False,
        "project_id": "p",
        "attempt": 0,
        "created_at": 1,
        "log": b"said",
    },
}


class TransactionsTests(core.DatabaseTest):
    def insert(self, server_id: str, db: session.Database | None = None, **options: Any) -> None:
        values = {"id": server_id, "node": "n", "started_at": 1, "lease_expires_at": 1}
        with (db or self.db).write(**options) as connection:
            connection.execute(sa.insert(T).values(values))

    def test_what_is_written_is_read(self) -> None:
        self.insert("a")
        self.assertEqual(["a"], [row.id for row in self.rows(T)])

    def test_a_transaction_that_fails_leaves_nothing(self) -> None:
        with contextlib.suppress(ZeroDivisionError), self.db.write() as connection:
            connection.execute(sa.insert(T).values(id="a", node="n", started_at=1, lease_expires_at=1))
            raise ZeroDivisionError
        self.assertEqual([], self.rows(T))

    def test_two_writers_that_read_first_do_not_fail(self) -> None:
        self.insert("a")

        def count() -> None:
            for _ in range(10):
                with self.db.write() as connection:
                    query = sa.select(T.c.started_at).where(T.c.id == "a").with_for_update()
                    value = connection.execute(query).scalar_one()
                    connection.execute(sa.update(T).values(started_at=value + 1))

        self.assertEqual([None] * 4, core.at_once(*[count] * 4))
        self.assertEqual(41, self.row(T, "a").started_at)

    def test_readers_do_not_wait_for_a_writer(self) -> None:
        with self.db.write() as connection:
            connection.execute(sa.insert(T).values(id="a", node="n", started_at=1, lease_expires_at=1))
            self.assertEqual([], self.rows(T))

    def test_updated_rows_are_counted_though_nothing_changes(self) -> None:
        self.insert("a")
        with self.db.write() as connection:
            self.assertEqual(1, connection.execute(sa.update(T).values(node="n")).rowcount)

    def test_the_databases_clock_is_ours_within_a_second(self) -> None:
        with self.db.read() as connection:
            now = connection.execute(sa.select(models.now())).scalar_one()
        self.assertAlmostEqual(time.time(), now / 1e6, delta=1.0)
        self.assertIsInstance(now, int)

    def test_the_databases_clock_does_not_depend_on_time_zones(self) -> None:
        statement = {
            "postgresql": "SET TIME ZONE 'America/New_York'",
            "mariadb": "SET time_zone = '-05:00'",
            "mysql": "SET time_zone = '-05:00'",
        }.get(self.db.engine.dialect.name, "SELECT 1")
        with self.db.read() as connection:
            connection.execute(sa.text(statement))
            now = connection.execute(sa.select(models.now())).scalar_one()
        self.assertAlmostEqual(time.time(), now / 1e6, delta=1.0)

    def test_the_clock_can_be_stored_and_compared(self) -> None:
        self.insert("a")
        with self.db.write() as connection:
            connection.execute(sa.update(T).values(lease_expires_at=models.now() + 5_000_000))
            found = connection.execute(sa.select(T.c.id).where(T.c.lease_expires_at > models.now())).all()
        self.assertEqual(1, len(found))

    def test_ping_is_quiet_where_the_database_answers(self) -> None:
        self.assertIsNone(self.db.ping())

    def test_identifiers_that_differ_in_case_differ(self) -> None:
        self.insert("a")
        self.insert("A")
        self.assertEqual(2, len(self.rows(T)))


class SchemaTests(testtools.TestCase):
    """Databases that nothing has upgraded yet."""

    database: ClassVar[str] = "sqlite"

    def setUp(self) -> None:
        super().setUp()
        self.url = self.empty()
        self.db = self.open_database()

    def empty(self) -> str:
        if self.database != "sqlite":
            return str(self.useFixture(services.database(self.database)).url)
        return session.sqlite_url(pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) / "x")

    def open_database(self) -> session.Database:
        db = session.Database(self.url)
        self.addCleanup(db.close)
        return db

    def test_an_upgrade_from_empty_makes_exactly_the_tables_of_the_models(self) -> None:
        self.db.upgrade()
        with self.db.engine.connect() as connection:
            context = alembic.runtime.migration.MigrationContext.configure(
                connection, opts={"compare_type": True, "compare_server_default": True}
            )
            self.assertEqual([], alembic.autogenerate.compare_metadata(context, models.metadata))

    def test_a_second_upgrade_is_a_no_op(self) -> None:
        self.assertEqual(self.db.upgrade(), self.db.upgrade())

    def test_two_upgrades_at_once_both_succeed(self) -> None:
        code = "import sys; from funcplat.db import session; session.Database(sys.argv[1]).upgrade()"
        argv = [sys.executable, "-c", code, self.url]
        processes = [subprocess.Popen(argv, stderr=subprocess.PIPE) for _ in range(2)]
        ended = [(process.communicate()[1], process.returncode) for process in processes]
        self.assertEqual([(b"", 0)] * 2, ended)
        self.assertEqual(self.db.wanted_version(), self.db.check())

    def test_an_upgrade_lets_no_other_begin_between_two_versions(self) -> None:
        if self.database != "sqlite":
            return  # their locks outlast a transaction: the test above
        another, seen = self.open_database(), []
        sa.event.listen(self.db.engine, "begin", lambda conn: seen.append(another.found_version()))
        self.db.upgrade()
        seen.append(another.found_version())
        self.assertEqual({None, self.db.wanted_version()}, set(seen))

    def test_an_upgrade_from_the_first_version_keeps_every_row(self) -> None:
        alembic.command.upgrade(self.db._alembic(), "0001")
        first = sa.MetaData()
        first.reflect(self.db.engine)
        for table in FIRST_ROWS:
            with self.db.write() as connection:
                connection.execute(sa.insert(first.tables[table]).values(**FIRST_ROWS[table]))
        self.db.upgrade()
        for name, row in FIRST_ROWS.items():
            table = models.metadata.tables[name]
            with self.db.read() as connection:
                query = sa.select(*[table.c[column] for column in row])
                self.assertEqual([tuple(row.values())], [tuple(each) for each in connection.execute(query)])

    def test_an_upgrade_leaves_references_enforced(self) -> None:
        self.db.upgrade()
        row = {**FIRST_ROWS["revisions"], "function_id": "nobody"}
        with self.assertRaises(sa.exc.IntegrityError), self.db.write() as connection:
            connection.execute(sa.insert(models.revisions).values(**row))

    def test_an_empty_database_is_refused_with_the_command_to_run(self) -> None:
        self.assertIsNone(self.db.found_version())
        error = self.assertRaises(errors.SchemaError, self.db.check)
        self.assertIn("(none)", str(error))
        self.assertIn("run: funcplat db upgrade", str(error))

    def test_a_schema_of_another_release_is_refused_naming_both_versions(self) -> None:
        self.db.upgrade()
        with self.db.write() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        error = self.assertRaises(errors.SchemaError, self.db.check)
        self.assertIn("9999", str(error))
        self.assertIn(self.db.wanted_version(), str(error))

    def test_text_columns_keep_any_unicode_whatever_the_database_defaults_to(self) -> None:
        if self.database == "mariadb":
            with self.db.engine.begin() as connection:
                name = self.db.url.database
                connection.execute(sa.text(f"ALTER DATABASE {name} CHARACTER SET latin1"))
        self.db.upgrade()
        with self.db.write() as connection:
            connection.execute(
                sa.insert(models.servers).values(id="🐘", node="世界", started_at=1, lease_expires_at=1)
            )
        with self.db.read() as connection:
            self.assertEqual("🐘", connection.execute(sa.select(models.servers.c.id)).scalar_one())


class SQLiteTests(core.DatabaseTest):
    def pragma(self, name: str, **options: Any) -> Any:
        with self.db.write(**options) as connection:
            return connection.exec_driver_sql(f"PRAGMA {name}").scalar()

    def test_the_journal_is_a_write_ahead_log(self) -> None:
        self.assertEqual("wal", self.pragma("journal_mode"))

    def test_foreign_keys_are_enforced(self) -> None:
        self.assertEqual(1, self.pragma("foreign_keys"))

    def test_a_durable_transaction_waits_for_the_disk_and_another_does_not(self) -> None:
        levels = [self.pragma("synchronous", durable=durable) for durable in (True, False, True)]
        self.assertEqual([2, 1, 2], levels)

    def test_a_writer_holds_the_lock_from_its_start(self) -> None:
        began, order = threading.Event(), []

        def second() -> None:
            began.wait(core.PATIENCE)
            with self.db.write():
                order.append("second")

        with self.db.write():
            other = core.spawn(second)
            began.set()
            time.sleep(0.05)
            order.append("first")
        other.result(core.PATIENCE)
        self.assertEqual(["first", "second"], order)

    def test_looking_at_the_version_makes_no_file(self) -> None:
        path = self.home / "none.sqlite"
        with contextlib.closing(session.Database(session.sqlite_url(path))) as db:
            self.assertIsNone(db.found_version())
        self.assertFalse(path.exists())


class FailuresTests(testtools.TestCase):
    def unreachable(self, driver: str) -> session.Database:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            port = reserved.getsockname()[1]
        db = session.Database(f"{driver}://somebody@127.0.0.1:{port}/x")
        self.addCleanup(db.close)
        return db

    def test_a_server_that_cannot_be_reached_is_unavailable(self) -> None:
        for driver in ("postgresql+psycopg", "mysql+pymysql"):
            error = self.assertRaises(errors.DriverUnavailable, self.unreachable(driver).ping)
            self.assertIn("the database does not answer", str(error))

    def test_at_start_a_server_that_cannot_be_reached_is_a_wrong_configuration(self) -> None:
        for driver in ("postgresql+psycopg", "mysql+pymysql"):
            db = self.unreachable(driver)
            for ask in (db.check, db.found_version, db.upgrade):
                self.assertRaises(errors.ConfigError, ask)

    def test_a_sqlite_file_that_cannot_be_opened_is_a_wrong_configuration(self) -> None:
        with contextlib.closing(session.Database("sqlite:////nowhere/at/all.sqlite")) as db:
            self.assertRaises(errors.ConfigError, db.upgrade)

    def test_a_file_that_is_no_database_is_a_wrong_configuration(self) -> None:
        path = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) / "x"
        path.write_text("not a database " * 100)
        with contextlib.closing(session.Database(session.sqlite_url(path))) as db:
            self.assertRaises(errors.ConfigError, db.upgrade)

    def test_an_url_that_is_none_is_a_wrong_configuration(self) -> None:
        for url in ("x", "", "postgresql+nothing://x", "oracle://x", "nothing://"):
            self.assertRaises(errors.ConfigError, session.Database, url)

    def test_the_message_of_a_bad_url_does_not_show_its_password(self) -> None:
        error = self.assertRaises(errors.ConfigError, session.Database, "nothing://me:geheim@host/x")
        self.assertNotIn("geheim", str(error))

    def test_a_full_pool_is_unavailable_rather_than_a_defect(self) -> None:
        path = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) / "x"
        with contextlib.closing(session.Database(session.sqlite_url(path), 1)) as db:
            db.engine.pool._timeout = 0.05
            with db.read():
                self.assertRaises(errors.DriverUnavailable, db.ping)
