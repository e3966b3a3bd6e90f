"""A PostgreSQL server that forgets everything."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import signal
import uuid
from collections.abc import Iterator, Mapping

import psycopg

from tests.services import base, processes

OPTIONS = {
    # nothing here has to survive a power cut
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "listen_addresses": "127.0.0.1",
    "max_connections": "300",
    "shared_buffers": "32MB",
    "dynamic_shared_memory_type": "mmap",
    "log_min_messages": "warning",
    "jit": "off",
}


def _programs() -> pathlib.Path | None:
    """The directory of the newest server's programs; Debian keeps them off PATH."""
    versions = [path.parent for path in pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if versions:
        return max(versions, key=lambda path: int(path.parent.name))
    found = base.find_program("postgres")
    return pathlib.Path(found).resolve().parent if found else None


def _account() -> processes.Account | None:
    """Whom the server runs as: it refuses root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return processes.Account(entry.pw_uid, entry.pw_gid)
    raise processes.StartError("PostgreSQL refuses root, and there is neither a user postgres nor nobody")


class PostgreSQL(base.Service):
    """One server; every test makes databases of its own in it."""

    name = "postgresql"
    title = "PostgreSQL"
    packages = ("postgresql",)

    def missing(self) -> str | None:
        if _programs() is None:
            return f"postgres is not installed; apt-get install {' '.join(self.packages)}"
        try:
            pwd.getpwuid(os.geteuid())
        except KeyError:
            return f"initdb wants the name of its user, and user id {os.geteuid()} has none"
        return None

    def start(self, directory: pathlib.Path, running: Mapping[str, base.Settings]) -> base.Settings:
        programs, account, port = _programs(), _account(), processes.free_port()
        if programs is None:
            raise processes.StartError(str(self.missing()))
        data = base.data_directory(directory).resolve()
        if account:
            os.chown(data, account.uid, account.gid)
        initdb = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        initdb += ["--locale=C.UTF-8", "--no-sync", "--no-instructions"]
        processes.run(directory, "initdb", initdb, account=account)
        # the socket lies with the data: the only place that the server's user may write
        options = [*OPTIONS.items(), ("port", port), ("unix_socket_directories", data)]
        argv = [programs / "postgres", "-D", data]
        argv += [part for option, value in options for part in ("-c", f"{option}={value}")]
        process = processes.spawn(directory, "postgres", argv, account=account, stop_signal=signal.SIGINT)
        settings = {"host": "127.0.0.1", "port": port, "user": "postgres"}
        processes.wait_ready(directory, "postgres", process, lambda: _serves(settings))
        return settings


def _connect(settings: base.Settings) -> psycopg.Connection:
    return psycopg.connect(
        host=settings["host"],
        port=settings["port"],
        user=settings["user"],
        dbname="postgres",
        autocommit=True,
        connect_timeout=20,
    )


def _serves(settings: base.Settings) -> bool:
    try:
        _connect(settings).close()
    except psycopg.OperationalError:
        return False
    return True


@contextlib.contextmanager
def database(settings: base.Settings) -> Iterator[str]:
    """A new, empty database: its SQLAlchemy URL.  It is dropped at the end, whoever is connected."""
    name = f"test_{uuid.uuid4().hex}"
    with _connect(settings) as connection:
        # template0 has no visitors, not even autovacuum, whom a copy would have to wait for
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    try:
        yield f"postgresql+psycopg://{settings['user']}@{settings['host']}:{settings['port']}/{name}"
    finally:
        with _connect(settings) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
