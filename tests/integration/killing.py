"""A harness that kills: accepted executions under kill -9 at random moments, and the audit afterwards.

Used by the tests with a few hundred executions and by ``benchmarks/run --only kills`` with ten thousand.

What ran is known from three sides: the rows; what the function itself said (its result, and a trace in its
log, both of the execution's id: a function is shut in and can write nowhere else); and the tallies, which
count every end. Executions may run more than once; they are settled once.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import sqlalchemy as sa

from funcplat.core.tallies import Tallies
from funcplat.db import models, session
from tests.functional.platform import configuration, package, until
from tests.services import processes

T = models.executions
PATIENCE = 120.0
WRONG_CLOCK = pathlib.Path(__file__).with_name("wrong_clock.py")
FUNCTION = """
    import time
    def main(context, seconds=0.0):
        print(context["execution_id"], flush=True)
        time.sleep(seconds)
        return context["execution_id"]
"""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is done to whom."""

    executions: int
    kills: int
    apis: int = 1
    engines: int = 0  # none: one ``serve``, on SQLite
    callers: int = 8
    pause: tuple[float, float] = (0.5, 2.0)  # seconds between kills
    lease: int = 3  # seconds until a server that says nothing is taken for dead
    skew: float = 0.0  # seconds that every other process is ahead of the time, and the rest behind it


@dataclasses.dataclass
class Audit:
    """What was found in the end."""

    accepted: int = 0
    kills: int = 0
    lost: list[str] = dataclasses.field(default_factory=list)
    stuck: list[str] = dataclasses.field(default_factory=list)
    wrong: list[str] = dataclasses.field(default_factory=list)  # success with somebody else's result
    outcomes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    attempts: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    settled: int = 0  # by the tallies, which count each end
    rows: int = 0
    conserved: bool = False
    samples: int = 0  # looks at the counts while it went on
    unconserved: int = 0
    seconds: float = 0.0

    @property
    def settled_twice(self) -> int:
        """Ends that were counted beyond one for each row."""
        return self.settled - self.rows


