"""The core on a real database, with a fake orchestrator of real workers and a store in memory.

What a test class does on SQLite it does on other databases in `tests.integration.test_databases`.
"""

from __future__ import annotations

import atexit
import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime
import functools
import io
import itertools
import pathlib
import shutil
import tempfile
import threading
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, ClassVar

import sqlalchemy as sa
import testtools

from funcplat import errors, plugins
from funcplat.auth.base import Identity
from funcplat.core import functions, packages, runtimes
from funcplat.core.aliases import Aliases
from funcplat.core.code import Code
from funcplat.core.deliveries import Deliveries, DeliveryOptions
from funcplat.core.executions import Executions, Record, new_id
from funcplat.core.idempotency import Idempotency
from funcplat.core.imageruns import ImageRuns
from funcplat.core.images import Images
from funcplat.core.interventions import Interventions
from funcplat.core.jobs import Jobs
from funcplat.core.listing import Listing
from funcplat.core.packagestore import PackageStore, StoreOptions
from funcplat.core.queue import Queue, QueueOptions
from funcplat.core.queueing import Acceptance
from funcplat.core.recording import Recording
from funcplat.core.retention import Retention, RetentionOptions
from funcplat.core.retries import RetryOptions
from funcplat.core.routes import Routes
from funcplat.core.servers import Servers
from funcplat.core.starts import Starts
from funcplat.core.tallies import NAMES, Tallies
from funcplat.core.ticks import Ticks
from funcplat.core.versions import Versions
from funcplat.core.webhooks import Webhooks
from funcplat.core.workers import Worker, WorkerOptions, Workers
from funcplat.db import models, session
from funcplat.drivers import base as driver_base
from funcplat.storage import base as storage_base
from funcplat.testing import fakes, workerclient
from tests import services

OWNER = "00000000-0000-4000-8000-000000000000"
ALICE = Identity("alices", "alice", frozenset({"member"}))
BOB = Identity("bobs", "bob", frozenset({"member"}))
ADMIN = Identity("admins", "root", frozenset({"admin"}))
ALL = Listing()
PATIENCE = 20.0
"""Seconds until a test gives up on what should take milliseconds."""
MAX_VERSIONS = 4
MAIN = "def main(**kwargs):\n    return kwargs\n"
LIMITS = packages.PackageLimits(max_size=2**20, members=100, depth=8, unpacked_size=2**22, ratio=200.0)


# -- databases -----------------------------------------------------------------------------------------------


