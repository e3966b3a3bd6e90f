"""What the core does on SQLite it does on PostgreSQL and MariaDB."""

from __future__ import annotations

import concurrent.futures
import contextlib
import pathlib
import subprocess
import sys
import tempfile
import threading
from typing import Any

import httpx
import sqlalchemy as sa
import testtools
from testtools import content

from funcplat import errors
from funcplat.core.aliases import ATTEMPTS, Changes
from funcplat.db import models, session
from tests import services
from tests.functional import (
    core,
    platform,
    test_core_aliases,
    test_core_database,
    test_core_executions,
    test_core_functions,
    test_core_jobs,
    test_core_packages,
    test_core_queue,
    test_core_retention,
    test_core_runtimes,
    test_core_versions,
    test_core_webhooks,
    test_core_workers,
    test_queue_model,
    test_recording,
)
from tests.services import processes


class SeparateProcesses(testtools.TestCase):
    """``funcplat api`` and ``funcplat engine`` side by side, on one database and one machine."""

    database = "postgresql"

    def setUp(self) -> None:
        super().setUp()
        self.home = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="apart-", dir="/tmp")))
        url = self.useFixture(services.database(self.database)).url
        self.port = processes.free_port()
        self.conf = platform.configuration(
            self.home,
            {
                "DEFAULT": {"state_dir": self.home / "s"},
                "api": {"port": self.port, "shutdown_grace": 1},
                "database": {"connection": url},
                "engine": {"poll_interval": 0.1},
                "storage_local": {"directory": self.home / "packages"},
                "resource_limits": {"max_cpu": 2000, "default_cpu": 1000},
            },
        )
        self.run_command("db", "upgrade")
        self.api = self.enterContext(
            httpx.Client(base_url=f"http://127.0.0.1:{self.port}/v1", timeout=platform.PATIENCE)
        )

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "funcplat.cmd", *words, "--config-file", str(self.conf)]

    def run_command(self, *words: str) -> None:
        subprocess.run(self.command(*words), check=True, capture_output=True)

    def serve(self, word: str, name: str = "", *more: str) -> subprocess.Popen[bytes]:
        """A server process, which is ended with SIGTERM after the test, unless it has ended before."""
        name = name or word
        log = self.enterContext((self.home / f"{name}.log").open("ab"))
        process = subprocess.Popen([*self.command(word), *more], stdout=log, stderr=log)
        self.addCleanup(self.end, process)
        self.addOnException(lambda _: self.addDetail(name, self.log(name)))
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        if process.returncode is not None:
            return
        process.terminate()
        try:
            self.assertEqual(0, process.wait(platform.PATIENCE))
        finally:
            process.kill()

    def log(self, word: str) -> Any:
        return content.text_content((self.home / f"{word}.log").read_text())

    def answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self.api.get(f"http://127.0.0.1:{self.port}/readyz").status_code == 200
        return False

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self.api.post(path, **body)
        self.assertEqual(201, answer.status_code, answer.text)
        made: dict[str, Any] = answer.json()
        return made

    def becomes(self, path: str, status: str) -> dict[str, Any]:
        def shown() -> Any:
            found = self.api.get(path).json()
            return found if found["status"] == status else None

        found: dict[str, Any] = platform.until(shown, f"{path} is {status}")
        return found


class SeparateProcessesTests(SeparateProcesses):
    def test_both_run_executions(self) -> None:
        self.serve("api")
        platform.until(self.answers, "the API answers")
        runtime = self.post("/runtimes", json={"image": "python3"})
        self.becomes(f"/runtimes/{runtime['id']}", "available")
        form = {"runtime_id": runtime["id"], "code": '{"source": "package"}'}
        function = self.post("/functions", data=form, files={"package": ("f.zip", platform.package())})
        body = {"function_id": function["id"], "input": '{"name": "both"}'}

        # Accepted while there is no engine, and run by the next one.
        asynchronous = self.post("/executions", json={**body, "sync": False})
        synchronous = self.post("/executions", json={**body, "sync": True})
        self.assertEqual("running", self.api.get(f"/executions/{asynchronous['id']}").json()["status"])
        self.serve("engine")

        self.assertEqual("success", synchronous["status"], synchronous)
        ended = self.becomes(f"/executions/{asynchronous['id']}", "success")
        self.assertIn("Hello, both!", ended["result"])
        log = self.api.get(f"/executions/{asynchronous['id']}/log").text
        self.assertIn("greeting both", log)
        self.assertEqual(2, self.api.get(f"/functions/{function['id']}").json()["count"])


