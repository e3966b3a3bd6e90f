"""Drivers: found by stevedore, checked, configured, constructed, and guarded ever after.

The only place that knows of entry points.  A guard gives every driver the same invariants, whoever wrote
it: its calls run in a thread pool of its own, end at a deadline, and leave as a
`funcplat.errors.DriverError` or not at all.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib.metadata
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, TypeVar

import stevedore.named
from oslo_config import cfg

from funcplat import errors
from funcplat.auth import base as auth_base
from funcplat.drivers import base as driver_base
from funcplat.storage import base as storage_base

LOG = logging.getLogger(__name__)
T = TypeVar("T")
SLOW = 5.0
"""Seconds after which a driver's call is worth a line in the log."""


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """A family of drivers: its entry point group is ``funcplat.<name>``."""

    name: str
    base: type
    api_version: int

    @property
    def namespace(self) -> str:
        return f"funcplat.{self.name}"

    def group(self, driver: str) -> str:
        """The configuration group; underscores, so that OS_<GROUP>__<OPTION> can name it."""
        return f"{self.name}_{driver.replace('-', '_')}"


ORCHESTRATOR = Kind("orchestrator", driver_base.OrchestratorDriver, driver_base.API_VERSION)
STORAGE = Kind("storage", storage_base.StorageDriver, storage_base.API_VERSION)
AUTH = Kind("auth", auth_base.AuthDriver, auth_base.API_VERSION)
KINDS = (ORCHESTRATOR, STORAGE, AUTH)


def installed(kind: Kind) -> dict[str, list[importlib.metadata.EntryPoint]]:
    """What is installed, by driver name; a name with two entry points is an error when it is used."""
    found: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for entry_point in importlib.metadata.entry_points(group=kind.namespace):
        entries = found.setdefault(entry_point.name, [])
        if not any(_same(entry_point, other) for other in entries):
            entries.append(entry_point)
    return found


def load_class(kind: Kind, name: str) -> type[Any]:
    """The driver class of that name.  Raises PluginError with what is installed instead."""
    entry_point = _installed_entry_point(kind, name)
    try:
        manager: Any = stevedore.named.NamedExtensionManager(
            kind.namespace,
            [name],
            on_load_failure_callback=functools.partial(_raise_load_failure, entry_point),
        )
        plugin: type[Any] = manager[name].plugin
    except KeyError as error:
        raise errors.PluginError(f"the {kind.name} driver {name!r} cannot be loaded") from error
    _check_class(kind, name, plugin)
    return plugin


def construct(kind: Kind, name: str, conf: cfg.ConfigOpts, context: driver_base.Context) -> Any:
    """Load the driver, register its options and construct it.  Raises PluginError."""
    plugin = load_class(kind, name)
    options = _options(kind.group(name), f"The {kind.name} driver {name}", plugin, conf)
    try:
        return plugin(options, context)
    except errors.FuncplatError as error:
        raise errors.PluginError(f"the {kind.name} driver {name!r}: {error.message}") from error
    except Exception as error:
        LOG.exception("the %s driver %s raised what it may not raise", kind.name, name)
        raise errors.PluginError(
            f"the {kind.name} driver {name!r} cannot be made: {type(error).__name__}: {error}"
        ) from error


def orchestrator(name: str, conf: cfg.ConfigOpts, context: driver_base.Context) -> GuardedOrchestrator:
    driver = construct(ORCHESTRATOR, name, conf, context)
    return GuardedOrchestrator(name, driver, conf.orchestrator.image_runs)


def storage(name: str, conf: cfg.ConfigOpts, context: driver_base.Context) -> GuardedStorage:
    return GuardedStorage(name, construct(STORAGE, name, conf, context))


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """The options of the drivers that come with funcplat, for oslo.config's sample generator."""
    return [
        (kind.group(name), load_class(kind, name).opts)
        for kind in KINDS
        for name, entries in sorted(installed(kind).items())
        if entries[0].dist is not None and entries[0].dist.name == "funcplat"
    ]


def _options(group: str, title: str, plugin: type[Any], conf: cfg.ConfigOpts) -> cfg.ConfigOpts.GroupAttr:
    """The driver's options, each of which has a value that fits.  Raises PluginError."""
    if not all(isinstance(opt, cfg.Opt) for opt in plugin.opts):
        raise errors.PluginError(
            f"[{group}] {plugin.__name__}.opts has something that is not an oslo.config Opt"
        )
    try:
        conf.register_group(cfg.OptGroup(group, title))
        conf.register_opts(list(plugin.opts), group=group)
        options: cfg.ConfigOpts.GroupAttr = conf[group]
        values = {opt: options[opt.dest] for opt in plugin.opts}
    except (cfg.Error, ValueError) as error:
        raise errors.PluginError(f"[{group}] {error}") from error
    for opt, value in values.items():
        if opt.required and value is None:
            raise errors.PluginError(f"[{group}] {opt.name} must be set: {opt.help}")
    return options