class Cluster:
    """Server processes on one database, killed and started again."""

    def __init__(self, home: pathlib.Path, url: str | None, plan: Plan) -> None:
        self.home, self.url, self.plan = home, url, plan
        self.log = (home / "log").open("ab")
        self.words: list[list[str]] = []
        self.ports: list[int] = []
        for number in range(plan.apis):
            self._add("api" if plan.engines else "serve", f"a{number}", processes.free_port())
        for number in range(plan.engines):
            self._add("engine", f"e{number}", None)
        if url is not None:
            subprocess.run(self._command("db upgrade", "a0"), check=True, capture_output=True)
        self.running = [self._start(number) for number in range(len(self.words))]

    def _add(self, command: str, name: str, port: int | None) -> None:
        (self.home / name).mkdir()
        options: dict[str, dict[str, Any]] = {
            "DEFAULT": {"state_dir": self.home / name / "s"},
            "engine": {
                "poll_interval": 0.1,
                "reap_interval": 0.5,
                "lease": self.plan.lease,
                "max_attempts": 50,
            },
            "storage_local": {"directory": self.home / "packages"},
            "resource_limits": {"max_cpu": 2000, "default_cpu": 2000},
            "scaling": {"max_workers_per_function": 4},
        }
        if self.url is not None:
            options["database"] = {"connection": self.url}
        if port is not None:
            options["api"] = {"port": port, "shutdown_grace": 1}
            self.ports.append(port)
        configuration(self.home / name, options)
        self.words.append(self._command(command, name))

    def _command(self, command: str, name: str) -> list[str]:
        conf = str(self.home / name / "funcplat.conf")
        return [sys.executable, "-m", "funcplat.cmd", *command.split(), "--config-file", conf]

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._clocked(number),
            stdout=self.log,
            stderr=self.log,
            stdin=subprocess.DEVNULL,
        )

    def _clocked(self, number: int) -> list[str]:
        """The command, by another time of day if the plan says so."""
        words = self.words[number]
        if not self.plan.skew:
            return words
        python, _, *module = words
        return [python, str(WRONG_CLOCK), str(self.plan.skew * (-1) ** number), *module]

    def kill(self, *numbers: int) -> None:
        """kill -9, and once all of them are dead, new processes in their places."""
        for number in numbers:
            self.running[number].kill()
        for number in numbers:
            self.running[number].wait()
        for number in numbers:
            self.running[number] = self._start(number)

    def stop(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(60.0)
            finally:
                process.kill()
        self.log.close()

    def last_words(self) -> str:
        """The end of what the servers logged."""
        return (self.home / "log").read_text(errors="replace")[-20_000:]

    def database(self) -> session.Database:
        url = self.url or session.sqlite_url(self.home / "a0" / "s" / "funcplat.sqlite")
        return session.Database(url)

    def request(self, method: str, path: str, **more: Any) -> httpx.Response | None:
        """An answer of any API process; None where it went away meanwhile."""
        port = random.choice(self.ports)
        try:
            return httpx.request(method, f"http://127.0.0.1:{port}/v1{path}", timeout=30.0, **more)
        except httpx.TransportError:
            return None

    def create(self, path: str, **more: Any) -> dict[str, Any]:
        def made() -> Any:
            answer = self.request("POST", path, **more)
            return answer.json() if answer is not None and answer.status_code == 201 else None

        found: dict[str, Any] = until(made, f"POST {path}", PATIENCE)
        return found

    def function(self) -> str:
        runtime = self.create("/runtimes", json={"image": "python3"})

        def available() -> bool:
            answer = self.request("GET", f"/runtimes/{runtime['id']}")
            return answer is not None and answer.json().get("status") == "available"

        until(available, "the runtime is available", PATIENCE)
        form = {"runtime_id": runtime["id"], "code": '{"source": "package"}', "timeout": "5"}
        created = self.create("/functions", data=form, files={"package": ("f.zip", package(FUNCTION))})
        return str(created["id"])


@contextlib.contextmanager
def cluster(url: str | None, plan: Plan) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="kill-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        made = Cluster(pathlib.Path(directory), url, plan)
        try:
            yield made
        finally:
            made.stop()


def run(url: str | None, plan: Plan) -> Audit:
    """Accept, kill, wait until all is settled, and look.  ``url``: None for SQLite and one ``serve``."""
    with cluster(url, plan) as servers:
        began = time.monotonic()
        audit = Audit()
        accepted = _Load(servers, servers.function(), plan)
        over = threading.Event()
        watcher = threading.Thread(target=_watch, args=(servers, audit, over))
        watcher.start()
        try:
            for _ in range(plan.kills):
                time.sleep(random.uniform(*plan.pause))
                servers.kill(random.randrange(len(servers.running)))
                audit.kills += 1
            names = accepted.join()
            _look(servers, names, audit)
        finally:
            accepted.enough.set()
            over.set()
            watcher.join()
        audit.seconds = time.monotonic() - began
        return audit


class _Load:
    """Callers that go on until enough was accepted; what is not answered may or may not have been."""

    def __init__(self, servers: Cluster, function: str, plan: Plan) -> None:
        self._servers, self._function, self._wanted = servers, function, plan.executions
        self._accepted: list[str] = []
        self._turn = threading.Lock()
        self.enough = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(plan.callers)]
        for thread in self._threads:
            thread.start()

    def join(self) -> list[str]:
        for thread in self._threads:
            thread.join()
        return self._accepted

    def _call(self) -> None:
        clients = [httpx.Client(base_url=f"http://127.0.0.1:{port}/v1") for port in self._servers.ports]
        with contextlib.ExitStack() as stack:
            for client in clients:
                stack.enter_context(client)
            while not self.enough.is_set():
                self._one(random.choice(clients))

    def _one(self, client: httpx.Client) -> None:
        seconds = random.choice([0, 0, 0, 0, 0.01, 0.2])
        body = {"function_id": self._function, "sync": False, "input": {"seconds": seconds}}
        try:
            answer = client.post("/executions", json=body)
        except httpx.TransportError:
            time.sleep(0.05)
            return
        if answer.status_code == 201:
            with self._turn:
                self._accepted.append(answer.json()["id"])
                if len(self._accepted) >= self._wanted:
                    self.enough.set()


def _watch(servers: Cluster, audit: Audit, over: threading.Event) -> None:
    """Whether the counts hold while all of that goes on."""
    db = servers.database()
    try:
        while not over.wait(0.25):
            with contextlib.suppress(Exception):  # a database in the hands of the killed is looked at later
                audit.samples += 1
                audit.unconserved += not Tallies(db, "0" * 32).read().holds
    finally:
        db.close()


def _look(servers: Cluster, names: list[str], audit: Audit) -> None:
    db = servers.database()
    try:

        def unfinished() -> list[str]:
            with db.read() as connection:
                query = sa.select(T.c.id).where(T.c.status.in_(models.UNFINISHED))
                return list(connection.execute(query).scalars())

        with contextlib.suppress(AssertionError):
            until(lambda: not unfinished(), "all is settled", PATIENCE + len(names) / 20)
        audit.stuck = unfinished()
        with db.read() as connection:
            rows = {row.id: row for row in connection.execute(sa.select(T).where(T.c.sync.is_(False)))}
        audit.accepted = len(names)
        audit.lost = [name for name in names if name not in rows]
        census = Tallies(db, "0" * 32).read()
        audit.settled, audit.rows, audit.conserved = census.settled, len(rows), census.holds
        for row in rows.values():
            audit.outcomes[row.status] += 1
            audit.attempts[row.attempt] += 1
            if row.status == "success" and not _is_own(row):
                audit.wrong.append(row.id)
    finally:
        db.close()


def _is_own(row: Any) -> bool:
    """Whether the trace and the result are of this execution."""
    name: str = row.id
    return bytes(row.log or b"").split() == [name.encode()] and json.loads(row.result)["output"] == name
