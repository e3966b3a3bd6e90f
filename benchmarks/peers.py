"""The two that are measured: the platform, and functions-framework without any platform around it."""

from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

from benchmarks import load, packages

HERE = pathlib.Path(__file__).parent
START_DEADLINE = 60.0
IDLE = 30.0
"""Seconds after which a kept connection is not used again: servers close idle ones."""
BENCH = pathlib.Path(sys.executable).parent
CPU = 2000
"""Millicores of the measured function: as much as the peer may use."""
CONFIGURATION = f"""\
[auth]
driver = tokens
[resource_limits]
max_cpu = {CPU}
"""
"""All that is not default."""
NAME = "load"
OTHER_PROJECT = "catalogue"
"""Has no functions but those of the list."""


class Api:
    """A client of the platform on one kept connection."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._headers = {"X-Auth-Token": token}
        self._used_at = 0.0

    def call(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """The answer's JSON; raises AssertionError for a status of 400 or more."""
        data = self.raw(method, path, body, content_type)
        return json.loads(data) if data else None

    def raw(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> bytes:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if time.monotonic() - self._used_at > IDLE:
            self._connection.close()  # the next request opens it again
        headers = self._headers | ({"Content-Type": content_type} if data is not None else {})
        self._connection.request(method, path, data, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        self._used_at = time.monotonic()
        assert answer.status < 400, f"{method} {path}: {answer.status} {content[:500]!r}"
        return content

    def create_function(self, runtime_id: str, package: bytes, entry: str, **fields: Any) -> str:
        """The id of a new function."""
        given = {"runtime_id": runtime_id, "entry": entry, "code": '{"source": "package"}', **fields}
        body, content_type = packages.form(given, package)
        created: str = self.call("POST", "/v1/functions", body, content_type)["id"]
        return created

    def run(self, function_id: str) -> Any:
        """The output of one synchronous execution, which must succeed."""
        execution = self.call("POST", "/v1/executions", {"function_id": function_id, "sync": True})
        assert execution["status"] == "success", execution
        return json.loads(execution["result"])["output"]


class Platform:
    """A server of the platform on a state directory of its own."""

    def __init__(self, directory: pathlib.Path, configuration: str = "") -> None:
        """``configuration``: what it has beside `CONFIGURATION`."""
        self.directory = directory
        self._config = directory / "funcplat.conf"
        self._config.write_text(CONFIGURATION + configuration)
        self._state = directory / "state"
        self.port = _free_port()
        self.token = self._new_token("bench", "admin")
        self.other_token = self._new_token(OTHER_PROJECT)
        self._process = subprocess.Popen(
            [BENCH / "funcplat", "serve", *self._options(), "--port", str(self.port)],
            stderr=(directory / "server.log").open("wb"),
        )
        _wait(self._process, self.port, "/readyz", directory / "server.log")
        self.api = Api(self.port, self.token)
        self.runtime_id = self.new_runtime("python3")
        self._package = packages.of_file(HERE / "function.py")

    @property
    def pid(self) -> int:
        return self._process.pid

    def _new_token(self, project: str, *roles: str) -> str:
        """A token for a project."""
        words = ["--project", project, "--user", "bench", *(f"--role={role}" for role in roles)]
        command = [BENCH / "funcplat", "token", "create", *self._options(), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.split()[0]

    @property
    def owner(self) -> str:
        """The id of its installation."""
        with contextlib.closing(self._database()) as connection:
            return str(connection.execute("SELECT id FROM installation").fetchone()[0])

    def new_request(self, cpu: int, sync: bool = True, runtime_id: str | None = None) -> load.Request:
        """A new function, called once, and the request that calls it."""
        runtime_id = runtime_id or self.runtime_id
        function_id = self.api.create_function(runtime_id, self._package, "function.hello", cpu=cpu)
        assert self.api.run(function_id) == "Hello, World!"
        return self.request(function_id, sync)

    def request(self, function_id: str, sync: bool) -> load.Request:
        body = {"function_id": function_id, "sync": sync, "input": json.dumps({"name": NAME})}
        return load.Request(
            f"http://127.0.0.1:{self.port}/v1/executions",
            json.dumps(body),
            {"Content-Type": "application/json", "X-Auth-Token": self.token},
            201,
            f"Hello, {NAME}!" if sync else '"phase":"queued"',
        )

    def executions(self, where: str = "TRUE") -> int:
        """Records of executions in the database, as a reader of its own sees them."""
        with contextlib.closing(self._database()) as connection:
            # The condition is the benchmark's own text.
            return int(connection.execute(f"SELECT count(*) FROM executions WHERE {where}").fetchone()[0])

    def _database(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self._state / 'funcplat.sqlite'}?mode=ro", uri=True, timeout=30)

    def stop(self) -> None:
        _stop(self._process)

    def _options(self) -> list[str]:
        return ["--config-file", str(self._config), "--state-dir", str(self._state)]

    def new_runtime(self, image: str, orchestrator: str = "process") -> str:
        """The id of a new runtime that is available."""
        wanted = {"image": image, "orchestrator": orchestrator}
        runtime = self.api.call("POST", "/v1/runtimes", wanted)
        until = time.monotonic() + START_DEADLINE
        while runtime["status"] != "available":
            assert time.monotonic() < until, runtime
            time.sleep(0.05)
            runtime = self.api.call("GET", f"/v1/runtimes/{runtime['id']}")
        return str(uuid.UUID(runtime["id"]))


class Framework:
    """Google's functions-framework in its production mode, with all its defaults."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.port = _free_port()
        command = [BENCH / "functions-framework", "--target=main", f"--source={HERE / 'function.py'}"]
        self._process = subprocess.Popen(
            [*command, "--host=127.0.0.1", f"--port={self.port}"],
            stdout=(directory / "framework.log").open("wb"),
            stderr=subprocess.STDOUT,
        )
        _wait(self._process, self.port, None, directory / "framework.log")

    @property
    def pid(self) -> int:
        return self._process.pid

    def request(self) -> load.Request:
        headers = {"Content-Type": "application/json"}
        url = f"http://127.0.0.1:{self.port}/"
        return load.Request(url, json.dumps({"name": NAME}), headers, 200, f"Hello, {NAME}!")

    def stop(self) -> None:
        _stop(self._process)


@contextlib.contextmanager
def platform(directory: pathlib.Path) -> Iterator[Platform]:
    peer = Platform(directory)
    try:
        yield peer
    finally:
        peer.stop()


@contextlib.contextmanager
def framework(directory: pathlib.Path) -> Iterator[Framework]:
    peer = Framework(directory)
    try:
        yield peer
    finally:
        peer.stop()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], port: int, path: str | None, log: pathlib.Path) -> None:
    """Wait until a peer answers; exits with its log where it ends first."""
    until = time.monotonic() + START_DEADLINE
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", path or "/")
            if path is None or connection.getresponse().status == 200:
                return
        time.sleep(0.05)  # there is no event for the start of another program
    process.terminate()
    sys.exit(f"a peer did not start; its log:\n{log.read_text(errors='replace')}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
