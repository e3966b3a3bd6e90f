"""Servers that are started once and stopped whatever happens.

A session owns a directory with one directory a service in it.  A keeper process, in a session of its own,
holds the other end of a pipe: when this process ends, by whatever signal, the keeper reads the end of the
pipe, stops every server and removes the directory.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping

from tests import environments
from tests.services import base, catalog, processes

STOP_DEADLINE = 200.0


class StopError(Exception):
    """A server, or something that it left, could not be removed."""


class Session:
    """Servers of one test run.  Thread-safe; close it, or let the keeper see this process end."""

    def __init__(self) -> None:
        self._services = catalog.services()
        self._settings: dict[str, base.Settings] = {}
        self._lock = threading.RLock()
        self.keeper: subprocess.Popen[str] | None = None

    @functools.cached_property
    def directory(self) -> pathlib.Path:
        """Where the servers live; from the first look at it there is a keeper too."""
        # short, as sockets lie in it; passable, as PostgreSQL runs under another user
        directory = pathlib.Path(tempfile.mkdtemp(prefix="funcplat-test-", dir="/tmp"))
        directory.chmod(0o711)
        self.keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.services.keeper", str(directory)],
            cwd=environments.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return directory

    def missing(self, name: str) -> str | None:
        """Why a service cannot run here, for itself or for one that it requires; None when it can."""
        service = self._services[name]
        for required in service.requires:
            if reason := self.missing(required):
                return f"it needs {self._services[required].title}: {reason}"
        return service.missing()

    def use(self, name: str) -> base.Settings:
        """The settings of a service, which is started if it does not run.  Raises processes.StartError."""
        with self._lock:
            if name not in self._settings:
                service = self._services[name]
                running = {required: self.use(required) for required in service.requires}
                self._settings[name] = self._start(self.directory, service, running)
            return self._settings[name]

    def start(self, names: Iterable[str]) -> dict[str, base.Settings | processes.StartError]:
        """Start services side by side, each after those that it requires: settings or what went wrong."""
        wanted, directory = set(names), self.directory  # made before there are threads
        futures: dict[str, concurrent.futures.Future[base.Settings]] = {}
        with concurrent.futures.ThreadPoolExecutor(len(self._services)) as pool:
            for name in [name for name in self._services if name in wanted]:
                futures[name] = pool.submit(self._start_after, directory, name, dict(futures))
        started: dict[str, base.Settings | processes.StartError] = {}
        for name, future in futures.items():
            error = future.exception()
            if error is not None and not isinstance(error, processes.StartError):
                raise error
            started[name] = error or future.result()
        return started

    def _start_after(
        self,
        directory: pathlib.Path,
        name: str,
        futures: Mapping[str, concurrent.futures.Future[base.Settings]],
    ) -> base.Settings:
        service = self._services[name]
        running = {required: futures[required].result() for required in service.requires}
        settings = self._start(directory, service, running)
        with self._lock:
            self._settings[name] = settings
        return settings

    @staticmethod
    def _start(
        directory: pathlib.Path, service: base.Service, running: Mapping[str, base.Settings]
    ) -> base.Settings:
        own = directory / service.name
        own.mkdir()
        try:
            return service.start(own, running)
        except processes.StartError:
            service.stop(own)
            raise

    def close(self) -> None:
        """Stop every server.  Idempotent.  Raises StopError when something could not be stopped."""
        if self.keeper is None or self.keeper.returncode is not None:
            return
        # communicate() closes the pipe, which is the keeper's signal
        output, _ = self.keeper.communicate(timeout=STOP_DEADLINE)
        if self.keeper.returncode != 0:
            raise StopError(f"the servers of {self.directory} could not all be stopped:\n{output}")


def stop_all(directory: pathlib.Path) -> list[str]:
    """Stop every server of a session's directory and remove it; what could not be stopped, in sentences."""
    complaints = []
    for service in reversed(catalog.services().values()):
        try:
            service.stop(directory / service.name)
        except (OSError, processes.StartError, subprocess.SubprocessError) as error:
            complaints.append(f"{service.title}: {error}")
    if not complaints:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(directory)
    return complaints
