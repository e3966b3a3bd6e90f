"""The options of the core, one group a room; drivers own the groups of theirs.

Nothing here is global: `register_opts` puts the options on the `ConfigOpts` that it is given, and
`list_opts` hands them to oslo.config's sample generator.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from oslo_config import cfg

from funcplat import errors, webhookconf
from funcplat.engineconf import ENGINE_OPTS, RETENTION_OPTS

KIB = 1024
MIB = 1024 * KIB


def _default_state_dir() -> str:
    if os.environ.get("XDG_STATE_HOME"):
        return str(pathlib.Path(os.environ["XDG_STATE_HOME"]) / "funcplat")
    return str(pathlib.Path.home() / ".local" / "state" / "funcplat")


DEFAULT_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "state_dir",
        default=_default_state_dir(),
        sample_default="$HOME/.local/state/funcplat",
        help="Directory of everything this server keeps on this machine: the SQLite database, "
        "packages of the local store, sockets of workers. One server at a time uses it. "
        "Example: /var/lib/funcplat",
    ),
    cfg.StrOpt(
        "log_level",
        default="INFO",
        choices=["DEBUG", "INFO", "WARNING", "ERROR"],
        help="Least severe level that is logged, on standard error. INFO says every change of state.",
    ),
]

API_OPTS: list[cfg.Opt] = [
    cfg.HostAddressOpt(
        "host",
        default="127.0.0.1",
        help="Address to listen on. The default reaches this machine alone, so that a first try "
        "needs no accounts. Example: 0.0.0.0",
    ),
    cfg.PortOpt("port", default=7070, help="TCP port to listen on; 7070 is what clients expect."),
    cfg.StrOpt(
        "endpoint",
        help="URL under which users reach the API, without /v1, for the links in answers; else the "
        "Host header of the request is used. Example: https://functions.example.org",
    ),
    cfg.IntOpt(
        "max_package_size",
        default=50 * MIB,
        min=1,
        help="Largest package that may be uploaded, in bytes. 50 MiB is what clients allow.",
    ),
    cfg.IntOpt(
        "max_body_size",
        default=8 * MIB,
        min=KIB,
        help="Largest request body besides packages, in bytes.",
    ),
    cfg.IntOpt(
        "threads",
        default=16,
        min=1,
        help="Threads for what is not an execution: lists, uploads, changes.",
    ),
    cfg.BoolOpt(
        "access_log",
        default=False,
        help="Log one line a request. Off by default: it costs a tenth of the warm throughput, and "
        "executions are records anyway.",
    ),
    cfg.FloatOpt(
        "idempotency_window",
        default=86400.0,
        min=1.0,
        help="Seconds for which an Idempotency-Key makes a repeated request give the execution of the first.",
    ),
    cfg.FloatOpt(
        "shutdown_grace",
        default=30.0,
        min=0.0,
        help="Seconds that running requests and executions get to end after SIGTERM.",
    ),
]

AUTH_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "driver",
        default="noauth",
        help="Who tells callers apart: the name of an installed auth driver, such as noauth or tokens.",
    ),
]

DATABASE_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "connection",
        secret=True,
        help="SQLAlchemy URL of the database. Unset: SQLite in state_dir. "
        "Example: postgresql+psycopg://funcplat:secret@db.example.org/funcplat",
    ),
    cfg.IntOpt(
        "max_connections",
        default=16,
        min=2,
        help="Connections that one server process keeps at most.",
    ),
    cfg.BoolOpt(
        "auto_upgrade",
        help="Upgrade an old schema at start. Unset: only for SQLite in state_dir, which nobody else uses.",
    ),
]

STORAGE_OPTS: list[cfg.Opt] = [
    cfg.ListOpt(
        "enabled",
        default=["local"],
        help="Storage drivers to load, by name. A function's code.source names one, or is 'package'.",
    ),
    cfg.StrOpt("packages", default="local", help="The storage driver that keeps uploaded packages."),
    cfg.FloatOpt(
        "deadline",
        default=60.0,
        min=1.0,
        help="Seconds that a call of a storage driver may take.",
    ),
    cfg.FloatOpt(
        "unreferenced_grace",
        default=3600.0,
        min=0.0,
        help="Seconds after which a package that no function refers to is deleted from the store. "
        "Longer than any upload takes.",
    ),
]

ORCHESTRATOR_OPTS: list[cfg.Opt] = [
    cfg.ListOpt(
        "enabled",
        default=["process"],
        help="Orchestrator drivers to load, by name. Example: process, docker",
    ),
    cfg.StrOpt("default", default="process", help="The orchestrator driver of runtimes that name none."),
    cfg.FloatOpt(
        "start_deadline",
        default=30.0,
        min=1.0,
        help="Seconds that a worker may take to start and load its code.",
    ),
    cfg.FloatOpt(
        "stop_grace",
        default=10.0,
        min=0.0,
        help="Seconds that running executions of a draining worker get to end before it is stopped.",
    ),
    cfg.FloatOpt(
        "pull_deadline",
        default=60.0,
        min=1.0,
        help="Seconds that making or calling a function of an image waits for that image to be pulled. A "
        "pull that takes longer goes on, and the next call finds it further.",
    ),
    cfg.IntOpt(
        "image_runs",
        default=32,
        min=1,
        max=1000,
        help="Images of functions that this server runs at once, each for one execution. Further executions "
        "wait. Images that are workers do not count.",
    ),
]

RESOURCE_LIMIT_OPTS: list[cfg.Opt] = [
    cfg.IntOpt("default_cpu", default=100, help="cpu of functions that ask for none, in millicores."),
    cfg.IntOpt("min_cpu", default=100, help="Least cpu of a function, in millicores."),
    cfg.IntOpt("max_cpu", default=300, help="Most cpu of a function, in millicores. Example: 2000"),
    cfg.IntOpt("default_memory", default=32 * MIB, help="memory of functions that ask for none, in bytes."),
    cfg.IntOpt("min_memory", default=32 * MIB, help="Least memory of a function, in bytes."),
    cfg.IntOpt("max_memory", default=128 * MIB, help="Most memory of a function, in bytes."),
    cfg.IntOpt("default_timeout", default=5, help="timeout of functions that ask for none, in seconds."),
    cfg.IntOpt("min_timeout", default=1, help="Least timeout of a function, in seconds."),
    cfg.IntOpt("max_timeout", default=300, help="Most timeout of a function, in seconds."),
    cfg.IntOpt(
        "pids",
        default=64,
        min=8,
        help="Processes and threads that one worker may have, the platform's own 1 + concurrency included.",
    ),
    cfg.IntOpt(
        "disk",
        default=64 * MIB,
        min=MIB,
        help="Scratch space of one worker, in bytes. The process driver keeps it in memory and "
        "gives at most half of the function's memory.",
    ),
    cfg.IntOpt("max_input", default=MIB, help="Largest input of an execution, in bytes of JSON."),
    cfg.IntOpt("max_result", default=MIB, help="Largest result of an execution, in bytes of JSON."),
    cfg.IntOpt(
        "max_log",
        default=MIB,
        help="Bytes of output that are kept of one execution; more is counted and dropped.",
    ),
    cfg.FloatOpt(
        "import_timeout",
        default=30.0,
        min=1.0,
        help="Seconds that a function's module may take to be imported. It is not part of the "
        "function's timeout, so that a slow import under a small cpu limit does not fail every call.",
    ),
    cfg.IntOpt(
        "max_versions",
        default=10,
        min=1,
        help="Versions that one function may have at once. 10 is what clients' tests count on.",
    ),
    cfg.IntOpt("package_members", default=20000, min=1, help="Most files and directories of a package."),
    cfg.IntOpt("package_depth", default=32, min=1, help="Deepest nesting of directories in a package."),
    cfg.IntOpt(
        "package_unpacked_size",
        default=512 * MIB,
        min=1,
        help="Largest sum of a package's unpacked files, in bytes.",
    ),
    cfg.FloatOpt(
        "package_ratio",
        default=200.0,
        min=1.0,
        help="Highest ratio of unpacked to packed size of a member over 1 MiB; source code has 3 to 10, "
        "bombs 1000.",
    ),
]

SCALING_OPTS: list[cfg.Opt] = [
    cfg.IntOpt(
        "concurrency",
        default=3,
        min=1,
        help="Executions that one worker runs at once. 3 is what clients' tests count on.",
    ),
    cfg.FloatOpt(
        "idle_timeout",
        default=3600.0,
        min=0.1,
        help="Seconds without an execution after which a worker is stopped, down to none.",
    ),
    cfg.FloatOpt(
        "patience",
        default=0.05,
        min=0.0,
        help="Seconds that the last in line may expect to wait, as fast as the line moves, before another "
        "worker is started: more than a cold start costs, so that short functions do not grow workers that "
        "cannot help. A line that does not move for 10 ms grows one at once.",
    ),
    cfg.IntOpt("max_workers_per_function", default=20, min=1, help="Most workers of one function."),
    cfg.IntOpt(
        "max_workers_per_project", default=100, min=1, help="Most workers of one project's functions."
    ),
    cfg.IntOpt(
        "max_workers",
        default=200,
        min=1,
        help="Most workers of one server (host). At the cap the least recently used idle worker of "
        "another function gives way.",
    ),
    cfg.IntOpt(
        "queue_limit",
        default=1000,
        min=1,
        help="Calls of one function that may wait for a worker; further ones end as error at once.",
    ),
    cfg.FloatOpt(
        "queue_timeout",
        default=60.0,
        min=0.1,
        help="Seconds that a call may wait for a worker.",
    ),
]

GROUPS: dict[str, list[cfg.Opt]] = {
    "DEFAULT": DEFAULT_OPTS,
    "api": API_OPTS,
    "auth": AUTH_OPTS,
    "database": DATABASE_OPTS,
    "storage": STORAGE_OPTS,
    "orchestrator": ORCHESTRATOR_OPTS,
    "resource_limits": RESOURCE_LIMIT_OPTS,
    "scaling": SCALING_OPTS,
    "engine": ENGINE_OPTS,
    "retention": RETENTION_OPTS,
    "webhooks": webhookconf.OPTS,
}


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the core's options.  Idempotent."""
    for group, opts in GROUPS.items():
        conf.register_opts(opts, group=None if group == "DEFAULT" else group)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """The core's options for oslo.config's sample generator."""
    return list(GROUPS.items())


