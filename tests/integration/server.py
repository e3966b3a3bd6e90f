"""A real ``funcplat serve``: a process of its own, stopped by its own id, with a census of what it leaves."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from typing import Any

import fixtures
import httpx

from funcplat.drivers.process import run_dir
from tests.functional.platform import ADMIN, Api, configuration, token_file, until
from tests.services import processes

ROOT = pathlib.Path(__file__).parents[2]
START_DEADLINE = 60.0
STOP_DEADLINE = 60.0


class Server(fixtures.Fixture):
    """Serves on a free port with a state directory of its own; `stop`, `kill` and `start` as often as wanted.

    Who calls: `admin`, and `caller` of a project; projects are "p0" to "p9".  With ``auth="noauth"`` nobody
    needs a token.
    """

    def __init__(self, auth: str = "tokens", **options: dict[str, Any]) -> None:
        super().__init__()
        self._auth = auth
        self._options = options
        self.process: subprocess.Popen[bytes] | None = None
        self._family: set[tuple[int, int]] = set()  # descendants of servers that were signalled

    def _setUp(self) -> None:
        # A short path: sockets of workers are below it.
        self.home = pathlib.Path(self.useFixture(_ShortDirectory()).path)
        self.state_dir = self.home / "s"
        self.port = processes.free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.log = self.home / "log"
        projects: dict[str, tuple[str, ...]] = {f"p{n}": ("member",) for n in range(10)}
        defaults: dict[str, dict[str, Any]] = {
            "DEFAULT": {"state_dir": self.state_dir},
            "api": {"port": self.port, "shutdown_grace": 10},
            "auth": {"driver": self._auth},
            "engine": {"poll_interval": 0.1, "reap_interval": 0.5},
            "resource_limits": {"max_cpu": 2000, "default_cpu": 1000},
        }
        if self._auth == "tokens":
            defaults["auth_tokens"] = {"file": token_file(self.home, projects)}
        groups = defaults.keys() | self._options.keys()
        merged = {group: defaults.get(group, {}) | self._options.get(group, {}) for group in groups}
        self.config = configuration(self.home, merged)
        self.addCleanup(self._end)
        self.start()
        self.admin = self.caller(ADMIN)

    def caller(self, token: str | None) -> Api:
        api = Api(self.endpoint, token)
        self.addCleanup(api.http.close)
        return api

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def command(self, *more: str) -> list[str]:
        return [sys.executable, "-m", "funcplat.cmd", "serve", "--config-file", str(self.config), *more]

    def spawn(self) -> None:
        """Start without waiting for it to serve."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT
            )

    def start(self) -> None:
        self.spawn()
        assert self.process is not None
        end = time.monotonic() + START_DEADLINE
        with contextlib.closing(Api(self.endpoint, None).http) as http:
            while not self._answers(http):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    raise AssertionError(f"the server ended with {self.process.wait(0.02)}:\n{self.tail()}")
                if time.monotonic() > end:
                    raise AssertionError(f"not serving after {START_DEADLINE:g} s:\n{self.tail()}")

    def _answers(self, http: httpx.Client) -> bool:
        try:
            return bool(http.get(f"{self.endpoint}/healthz").status_code == 200)
        except httpx.TransportError:
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self._family |= descendants(self.process.pid)
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code, once it has ended."""
        assert self.process is not None
        code = self.process.wait(STOP_DEADLINE)
        self.process = None
        return code

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it as a crash would."""
        self.signal(signal.SIGKILL)
        self.wait()

    def tail(self) -> str:
        return processes.log_tail(self.log, 6000)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Look into the database, which may be done while the server runs."""
        with contextlib.closing(sqlite3.connect(self.state_dir / "funcplat.sqlite", timeout=30)) as database:
            return list(database.execute(query, values))

    def _end(self) -> None:
        """Stop it, and prove that it left nothing."""
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        self.process = None
        if (self.state_dir / "funcplat.sqlite").exists():
            # What ends with its parent does so in its own time, if only in milliseconds.
            with contextlib.suppress(AssertionError):
                until(lambda: not self.leftovers(), "nothing is left", 10.0)
            assert not self.leftovers(), "\n".join(["left behind:", *self.leftovers(), self.tail()])

    # -- what it leaves ----------------------------------------------------------------------------------

    @property
    def mark(self) -> str:
        """What is in the name of everything that this installation makes outside its state directory."""
        ((owner,),) = self.rows("SELECT id FROM installation")
        return run_dir.short_name(str(owner))

    def leftovers(self) -> list[str]:
        """What is left after its end: processes, control groups, mounts, sockets, temporary files."""
        mark = self.mark
        temporary = pathlib.Path(tempfile.gettempdir()).glob(f"*{mark}*")
        sockets = (path for path in self.state_dir.rglob("*") if path.is_socket())
        return [
            *[f"process {pid}" for pid, start in self._family if processes.start_time(pid) == start],
            *_processes(mark, str(self.home)),
            *[line for line in _mounts() if mark in line or str(self.home) in line],
            *[str(path) for path in (*_groups(mark), *temporary, *sockets)],
        ]

    def workers(self, function_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.admin.get(f"/v1/functions/{function_id}/workers").json()["workers"]
        return found


class _ShortDirectory(fixtures.Fixture):
    def _setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="f", ignore_cleanup_errors=True)
        self.addCleanup(directory.cleanup)
        self.path = directory.name


def descendants(pid: int) -> set[tuple[int, int]]:
    """Id and start time of every process below this one."""
    children: dict[int, list[int]] = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_bytes().rpartition(b")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found: set[tuple[int, int]] = set()
    level = [pid]
    while level:
        level = [child for parent in level for child in children.get(parent, [])]
        found |= {(each, start) for each in level if (start := processes.start_time(each)) is not None}
    return found


def _processes(*marks: str) -> list[str]:
    """Processes that name one of these in their command line, their control group or their mounts."""
    found = []
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            texts = [(directory / name).read_bytes() for name in ("cmdline", "cgroup", "mountinfo")]
            if any(mark.encode() in text for mark in marks for text in texts):
                command = texts[0].replace(b"\0", b" ").decode(errors="replace")
                found.append(f"process {directory.name}: {command[:200]}")
    return found


def _groups(mark: str) -> list[pathlib.Path]:
    base = pathlib.Path("/sys/fs/cgroup")
    return [path for depth in ("", "*/", "*/*/") for path in base.glob(f"{depth}funcplat-{mark}*")]


def _mounts() -> list[str]:
    return pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
