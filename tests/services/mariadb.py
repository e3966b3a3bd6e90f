"""A MariaDB server that forgets everything."""

from __future__ import annotations

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator, Mapping

import pymysql

from tests.services import base, processes

USER, PASSWORD = "funcplat", "funcplat-test"
INNODB = (
    # nothing here has to survive a power cut, and the log is otherwise 96 MiB
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=0",
    "--innodb-log-file-size=16M",
)


class MariaDB(base.Service):
    """One server; every test makes databases of its own in it."""

    name = "mariadb"
    title = "MariaDB"
    packages = ("mariadb-server",)

    def missing(self) -> str | None:
        return self.lacking("mariadbd", "mariadb-install-db")

    def start(self, directory: pathlib.Path, running: Mapping[str, base.Settings]) -> base.Settings:
        data, port = base.data_directory(directory).resolve(), processes.free_port()
        common = ["--no-defaults", f"--datadir={data}", *INNODB]
        # At its start a server removes the temporary tables of its directory: in /tmp those of others too.
        common.append(f"--tmpdir={directory}")
        common += ["--user=root"] if os.geteuid() == 0 else []  # it refuses root unless told
        install = [base.program("mariadb-install-db"), *common, "--skip-test-db"]
        install += ["--auth-root-authentication-method=normal"]
        processes.run(directory, "install", install)
        socket = directory / "mariadb.sock"
        serve = [base.program("mariadbd"), *common, f"--socket={socket}", f"--port={port}"]
        serve += [f"--pid-file={directory}/mariadb.pid", "--bind-address=127.0.0.1", "--skip-name-resolve"]
        serve += ["--character-set-server=utf8mb4", "--max-connections=300", "--performance-schema=off"]
        process = processes.spawn(directory, "mariadb", serve)
        processes.wait_ready(directory, "mariadb", process, lambda: _serves(socket))
        _create_user(socket)
        return {"host": "127.0.0.1", "port": port, "user": USER, "password": PASSWORD}


def _serves(socket: pathlib.Path) -> bool:
    try:
        pymysql.connect(unix_socket=str(socket), user="root", connect_timeout=20).close()
    except pymysql.err.OperationalError:
        return False
    return True


def _create_user(socket: pathlib.Path) -> None:
    with (
        contextlib.closing(pymysql.connect(unix_socket=str(socket), user="root")) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(f"CREATE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
        cursor.execute(f"GRANT ALL ON *.* TO '{USER}'@'127.0.0.1'")


def _execute(settings: base.Settings, statement: str) -> None:
    connection = pymysql.connect(**settings, autocommit=True, connect_timeout=20)
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(statement)


@contextlib.contextmanager
def database(settings: base.Settings) -> Iterator[str]:
    """A new, empty database: its SQLAlchemy URL.  It is dropped at the end."""
    name = f"test_{uuid.uuid4().hex}"
    _execute(settings, f"CREATE DATABASE {name}")
    account = f"{settings['user']}:{settings['password']}"
    try:
        yield f"mysql+pymysql://{account}@{settings['host']}:{settings['port']}/{name}?charset=utf8mb4"
    finally:
        _execute(settings, f"DROP DATABASE {name}")