def load(args: Sequence[str] = (), default_files: list[str] | None = None) -> cfg.ConfigOpts:
    """Read configuration from files, environment (OS_<GROUP>__<OPTION>) and ``args``.

    Without --config-file: funcplat.conf in /etc/funcplat or the user's configuration directory.
    Raises ConfigError.
    """
    conf = cfg.ConfigOpts()
    register_opts(conf)
    try:
        conf(args=list(args), project="funcplat", default_config_files=default_files)
        _read_all(conf)
    except (cfg.Error, OSError, ValueError) as error:
        raise errors.ConfigError(str(error)) from error
    check(conf)
    return conf


def _read_all(conf: cfg.ConfigOpts) -> None:
    # Values are parsed when they are read; a bad one must stop the server at its start, not a call later.
    for group, opts in GROUPS.items():
        values = conf if group == "DEFAULT" else conf[group]
        for opt in opts:
            values[opt.dest]


def check(conf: cfg.ConfigOpts) -> None:
    """Raise ConfigError where options contradict each other."""
    limits = conf.resource_limits
    for name in ("cpu", "memory", "timeout"):
        low, default, high = (limits[f"{kind}_{name}"] for kind in ("min", "default", "max"))
        if not 0 < low <= default <= high:
            raise errors.ConfigError(
                f"[resource_limits] needs 0 < min_{name} <= default_{name} <= max_{name}, "
                f"but they are {low}, {default} and {high}"
            )
    if conf.orchestrator.default not in conf.orchestrator.enabled:
        raise errors.ConfigError(
            f"[orchestrator] default = {conf.orchestrator.default} is not one of "
            f"enabled = {', '.join(conf.orchestrator.enabled)}"
        )
    webhookconf.check(conf)
    if conf.storage.packages not in conf.storage.enabled:
        raise errors.ConfigError(
            f"[storage] packages = {conf.storage.packages} is not one of "
            f"enabled = {', '.join(conf.storage.enabled)}"
        )
