"""How a test asks for a real server."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import pathlib
import unittest

import fixtures

from tests.services import base, catalog, mariadb, postgresql, processes, session

# set by tools/test: a JSON file {service: {"settings": …} or {"missing": reason} or {"failed": reason}}
SERVICES_VARIABLE = "FUNCPLAT_TEST_SERVICES"
# set by tools/test --all: a server that is missing is a failure
ALL_VARIABLE = "FUNCPLAT_TEST_ALL"
DATABASES = {"postgresql": postgresql.database, "mariadb": mariadb.database}


class Server(fixtures.Fixture):
    """A real server that runs; other tests use it too."""

    def __init__(self, settings: base.Settings) -> None:
        super().__init__()
        self.settings = settings


class Database(fixtures.Fixture):
    """A new, empty database of a real server, dropped when the test ends: SQLAlchemy's ``url`` of it."""

    url: str

    def __init__(self, name: str, settings: base.Settings) -> None:
        super().__init__()
        self._name = name
        self._settings = settings

    def _setUp(self) -> None:
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.url = stack.enter_context(DATABASES[self._name](self._settings))


def use(name: str) -> Server:
    """A server by its name in the catalog: ``self.useFixture(services.use("registry")).settings``.

    Raises unittest.SkipTest with the reason when it cannot run here; under tools/test --all that is an
    AssertionError.
    """
    return Server(_settings(name))


def database(name: str) -> Database:
    """A database of its own for a test: ``self.useFixture(services.database("postgresql")).url``.

    ``name`` is postgresql or mariadb.  Raises as `use` does.
    """
    return Database(name, _settings(name))


def _settings(name: str) -> base.Settings:
    service = catalog.services()[name]
    path = os.environ.get(SERVICES_VARIABLE)
    entry = json.loads(pathlib.Path(path).read_text()).get(name) if path else _start(service)
    if "settings" in entry:
        settings: base.Settings = entry["settings"]
        return settings
    if "failed" in entry:
        raise AssertionError(f"{service.title} did not start: {entry['failed']}")
    reason = f"{service.title}: {entry['missing']}"
    if os.environ.get(ALL_VARIABLE):
        raise AssertionError(reason)
    raise unittest.SkipTest(reason)


def _start(service: base.Service) -> dict[str, object]:
    """Start a server for the tests of this process."""
    own = _session()
    if service.one_a_machine and service.requires:
        return {"missing": "one of it runs on a machine, so tools/test starts it for all tests"}
    if reason := own.missing(service.name):
        return {"missing": reason}
    try:
        return {"settings": own.use(service.name)}
    except processes.StartError as error:
        return {"failed": str(error)}


@functools.cache  # the servers of a process outlive its tests, which share them
def _session() -> session.Session:
    own = session.Session()
    atexit.register(own.close)
    return own