class SeparateProcessesOnMariaDBTests(SeparateProcessesTests):
    database = "mariadb"


class MeddlingTests(test_core_aliases.AliasTest):
    """Others change an alias between the look at it and its change; on SQLite nobody can."""

    database = "postgresql"

    def setUp(self) -> None:
        super().setUp()
        self.alias = self.create()
        self.aliases = self.server().aliases

    def meddle(self, times: int) -> list[str]:
        """Change the alias while each of its next changes asks for its target: the statements of these."""
        seen: list[str] = []

        def change(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
            if "FOR UPDATE" in statement and len(seen) < times:
                seen.append(statement)
                version = 2 + len(seen) % 2
                self.change(models.function_aliases, self.alias.id, function_version=version)

        engine = self.aliases._db.engine
        sa.event.listen(engine, "before_cursor_execute", change)
        self.addCleanup(sa.event.remove, engine, "before_cursor_execute", change)
        return seen

    def test_an_alias_that_others_keep_changing_is_a_conflict(self) -> None:
        seen = self.meddle(times=ATTEMPTS)
        changes = Changes(function_version=0)
        self.assertRaises(errors.Conflict, self.aliases.update, core.ALICE, "prod", changes)
        self.assertEqual(ATTEMPTS, len(seen))
        self.assertEqual(2 + ATTEMPTS % 2, self.resolved().version)

    def test_a_change_in_between_is_seen_and_the_own_one_made_after_it(self) -> None:
        seen = self.meddle(times=1)
        self.aliases.update(core.ALICE, "prod", Changes(function_version=0))
        self.assertEqual((1, 0), (len(seen), self.resolved().version))


class MeddlingOnMariaDBTests(MeddlingTests):
    database = "mariadb"


class PostgreSQLTransactions(test_core_database.TransactionsTests):
    database = "postgresql"


class PostgreSQLSchema(test_core_database.SchemaTests):
    database = "postgresql"


class PostgreSQLRuntimes(test_core_runtimes.RuntimesTests):
    database = "postgresql"


class PostgreSQLFunctions(test_core_functions.FunctionsTests):
    database = "postgresql"


class PostgreSQLJobs(test_core_jobs.JobsTests):
    database = "postgresql"


class PostgreSQLTicks(test_core_jobs.TicksTests):
    database = "postgresql"


class PostgreSQLJobsClock(test_core_jobs.DatabaseClockTests):
    database = "postgresql"


class PostgreSQLDeliveries(test_core_webhooks.DeliveriesTests):
    database = "postgresql"


class PostgreSQLVersions(test_core_versions.VersionsTests):
    database = "postgresql"


class PostgreSQLAliases(test_core_aliases.AliasesTests):
    database = "postgresql"


class PostgreSQLPackages(test_core_packages.PackagesTests):
    database = "postgresql"


class PostgreSQLStarts(test_core_workers.StartsTests):
    database = "postgresql"


class PostgreSQLWorkersDown(test_core_workers.DownTests):
    database = "postgresql"


class PostgreSQLReap(test_core_workers.ReapTests):
    database = "postgresql"


class PostgreSQLQueue(test_core_executions.QueueTests):
    database = "postgresql"


class PostgreSQLRetry(test_core_queue.RetryTests):
    database = "postgresql"


class PostgreSQLAge(test_core_queue.AgeTests):
    database = "postgresql"


class PostgreSQLCancel(test_core_queue.CancelTests):
    database = "postgresql"


class PostgreSQLDeadLetter(test_core_queue.DeadLetterTests):
    database = "postgresql"


class PostgreSQLCensus(test_core_queue.CensusTests):
    database = "postgresql"


class PostgreSQLFairness(test_core_queue.FairnessTests):
    database = "postgresql"


class PostgreSQLRetention(test_core_retention.RetentionTests):
    database = "postgresql"


class PostgreSQLQueueModel(test_queue_model.QueueModelTests):
    database = "postgresql"


class PostgreSQLLists(test_core_executions.ListsTests):
    database = "postgresql"


class PostgreSQLServers(test_core_executions.ServersTests):
    database = "postgresql"


class PostgreSQLRecording(test_recording.OfAServer, test_recording.RecordingTests):
    database = "postgresql"


class MariaDBTransactions(test_core_database.TransactionsTests):
    database = "mariadb"


class MariaDBSchema(test_core_database.SchemaTests):
    database = "mariadb"


class MariaDBRuntimes(test_core_runtimes.RuntimesTests):
    database = "mariadb"


class MariaDBFunctions(test_core_functions.FunctionsTests):
    database = "mariadb"


class MariaDBJobs(test_core_jobs.JobsTests):
    database = "mariadb"


class MariaDBTicks(test_core_jobs.TicksTests):
    database = "mariadb"


class MariaDBJobsClock(test_core_jobs.DatabaseClockTests):
    database = "mariadb"


class MariaDBDeliveries(test_core_webhooks.DeliveriesTests):
    database = "mariadb"


class MariaDBVersions(test_core_versions.VersionsTests):
    database = "mariadb"


class MariaDBAliases(test_core_aliases.AliasesTests):
    database = "mariadb"


class MariaDBPackages(test_core_packages.PackagesTests):
    database = "mariadb"


class MariaDBStarts(test_core_workers.StartsTests):
    database = "mariadb"


class MariaDBWorkersDown(test_core_workers.DownTests):
    database = "mariadb"


class MariaDBReap(test_core_workers.ReapTests):
    database = "mariadb"


class MariaDBQueue(test_core_executions.QueueTests):
    database = "mariadb"


class MariaDBRetry(test_core_queue.RetryTests):
    database = "mariadb"


class MariaDBAge(test_core_queue.AgeTests):
    database = "mariadb"


class MariaDBCancel(test_core_queue.CancelTests):
    database = "mariadb"


class MariaDBDeadLetter(test_core_queue.DeadLetterTests):
    database = "mariadb"


class MariaDBCensus(test_core_queue.CensusTests):
    database = "mariadb"


class MariaDBFairness(test_core_queue.FairnessTests):
    database = "mariadb"


class MariaDBLists(test_core_executions.ListsTests):
    database = "mariadb"


class MariaDBServers(test_core_executions.ServersTests):
    database = "mariadb"


class MariaDBRecording(test_recording.OfAServer, test_recording.RecordingTests):
    database = "mariadb"


class DeadlockTests(testtools.TestCase):
    """What `session.repeated` decorates outlives a deadlock, which the real database finds and ends."""

    database = "postgresql"

    def test_a_transaction_that_is_given_up_is_made_again(self) -> None:
        url = self.useFixture(services.database(self.database)).url
        table = sa.Table(
            "deadlocked",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("number", sa.Integer),
        )
        both_have_one = threading.Barrier(2)
        attempts: list[int] = []

        @session.repeated
        def count(*order: int) -> None:
            attempts.append(order[0])
            with db.write() as connection:
                for row in order:
                    more = {"number": table.c.number + 1}
                    connection.execute(sa.update(table).where(table.c.id == row).values(more))
                    if row == order[0] and attempts.count(row) == 1:
                        both_have_one.wait(30.0)

        with contextlib.closing(session.Database(url)) as db:
            table.create(db.engine)
            with db.write() as connection:
                connection.execute(sa.insert(table), [{"id": 1, "number": 0}, {"id": 2, "number": 0}])
            with concurrent.futures.ThreadPoolExecutor() as pool:
                for future in [pool.submit(count, 1, 2), pool.submit(count, 2, 1)]:
                    future.result(60.0)
            with db.read() as connection:
                numbers = connection.execute(sa.select(table.c.number)).scalars().all()
        self.assertEqual(([2, 2], 3), (numbers, len(attempts)))


class MariaDBDeadlockTests(DeadlockTests):
    database = "mariadb"