@functools.cache
def _template() -> pathlib.Path:
    """An upgraded SQLite file to copy: migrations take longer than most tests."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="funcplat-template-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    path = directory / "template.sqlite"
    with contextlib.closing(session.Database(session.sqlite_url(path))) as db:
        db.upgrade()
    return path


class DatabaseTest(testtools.TestCase):
    """Tests with a database at the newest schema and without rows."""

    database: ClassVar[str] = "sqlite"  # or the name of a server
    url: ClassVar[str]
    _databases: ClassVar[list[session.Database]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.url = cls._make_database()
        # Kept for the next test: what they have compiled and connected takes longer than most tests.
        cls._databases = []
        cls.addClassCleanup(lambda: [db.close() for db in cls._databases])

    @classmethod
    def _make_database(cls) -> str:
        if cls.database == "sqlite":
            path = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory())) / "test.sqlite"
            shutil.copy(_template(), path)
            return session.sqlite_url(path)
        fixture = services.database(cls.database)
        fixture.setUp()
        cls.addClassCleanup(fixture.cleanUp)
        with contextlib.closing(session.Database(fixture.url)) as db:
            db.upgrade()
        return fixture.url

    def setUp(self) -> None:
        super().setUp()
        # A worker of the fake engine may write its module's cache there until the engine has ended it.
        directory = tempfile.TemporaryDirectory(prefix="core-", ignore_cleanup_errors=True)
        self.home = pathlib.Path(self.enterContext(directory))
        self._unopened = iter(self._databases[:])
        self.db = self.open_database()
        with self.db.write(durable=False) as connection:
            for table in reversed(models.metadata.sorted_tables):
                connection.execute(sa.delete(table))
            shards = [{"shard": shard, **dict.fromkeys(NAMES, 0)} for shard in range(models.SHARDS)]
            connection.execute(sa.insert(models.tallies), shards)

    def open_database(self) -> session.Database:
        """The database once more, on connections of its own, as another process has them."""
        db = next(self._unopened, None)
        if db is None:
            db = session.Database(self.url)
            self._databases.append(db)
        return db

    def row(self, table: sa.Table, row_id: str) -> Any:
        with self.db.read() as connection:
            return connection.execute(sa.select(table).where(table.c.id == row_id)).first()

    def rows(self, table: sa.Table, *where: Any) -> list[Any]:
        with self.db.read() as connection:
            return list(connection.execute(sa.select(table).where(*where)))

    def change(self, table: sa.Table, row_id: str, **values: Any) -> None:
        with self.db.write() as connection:
            connection.execute(sa.update(table).where(table.c.id == row_id).values(values))


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Call all of them at the same moment, each in a thread of its own: what they return, or raise."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(PATIENCE)
        try:
            return call()
        except Exception as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def spawn(call: Callable[[], Any]) -> concurrent.futures.Future[Any]:
    """Call it in a thread of its own."""
    pool = concurrent.futures.ThreadPoolExecutor(1)
    try:
        return pool.submit(call)
    finally:
        pool.shutdown(wait=False)


# -- drivers -------------------------------------------------------------------------------------------------


class MemoryStore(storage_base.StorageDriver):
    """Packages in a dictionary; `before` is called with a method's name at the start of each call of it."""

    capabilities = frozenset({storage_base.Capability.PACKAGES})

    def __init__(self) -> None:
        self.packages: dict[str, bytes] = {}
        self.before: Callable[[str], None] = lambda method: None
        self.calls: collections.Counter[str] = collections.Counter()

    def _enter(self, method: str) -> None:
        self.calls[method] += 1
        self.before(method)

    def put(self, digest: str, size: int, data: BinaryIO, deadline: float) -> None:
        self._enter("put")
        self.packages[digest] = data.read()

    @contextlib.contextmanager
    def open(self, digest: str, deadline: float) -> Iterator[Iterator[bytes]]:
        self._enter("open")
        if digest not in self.packages:
            raise errors.PackageMissing
        yield iter([self.packages[digest]])

    def delete(self, digest: str, deadline: float) -> None:
        self._enter("delete")
        self.packages.pop(digest, None)


class DeadOnArrival(fakes.FakeOrchestrator):
    """Its workers die as soon as they are started."""

    def start_worker(self, spec: driver_base.WorkerSpec, deadline: float) -> driver_base.Handle:
        handle = super().start_worker(spec, deadline)
        self.engine.kill(spec.worker_id)
        return handle


class Mortal(fakes.FakeOrchestrator):
    """Its workers die with their server, as those of the process driver."""

    capabilities = frozenset({driver_base.Capability.CODE_PATH})


