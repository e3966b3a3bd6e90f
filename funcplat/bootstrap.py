"""The composition root: builds everything from configuration, in the one order that works.

Nothing here or below holds a global; whoever needs something is handed it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import datetime
import functools
import ipaddress
import logging
import pathlib
import platform
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

from oslo_config import cfg

from funcplat import errors, plugins, statedir
from funcplat.auth.base import AuthDriver
from funcplat.core import packages, servers
from funcplat.core.aliases import Aliases
from funcplat.core.code import Code
from funcplat.core.deliveries import Deliveries, DeliveryOptions
from funcplat.core.executions import Executions
from funcplat.core.functions import Functions, Limits
from funcplat.core.idempotency import Idempotency
from funcplat.core.imageruns import ImageRuns
from funcplat.core.images import Images
from funcplat.core.interventions import Interventions
from funcplat.core.jobs import Jobs
from funcplat.core.packagestore import PackageStore, StoreOptions
from funcplat.core.queue import Queue, QueueOptions
from funcplat.core.queueing import Acceptance
from funcplat.core.recording import Recording
from funcplat.core.retention import Retention, RetentionOptions
from funcplat.core.retries import RetryOptions
from funcplat.core.routes import Routes
from funcplat.core.runtimes import Runtimes
from funcplat.core.starts import Starts
from funcplat.core.tallies import Tallies
from funcplat.core.ticks import Ticks
from funcplat.core.versions import Versions
from funcplat.core.webhooks import Webhooks
from funcplat.core.workers import WorkerOptions, Workers
from funcplat.db import models, session
from funcplat.drivers.base import Context
from funcplat.invoke import client
from funcplat.invoke.aliases import AliasTable
from funcplat.invoke.calls import Calls
from funcplat.invoke.oneshots import OneShots
from funcplat.invoke.recorder import Recorder
from funcplat.invoke.router import Router, RouterOptions

LOG = logging.getLogger(__name__)
NO_DIGEST = "0" * 64
CODE_CACHE_SIZE = 4 * 1024**3
"""Bytes of unpacked packages that are kept on this machine beyond those in use."""


@dataclasses.dataclass(frozen=True, slots=True)
class Services:
    """Everything synchronous of one server process."""

    conf: cfg.ConfigOpts
    state_dir: pathlib.Path
    server_id: str
    db: session.Database
    orchestrators: dict[str, plugins.GuardedOrchestrator]
    storages: dict[str, plugins.GuardedStorage]
    auth: AuthDriver
    servers: servers.Servers
    store: PackageStore
    runtimes: Runtimes
    functions: Functions
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


@dataclasses.dataclass(frozen=True, slots=True)
class Invocation:
    """Everything asynchronous of one server process: the invocation path."""

    run: Callable[..., Coroutine[Any, Any, Any]]  # await a synchronous function in a thread
    router: Router
    aliases: AliasTable
    one_shots: OneShots
    recorder: Recorder
    calls: Calls


@contextlib.contextmanager
def services(conf: cfg.ConfigOpts) -> Iterator[Services]:
    """Build, check and register one server process; at exit it leaves in order.

    Raises ConfigError where it cannot serve: the message says what to change.
    """
    state_dir = statedir.prepare(conf)
    with contextlib.ExitStack() as stack:
        db = database(conf, state_dir)
        stack.callback(db.close)
        if db.is_sqlite:
            stack.enter_context(statedir.locked(state_dir))
        _prepare_schema(conf, db)
        built = _build(conf, state_dir, db, stack)
        _check(built)
        built.servers.register()
        stack.callback(built.servers.leave)
        if db.is_sqlite:
            built.servers.forget_others()
        built.workers.forget_dead()
        built.queue.settle_lost()
        yield built


@contextlib.asynccontextmanager
async def invocation(built: Services) -> AsyncIterator[Invocation]:
    """The invocation path, on the running event loop."""
    conf = built.conf
    run = threads(conf.api.threads, "core")
    recording = Recording(built.db, shard=built.tallies.shard, max_age=conf.engine.max_age)
    at_once = Recording(built.db, waits=False) if built.db.is_sqlite else None
    recorder = Recorder(recording.write, functools.partial(at_once.write, durable=False) if at_once else None)
    # Cold starts wait for engines and imports; lists and uploads must not wait for them.
    starts = threads(conf.api.threads, "starts")
    options = _router_options(conf)
    router = Router(_Backend(built.routes, built.starts, built.workers), starts, options)

    async def lost(worker_id: str) -> str | None:
        cause: str | None = await run(built.workers.lost, worker_id)
        return cause

    one_shots = OneShots(
        built.image_runs,
        starts,
        threads(conf.orchestrator.image_runs, "images"),
        router.make_room,
        options,
        conf.orchestrator.image_runs,
        conf.resource_limits.max_log,
    )
    import_timeout, judge = conf.resource_limits.import_timeout, built.queue.judge
    calls = Calls(router, one_shots, recorder, built.server_id, import_timeout, lost, judge)
    aliases = AliasTable(built.aliases.find, run)
    try:
        yield Invocation(run, router, aliases, one_shots, recorder, calls)
    finally:
        await aliases.close()
        await router.close()
        await calls.close()
        await recorder.close()
        recording.close()
        if at_once is not None:
            at_once.close()
        await built.auth.close()


def threads(count: int, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    """``run(function, *args)`` on a bounded pool of threads of its own."""
    pool = concurrent.futures.ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *args)

    return run


def database(conf: cfg.ConfigOpts, state_dir: pathlib.Path) -> session.Database:
    url = conf.database.connection or session.sqlite_url(state_dir / "funcplat.sqlite")
    return session.Database(url, conf.database.max_connections)


def database_upgrade(conf: cfg.ConfigOpts) -> str:
    """Upgrade the schema; returns a sentence for people."""
    with contextlib.closing(database(conf, statedir.prepare(conf))) as db:
        before = db.found_version()
        after = db.upgrade()
    if before == after:
        return f"The schema is at version {after} already."
    return f"The schema was upgraded from version {before or '(none)'} to {after}."


def database_check(conf: cfg.ConfigOpts) -> str:
    """Raises SchemaError unless the schema is this release's; returns a sentence for people."""
    with contextlib.closing(database(conf, statedir.path_of(conf))) as db:
        return f"The schema is at version {db.check()}, as this release needs it."