# -- loading ---------------------------------------------------------------------------------------------


def _same(one: importlib.metadata.EntryPoint, other: importlib.metadata.EntryPoint) -> bool:
    # An editable install can be seen twice, by two paths of one distribution.
    return one.value == other.value and _distribution(one) == _distribution(other)


def _distribution(entry_point: importlib.metadata.EntryPoint) -> str:
    return entry_point.dist.name if entry_point.dist is not None else "an unknown distribution"


def _installed_entry_point(kind: Kind, name: str) -> importlib.metadata.EntryPoint:
    found = installed(kind)
    if name not in found:
        known = ", ".join(f"{key} ({_distribution(found[key][0])})" for key in sorted(found)) or "none"
        raise errors.PluginError(
            f"there is no {kind.name} driver {name!r}; installed are: {known}. "
            f"A driver is a Python package with an entry point in the group {kind.namespace}"
        )
    if len(found[name]) > 1:
        owners = " and ".join(_distribution(entry) for entry in found[name])
        raise errors.PluginError(
            f"the {kind.name} driver {name!r} is provided by {owners}; uninstall one of them"
        )
    return found[name][0]


def _raise_load_failure(
    entry_point: importlib.metadata.EntryPoint, manager: object, cached: object, error: BaseException
) -> None:
    # The one that stevedore has cached does not know its distribution.
    raise errors.PluginError(
        f"the driver {entry_point.name!r} ({entry_point.value}) of {_distribution(entry_point)} "
        f"cannot be imported: {type(error).__name__}: {error}"
    ) from error


def _check_class(kind: Kind, name: str, plugin: Any) -> None:
    if not (isinstance(plugin, type) and issubclass(plugin, kind.base)):
        raise errors.PluginError(f"the {kind.name} driver {name!r} is not a {kind.base.__name__}")
    version = getattr(plugin, "api_version", None)
    if version != kind.api_version:
        raise errors.PluginError(
            f"the {kind.name} driver {name!r} is made for version {version} of the interface, "
            f"this release has version {kind.api_version}"
        )
    abstract = sorted(getattr(plugin, "__abstractmethods__", ()))
    if abstract:
        raise errors.PluginError(f"the {kind.name} driver {name!r} lacks: {', '.join(abstract)}")


# -- guarding -----------------------------------------------------------------------------------------------


class _Guard:
    """Runs the calls of one driver: own threads, a deadline, foreign errors translated, slow calls told."""

    def __init__(self, name: str, driver: Any, threads: int = 16) -> None:
        self.name = name
        self.driver = driver
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix=f"driver-{name}")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._translated("close"):
            self.driver.close()

    def _call(self, method: str, *args: Any, deadline: float) -> Any:
        return self._call_on(self._pool, method, *args, deadline=deadline)

    def _call_on(
        self, pool: concurrent.futures.ThreadPoolExecutor, method: str, *args: Any, deadline: float
    ) -> Any:
        started = time.monotonic()
        try:
            future = pool.submit(self._run, method, args, deadline)
        except RuntimeError as error:
            raise errors.DriverUnavailable(f"driver {self.name}: it is closed") from error
        try:
            return future.result(deadline)
        except concurrent.futures.TimeoutError as error:
            future.cancel()
            raise errors.DriverTimeout(
                f"driver {self.name}: {method} did not answer within {deadline:g} s"
            ) from error
        finally:
            elapsed = time.monotonic() - started
            if elapsed > SLOW and pool is self._pool:
                LOG.warning("driver %s: %s took %.1f s", self.name, method, elapsed)

    def _run(self, method: str, args: tuple[Any, ...], deadline: float) -> Any:
        with self._translated(method):
            result = getattr(self.driver, method)(*args, deadline=deadline)
            # A generator must do its work here, behind the guard and within the deadline.
            return list(result) if method.startswith("list_") else result

    @contextlib.contextmanager
    def _translated(self, method: str) -> Iterator[None]:
        try:
            yield
        except (errors.DriverError, errors.RequestError):
            raise
        except Exception as error:
            LOG.exception("driver %s: %s raised what it may not raise", self.name, method)
            raise errors.DriverError(
                f"driver {self.name}: {method} failed: {type(error).__name__}: {error}"
            ) from error

    def _sync(self, method: str, call: Callable[[], T]) -> T:
        with self._translated(method):
            return call()