@functools.cache
def _engine() -> fakes.FakeEngine:
    """The engine of this process's tests, each of which is an installation of its own in it."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="core-engine-", dir="/tmp"))
    engine = fakes.FakeEngine(directory)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    atexit.register(engine.close)
    return engine


# -- the core ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Core:
    """What one server process has of the core."""

    server_id: str
    servers: Servers
    store: PackageStore
    runtimes: runtimes.Runtimes
    functions: functions.Functions
    versions: Versions
    aliases: Aliases
    workers: Workers
    starts: Starts
    image_runs: ImageRuns
    routes: Routes
    executions: Executions
    jobs: Jobs
    ticks: Ticks
    webhooks: Webhooks
    deliveries: Deliveries
    queue: Queue
    interventions: Interventions
    idempotency: Idempotency
    tallies: Tallies
    retention: Retention


class CoreTest(DatabaseTest):
    """Tests of the core: `core` is one server, `server` makes more of them."""

    max_attempts = 3
    retry_delay = 0.0
    lease = 30.0
    driver_class: type[fakes.FakeOrchestrator] = fakes.FakeOrchestrator
    clock: sa.ColumnElement[int] = models.now()
    retention = RetentionOptions(0.0, 0.0)

    def setUp(self) -> None:
        super().setUp()
        self.engine = _engine()
        self.owner = str(uuid.uuid4())
        self.memory = MemoryStore()
        self.core = self.server()
        self.addCleanup(self._clear_engine)

    def _clear_engine(self) -> None:
        for worker in self.owned():
            self.engine.stop(worker, 0.0)

    def owned(self) -> list[Any]:
        """The workers that exist in the engine, of this test."""
        return [worker for worker in self.engine.workers() if worker.spec.owner == self.owner]

    def server(self, **options: Any) -> Core:
        """One more server of this installation, on its own connections."""
        db = self.open_database()
        server_id = str(uuid.uuid4())
        driver_class = options.pop("driver_class", self.driver_class)
        orchestrators = {"fake": self.orchestrator(driver_class)}
        storage = plugins.GuardedStorage("memory", self.memory)
        self.addCleanup(storage.close)
        grace = options.pop("grace", 3600.0)
        references = options.pop("references", {})
        store = self._store(db, storage, grace)
        per_function = options.pop("per_function", 32)
        worker_options = self._worker_options(server_id, options)
        workers = Workers(db, orchestrators, worker_options)
        images = Images(references, orchestrators, "fake", 10.0, 10.0)
        starts = Starts(db, orchestrators, store, images, workers, worker_options)
        tallies = Tallies(db, server_id)
        acceptance = Acceptance(tallies, 3600.0)
        queue = Queue(db, server_id, tallies, QueueOptions(self.retries(), per_function))
        core = Core(
            server_id=server_id,
            servers=Servers(db, server_id, worker_options.node, self.lease),
            store=store,
            runtimes=runtimes.Runtimes(db, orchestrators, "fake", 200),
            functions=functions.Functions(db, store, Code(store, images), _limits(), workers.supersede),
            versions=Versions(db, MAX_VERSIONS, workers.supersede),
            aliases=Aliases(db),
            workers=workers,
            starts=starts,
            image_runs=ImageRuns(orchestrators, images, starts, workers, worker_options),
            routes=Routes(db, workers),
            executions=Executions(db),
            jobs=Jobs(db, self.clock, 2**20),
            ticks=Ticks(db, self.clock, 60.0, 2**20, acceptance),
            webhooks=Webhooks(db, self.clock, 86400.0),
            deliveries=Deliveries(db, self.clock, DeliveryOptions(300.0, 86400.0, 2**20), acceptance),
            queue=queue,
            interventions=Interventions(db, queue, tallies, 3600.0),
            idempotency=Idempotency(db, acceptance, 3600.0),
            tallies=tallies,
            retention=Retention(db, self.clock, self.retention),
        )
        core.servers.register()
        return core

    def retries(self) -> RetryOptions:
        return RetryOptions(self.max_attempts, self.retry_delay)

    def orchestrator(self, driver_class: type[fakes.FakeOrchestrator]) -> plugins.GuardedOrchestrator:
        context = driver_base.Context(
            self.owner, self.home, False, lambda: datetime.datetime.now(datetime.UTC)
        )
        driver = driver_class(fakes.options(), context, self.engine)
        guarded = plugins.GuardedOrchestrator("fake", driver, runs=8)
        self.addCleanup(guarded.close)
        return guarded

    def _store(self, db: session.Database, storage: plugins.GuardedStorage, grace: float) -> PackageStore:
        options = StoreOptions("memory", LIMITS, 10.0, grace, self.home / "spool")
        cache = packages.CodeCache(self.home / "code", LIMITS, 2**30)
        return PackageStore(db, {"memory": storage}, cache, options)

    def _worker_options(self, server_id: str, options: Mapping[str, Any]) -> WorkerOptions:
        defaults = WorkerOptions(
            owner=self.owner,
            server_id=server_id,
            node="here",
            concurrency=3,
            pids=64,
            disk=2**26,
            import_timeout=10.0,
            max_result=2**20,
            max_log=2**20,
            max_per_function=20,
            max_per_project=100,
            max_per_node=200,
            start_deadline=10.0,
            max_timeout=300.0,
            stop_grace=5.0,
        )
        return dataclasses.replace(defaults, **options)

    # -- what most tests need ----------------------------------------------------------------------------

    def runtime(self, **fields: Any) -> str:
        """The id of a new runtime that is available."""
        created = self.core.runtimes.create(ADMIN, runtimes.NewRuntime("python3", **fields))
        self.core.runtimes.settle()
        self.assertEqual("available", self.core.runtimes.get(ADMIN, created.id).status)
        return created.id

    def function(
        self, identity: Identity = ALICE, source: str = MAIN, core: Core | None = None, **fields: Any
    ) -> functions.Function:
        fields.setdefault("runtime_id", None)
        if fields["runtime_id"] is None:
            fields["runtime_id"] = self.runtime()
        new = functions.NewFunction(code={"source": "package"}, **fields)
        with self.package(source) as package:
            return (core or self.core).functions.create(identity, new, package)

    @contextlib.contextmanager
    def package(self, source: str = MAIN) -> Iterator[packages.Spooled]:
        """An upload: a ZIP with ``main.py``."""
        with packages.Spool(self.home / "spool", LIMITS.max_size) as spool:
            spool.write(zipped(source))
            yield spool.finish()

    def revision(self, function: functions.Function, version: int = 0) -> Any:
        with self.db.read() as connection:
            return functions.current_revision(connection, function.id, version)

    def start(self, function: functions.Function, core: Core | None = None, version: int = 0) -> str:
        """The id of a new worker that is ready."""
        return (core or self.core).starts.start(self.revision(function, version).id).id

    def worker(self, worker_id: str) -> Any:
        """The worker's row."""
        return self.row(models.workers, worker_id)

    def state(self, worker_id: str) -> tuple[str, str | None]:
        row = self.worker(worker_id)
        return row.state, row.reason_code

    # -- executions --------------------------------------------------------------------------------------

    def record(self, **fields: Any) -> Record:
        """A record of an asynchronous execution that is queued."""
        values: dict[str, Any] = {
            "id": new_id(),
            "function_id": str(uuid.uuid4()),
            "function_version": 0,
            "function_alias": None,
            "description": None,
            "status": "queued",
            "sync": False,
            "input": None,
            "result": None,
            "reason_code": None,
            "reason_message": None,
            "project_id": ALICE.project_id,
            "worker_id": None,
            "attempt": 0,
            "server_id": None,
            "created_at": session.micros(),
            "updated_at": None,
        }
        return Record(**(values | fields))

    def recording(self, db: session.Database | None = None) -> Recording:
        recording = Recording(db or self.db)
        self.addCleanup(recording.close)
        return recording

    def queue(self, **fields: Any) -> Record:
        """An execution that is queued in the database."""
        record = self.record(**fields)
        self._queueing.write([record], durable=True)
        return record

    @functools.cached_property
    def _queueing(self) -> Recording:
        return self.recording()

    def execution(self, execution_id: str) -> Any:
        """The execution's row."""
        return self.row(models.executions, execution_id)


def zipped(source: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(zipfile.ZipInfo("main.py"), source)  # without a time: the same bytes each time
    return data.getvalue()


def _limits() -> dict[str, functions.Limits]:
    return {
        "cpu": functions.Limits(100, 100, 300),
        "memory": functions.Limits(2**25, 2**25, 2**27),
        "timeout": functions.Limits(5, 1, 300),
    }


def call(worker: Worker, execution_id: str) -> int:
    """The status with which a worker answers a call."""
    with workerclient.WorkerClient(worker.handle.address) as client:
        client.send_invoke(None, secret=worker.secret)
        return client.receive().status


@contextlib.contextmanager
def failing_statement(db: session.Database, start: str, after: int) -> Iterator[None]:
    """Lose the database's answer to statements that start so, once they ran ``after`` times."""
    seen = itertools.count()

    def lose(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().startswith(start) and next(seen) >= after:
            raise sa.exc.OperationalError(statement, {}, ConnectionError("lost"))

    sa.event.listen(db.engine, "before_cursor_execute", lose)
    try:
        yield
    finally:
        sa.event.remove(db.engine, "before_cursor_execute", lose)
