"""Serving: one process from its start to its orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator

import uvicorn
import uvloop
from oslo_config import cfg

from funcplat import bootstrap, errors
from funcplat.api import app as api_app
from funcplat.api.protocol import Protocol
from funcplat.api.resource import Desk
from funcplat.auth.policy import Policy
from funcplat.engine import Engine

LOG = logging.getLogger("funcplat")
BACKLOG = 2048
LAST_ANSWERS = 5
"""Seconds beyond the grace in which those are answered whose executions were ended with it."""
KEEP_ALIVE = 75
"""Seconds that an idle connection of a client is kept."""


class _Server(uvicorn.Server):
    """Uvicorn without its own handling of signals: the end has an order here."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(conf: cfg.ConfigOpts, api: bool = True, engine: bool = True) -> None:
    """Serve until SIGTERM or SIGINT.  Raises ConfigError before anything is served."""
    configure_logging(conf)
    with bootstrap.services(conf) as services:
        if services.db.is_sqlite and not (api and engine):
            raise errors.ConfigError(
                "SQLite serves one process, so API and engine cannot be apart: run `funcplat serve`, or "
                "set [database] connection to PostgreSQL or MariaDB"
            )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(services, api, engine))


def configure_logging(conf: cfg.ConfigOpts) -> None:
    """Log to standard error, as the operator's process supervisor expects."""
    logging.basicConfig(
        level=conf.log_level,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        force=True,
    )
    for name in ("alembic", "stevedore", "uvicorn", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


async def _serve(services: bootstrap.Services, api: bool, engine: bool) -> None:
    conf = services.conf
    ending = _on_signals()
    async with bootstrap.invocation(services) as invocation:
        loops = Engine(services, invocation, takes_queue=engine)
        loops.start()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(_stop_workers, services, invocation)
            stack.push_async_callback(loops.stop, conf.api.shutdown_grace)
            if api:
                port = await stack.enter_async_context(_listening(services, invocation, loops))
                LOG.info("serving on http://%s:%d", conf.api.host, port)
            else:
                LOG.info("engine %s is running", services.server_id)
            await ending.wait()
            LOG.info("ending: what runs gets %g s", conf.api.shutdown_grace)
    LOG.info("ended")


def _on_signals() -> asyncio.Event:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    return ending


@contextlib.asynccontextmanager
async def _listening(
    services: bootstrap.Services, invocation: bootstrap.Invocation, loops: Engine
) -> AsyncIterator[int]:
    conf = services.conf.api
    wakes = loops.wake_queue, loops.wake_changes, loops.wake_schedule
    desk = Desk(services, invocation, Policy(services.conf), *wakes)
    config = uvicorn.Config(
        api_app.create_app(desk),
        http=Protocol,
        loop="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(conf.shutdown_grace + LAST_ANSWERS),
    )
    server = _Server(config)
    with contextlib.closing(_bound(conf.host, conf.port)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            grace = conf.shutdown_grace
            await asyncio.gather(asyncio.wait({task}, timeout=grace), loops.drain(grace))
            await loops.stop(0.0)
            # Whoever still waits for a result is answered that its worker was stopped.
            await _stop_workers(services, invocation)
            await task


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise errors.ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror}; see [api] host and port"
        ) from error


async def _stop_workers(services: bootstrap.Services, invocation: bootstrap.Invocation) -> None:
    invocation.one_shots.end()
    invocation.router.end(await invocation.run(services.workers.drain_own))
    await invocation.run(services.workers.stop_own)