class GuardedOrchestrator(_Guard):
    """An `OrchestratorDriver` behind its guard; the methods are the driver's."""

    driver: driver_base.OrchestratorDriver

    def __init__(self, name: str, driver: driver_base.OrchestratorDriver, runs: int = 1) -> None:
        """``runs``: image functions that may run at once, which nothing else of the driver waits for."""
        super().__init__(name, driver)
        self._runs = concurrent.futures.ThreadPoolExecutor(runs, thread_name_prefix=f"runs-{name}")

    def close(self) -> None:
        self._runs.shutdown(wait=False, cancel_futures=True)
        super().close()

    @property
    def capabilities(self) -> frozenset[driver_base.Capability]:
        return self.driver.capabilities

    def check(self) -> None:
        self._sync("check", self.driver.check)

    def features(self) -> tuple[driver_base.Feature, ...]:
        return self._sync("features", lambda: tuple(self.driver.features()))

    def check_image(self, image: str, deadline: float) -> None:
        self._call("check_image", image, deadline=deadline)

    def start_worker(self, spec: driver_base.WorkerSpec, deadline: float) -> driver_base.Handle:
        handle: driver_base.Handle = self._call("start_worker", spec, deadline=deadline)
        return handle

    def stop_worker(self, handle: driver_base.Handle, grace: float, deadline: float) -> None:
        self._call("stop_worker", handle, grace, deadline=deadline)

    def list_workers(self, deadline: float) -> list[driver_base.WorkerState]:
        states: list[driver_base.WorkerState] = self._call("list_workers", deadline=deadline)
        return states

    def pool(self, image: str, deadline: float) -> driver_base.PoolState:
        state: driver_base.PoolState = self._call("pool", image, deadline=deadline)
        return state

    def inspect_image(self, image: str, deadline: float) -> driver_base.ImageInfo:
        info: driver_base.ImageInfo = self._call("inspect_image", image, deadline=deadline)
        return info

    def run_image(
        self, spec: driver_base.WorkerSpec, arguments: Sequence[str], timeout: float, deadline: float
    ) -> driver_base.ImageRun:
        run: driver_base.ImageRun = self._call_on(
            self._runs, "run_image", spec, arguments, timeout, deadline=deadline
        )
        return run


class GuardedStorage(_Guard):
    """A `StorageDriver` behind its guard; the methods are the driver's."""

    driver: storage_base.StorageDriver

    @property
    def capabilities(self) -> frozenset[storage_base.Capability]:
        return self.driver.capabilities

    def check(self) -> None:
        self._sync("check", self.driver.check)

    def features(self) -> tuple[driver_base.Feature, ...]:
        return self._sync("features", lambda: tuple(self.driver.features()))

    def put(self, digest: str, size: int, data: BinaryIO, deadline: float) -> None:
        self._call("put", digest, size, data, deadline=deadline)

    @contextlib.contextmanager
    def open(self, digest: str, deadline: float) -> Iterator[Iterator[bytes]]:
        manager = self._call("open", digest, deadline=deadline)
        chunks = self._sync("open", manager.__enter__)
        try:
            yield self._chunks(chunks)
        except BaseException as error:
            # What the reader raised is the reader's; the driver only gets to clean up.
            if not manager.__exit__(type(error), error, error.__traceback__):
                raise
        else:
            self._sync("open", lambda: manager.__exit__(None, None, None))

    def _chunks(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        with self._translated("open"):
            yield from chunks

    def delete(self, digest: str, deadline: float) -> None:
        self._call("delete", digest, deadline=deadline)

    def exists(self, digest: str, deadline: float) -> storage_base.PackageInfo | None:
        info: storage_base.PackageInfo | None = self._call("exists", digest, deadline=deadline)
        return info

    def list_packages(self, deadline: float) -> list[storage_base.PackageInfo]:
        packages: list[storage_base.PackageInfo] = self._call("list_packages", deadline=deadline)
        return packages

    def resolve(
        self, reference: Mapping[str, Any], credentials: Mapping[str, str], deadline: float
    ) -> storage_base.Reference:
        resolved: storage_base.Reference = self._call("resolve", reference, credentials, deadline=deadline)
        return resolved