def is_exposed(host: str) -> bool:
    """Whether a server that listens on this address can be reached from other machines."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


# -- building ------------------------------------------------------------------------------------------------


def _build(
    conf: cfg.ConfigOpts, state_dir: pathlib.Path, db: session.Database, stack: contextlib.ExitStack
) -> Services:
    owner = servers.installation_id(db)
    server_id, node = str(uuid.uuid4()), platform.node() or "localhost"
    context = driver_context(conf, state_dir, owner)
    orchestrators = {name: plugins.orchestrator(name, conf, context) for name in conf.orchestrator.enabled}
    storages = {name: plugins.storage(name, conf, context) for name in conf.storage.enabled}
    for driver in (*orchestrators.values(), *storages.values()):
        stack.callback(driver.close)
    store = _store(conf, state_dir, db, storages)
    images = _images(conf, storages, orchestrators)
    options = _worker_options(conf, owner, server_id, node)
    workers = Workers(db, orchestrators, options)
    starts = Starts(db, orchestrators, store, images, workers, options)
    tallies = Tallies(db, server_id)
    acceptance = Acceptance(tallies, conf.engine.max_age)
    queue = Queue(
        db,
        server_id,
        tallies,
        QueueOptions(RetryOptions.from_conf(conf), conf.engine.concurrency_per_function),
    )
    return Services(
        conf=conf,
        state_dir=state_dir,
        server_id=server_id,
        db=db,
        orchestrators=orchestrators,
        storages=storages,
        auth=plugins.construct(plugins.AUTH, conf.auth.driver, conf, context),
        servers=servers.Servers(db, server_id, node, conf.engine.lease),
        store=store,
        runtimes=Runtimes(db, orchestrators, conf.orchestrator.default, conf.scaling.max_workers),
        functions=Functions(db, store, Code(store, images), _limits(conf), workers.supersede),
        versions=Versions(db, conf.resource_limits.max_versions, workers.supersede),
        aliases=Aliases(db),
        workers=workers,
        starts=starts,
        image_runs=ImageRuns(orchestrators, images, starts, workers, options),
        routes=Routes(db, workers),
        executions=Executions(db),
        jobs=Jobs(db, models.now(), conf.resource_limits.max_input),
        ticks=Ticks(db, models.now(), conf.engine.tick_tolerance, conf.resource_limits.max_input, acceptance),
        webhooks=Webhooks(db, models.now(), conf.webhooks.rotation_overlap),
        deliveries=Deliveries(
            db,
            models.now(),
            DeliveryOptions(conf.webhooks.tolerance, conf.webhooks.remember, conf.resource_limits.max_input),
            acceptance,
        ),
        queue=queue,
        interventions=Interventions(db, queue, tallies, conf.engine.max_age),
        idempotency=Idempotency(db, acceptance, conf.api.idempotency_window),
        tallies=tallies,
        retention=Retention(
            db, models.now(), RetentionOptions(conf.retention.executions, conf.retention.logs)
        ),
    )


def driver_context(conf: cfg.ConfigOpts, state_dir: pathlib.Path, owner: str) -> Context:
    return Context(owner, state_dir, is_exposed(conf.api.host), lambda: datetime.datetime.now(datetime.UTC))


def _store(
    conf: cfg.ConfigOpts,
    state_dir: pathlib.Path,
    db: session.Database,
    storages: dict[str, plugins.GuardedStorage],
) -> PackageStore:
    limits = packages.PackageLimits.from_conf(conf)
    options = StoreOptions(
        conf.storage.packages,
        limits,
        conf.storage.deadline,
        conf.storage.unreferenced_grace,
        state_dir / "spool",
    )
    cache = packages.CodeCache(state_dir / "code", limits, CODE_CACHE_SIZE)
    return PackageStore(db, storages, cache, options)


def _images(
    conf: cfg.ConfigOpts,
    storages: dict[str, plugins.GuardedStorage],
    orchestrators: dict[str, plugins.GuardedOrchestrator],
) -> Images:
    group = conf.orchestrator
    return Images(storages, orchestrators, group.default, conf.storage.deadline, group.pull_deadline)


def _limits(conf: cfg.ConfigOpts) -> dict[str, Limits]:
    group = conf.resource_limits
    return {
        name: Limits(group[f"default_{name}"], group[f"min_{name}"], group[f"max_{name}"])
        for name in ("cpu", "memory", "timeout")
    }


def _worker_options(conf: cfg.ConfigOpts, owner: str, server_id: str, node: str) -> WorkerOptions:
    limits, scaling = conf.resource_limits, conf.scaling
    return WorkerOptions(
        owner=owner,
        server_id=server_id,
        node=node,
        concurrency=scaling.concurrency,
        pids=limits.pids,
        disk=limits.disk,
        import_timeout=limits.import_timeout,
        max_result=limits.max_result,
        max_log=limits.max_log,
        max_per_function=scaling.max_workers_per_function,
        max_per_project=scaling.max_workers_per_project,
        max_per_node=scaling.max_workers,
        start_deadline=conf.orchestrator.start_deadline,
        max_timeout=limits.max_timeout,
        stop_grace=conf.orchestrator.stop_grace,
    )


def _router_options(conf: cfg.ConfigOpts) -> RouterOptions:
    limits = conf.resource_limits
    return RouterOptions(
        conf.scaling.concurrency,
        conf.scaling.patience,
        conf.scaling.queue_limit,
        conf.scaling.queue_timeout,
        limits.max_result + limits.max_log + client.MAX_EXPLANATION,
    )


class _Backend:
    """What the router needs of core, from the rooms that have it."""

    def __init__(self, routes: Routes, starts: Starts, workers: Workers) -> None:
        self.read = routes.read
        self.start = starts.start
        self.make_room = workers.make_room
        self.prepare = starts.prepare


# -- checking ------------------------------------------------------------------------------------------------


def _check(built: Services) -> None:
    checked: list[tuple[str, Any]] = [(f"auth driver {built.conf.auth.driver}", built.auth)]
    checked += [(f"orchestrator driver {name}", driver) for name, driver in built.orchestrators.items()]
    checked += [(f"storage driver {name}", driver) for name, driver in built.storages.items()]
    for name, driver in checked:
        try:
            driver.check()
        except errors.DriverError as error:
            raise errors.ConfigError(f"the {name} cannot work: {error.message}") from error
    _check_package_store(built)
    for name, orchestrator in built.orchestrators.items():
        for feature in orchestrator.features():
            LOG.info("%s: %s: %s (%s)", name, feature.name, feature.isolation, feature.detail)


def _check_package_store(built: Services) -> None:
    name = built.conf.storage.packages
    try:
        # Of no package: whether it keeps packages at all, and answers.
        built.storages[name].exists(NO_DIGEST, built.conf.storage.deadline)
    except errors.DriverError as error:
        raise errors.ConfigError(
            f"[storage] packages = {name} cannot keep packages: {error.message}"
        ) from error


# -- the schema ----------------------------------------------------------------------------------------------


def _prepare_schema(conf: cfg.ConfigOpts, db: session.Database) -> None:
    automatic = conf.database.auto_upgrade
    if automatic is None:
        automatic = db.is_sqlite and not conf.database.connection
    if automatic:
        db.upgrade()
    db.check()
