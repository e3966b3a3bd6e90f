"""A whole platform in this process, behind a real port: HTTP in, SQLite and isolated workers behind."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import io
import itertools
import json
import logging
import pathlib
import tempfile
import textwrap
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ClassVar

import fixtures
import httpx
import testtools
import uvicorn
import uvloop

from funcplat import bootstrap, conf
from funcplat.api import app
from funcplat.api.protocol import Protocol
from funcplat.api.resource import Desk
from funcplat.auth import tokenfile
from funcplat.auth.policy import Policy
from funcplat.cmd import serving
from funcplat.engine import Engine

PATIENCE = 30.0
"""Seconds until a test gives up on something that should take milliseconds."""
PROJECTS = 100
ADMIN = "token-of-the-admin"
IMAGE = "python3"
HELLO = """
    def main(name="World", **kwargs):
        print("greeting", name)
        return f"Hello, {name}!"
"""


def token_of(project: str) -> str:
    return f"token-of-{project}"


def configuration(directory: pathlib.Path, options: dict[str, dict[str, Any]]) -> pathlib.Path:
    """Write a configuration file: group -> option -> value."""
    path = directory / "funcplat.conf"
    lines: list[str] = []
    for group, values in options.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in values.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def token_file(directory: pathlib.Path, projects: dict[str, tuple[str, ...]]) -> pathlib.Path:
    """A file that knows `token_of` each project, with these roles, and `ADMIN`, of the project "admins"."""
    tables = []
    known = {token_of(project): (project, roles) for project, roles in projects.items()}
    for token, (project, roles) in {**known, ADMIN: ("admins", ("admin",))}.items():
        digest = tokenfile.hash_token(token).hex()
        tables.append(
            f'[[tokens]]\nhash = "sha256:{digest}"\nproject = "{project}"\nuser = "somebody"\n'
            f"roles = {json.dumps(list(roles))}\n"
        )
    path = directory / "tokens.toml"
    path.write_text("\n".join(tables))
    path.chmod(0o600)
    return path


def package(source: str = HELLO, **more: str) -> bytes:
    """A ZIP with ``main.py``, of no date, so that equal sources make equal packages; ``more``: modules."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(zipfile.ZipInfo("main.py"), textwrap.dedent(source))
        for name, text in more.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.py"), textwrap.dedent(text))
    return data.getvalue()


def until(condition: Callable[[], Any], what: str, deadline: float = PATIENCE) -> Any:
    """The first true value of ``condition``; fails with ``what`` when there is none in time."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline:g} s: {what}")
        time.sleep(0.01)
    return value


class Platform:
    """Serves on its own event loop in a thread, from `start` to `stop`."""

    def __init__(self, **options: dict[str, Any]) -> None:
        """``options``: group -> option -> value, beside those that keep the tests apart."""
        self._options = options
        self._stack = contextlib.ExitStack()
        self._started: concurrent.futures.Future[str] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name="platform", daemon=True)

    def start(self) -> None:
        self.home = pathlib.Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._thread.start()
        self.endpoint = self._started.result(PATIENCE)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(PATIENCE)
        self._stack.close()

    def _configuration(self) -> Any:
        projects: dict[str, tuple[str, ...]] = {f"p{n}": ("member",) for n in range(PROJECTS)}
        defaults: dict[str, dict[str, Any]] = {
            "DEFAULT": {"state_dir": self.home / "s"},
            "auth": {"driver": "tokens"},
            "auth_tokens": {"file": token_file(self.home, projects)},
            "engine": {"poll_interval": 0.05, "reap_interval": 0.5},
            # Tests sleep in functions rather than compute; the platform must not wait for their quota.
            "resource_limits": {"max_cpu": 2000, "default_cpu": 1000},
        }
        merged = {
            group: defaults.get(group, {}) | self._options.get(group, {})
            for group in defaults.keys() | self._options.keys()
        }
        return conf.load(["--config-file", str(configuration(self.home, merged))])

    def _run(self) -> None:
        try:
            with (
                bootstrap.services(self._configuration()) as services,
                asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
            ):
                self.services = services
                runner.run(self._serve(services))
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self, services: bootstrap.Services) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        async with bootstrap.invocation(services) as invocation:
            self.invocation = invocation
            engine = Engine(services, invocation)
            engine.start()
            wakes = engine.wake_queue, engine.wake_changes, engine.wake_schedule
            desk = Desk(services, invocation, Policy(services.conf), *wakes)
            async with _listening(desk) as port:
                self._started.set_result(f"http://127.0.0.1:{port}")
                await self._ending.wait()
            await engine.stop(1.0)
            await invocation.run(services.workers.stop_own)


@contextlib.asynccontextmanager
async def _listening(desk: Desk) -> AsyncIterator[int]:
    config = uvicorn.Config(
        app.create_app(desk),
        http=Protocol,
        lifespan="off",
        log_config=None,
        port=0,
        access_log=False,
        timeout_keep_alive=serving.KEEP_ALIVE,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


class Api:
    """A caller.  Whatever it is answered must be of the shape that all answers have."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        self.endpoint = endpoint
        # verify: making the context of TLS, which nobody needs here, takes longer than most tests.
        self.http = httpx.Client(
            headers={"X-Auth-Token": token} if token else {}, timeout=PATIENCE, verify=False
        )

    def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        answer = self.http.request(method, self.endpoint + path, **more)
        check_shape(answer)
        return answer

    def get(self, path: str, **query: Any) -> httpx.Response:
        return self("GET", path, params=query or None)

    def post(self, path: str, json: Any = None, **more: Any) -> httpx.Response:
        return self("POST", path, **more, **({} if json is None else {"json": json}))

    def put(self, path: str, json: Any = None, **more: Any) -> httpx.Response:
        return self("PUT", path, **more, **({} if json is None else {"json": json}))

    def delete(self, path: str) -> httpx.Response:
        return self("DELETE", path)


def check_shape(answer: httpx.Response) -> None:
    """No answer is a 500; errors are JSON with all that clients need of them."""
    where = f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:500]}"
    assert answer.status_code != 500, where
    if answer.status_code < 400:
        return
    assert answer.headers["content-type"] == "application/json", where
    body = answer.json()
    assert body["faultstring"] == body["message"] != "", where
    assert body["code"] and body["request_id"] == answer.headers["x-openstack-request-id"], where


class ApiTest(testtools.TestCase):
    """Tests of one platform, each in projects of its own."""

    options: ClassVar[dict[str, dict[str, Any]]] = {}
    platform: Platform
    _numbers: Iterator[int]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.platform = Platform(**cls.options)
        cls.platform.start()
        cls.addClassCleanup(cls.platform.stop)
        cls._numbers = itertools.count()

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.FakeLogger())  # shown with a failure
        self.useFixture(fixtures.FakeLogger("httpx", level=logging.WARNING))
        self.admin = self.caller(ADMIN)
        self.project, self.api = self.member()

    def caller(self, token: str | None) -> Api:
        api = Api(self.platform.endpoint, token)
        self.addCleanup(api.http.close)
        return api

    def member(self) -> tuple[str, Api]:
        """A project that no other test uses, and a member of it."""
        project = f"p{next(self._numbers)}"
        return project, self.caller(token_of(project))

    # -- what most tests need ----------------------------------------------------------------------------

    def runtime(self, **fields: Any) -> str:
        """The id of a new runtime that is available."""
        created = self.ok(201, self.admin.post("/v1/runtimes", {"image": IMAGE, **fields}))
        path = f"/v1/runtimes/{created['id']}"
        until(lambda: self.admin.get(path).json()["status"] == "available", "the runtime is available")
        return str(created["id"])

    def shared_runtime(self) -> str:
        """The id of a runtime that tests use and do not change."""
        cls = type(self)
        if "_runtime" not in cls.__dict__:
            cls._runtime = self.runtime(name="shared")  # type: ignore[attr-defined]
        return str(cls._runtime)  # type: ignore[attr-defined]

    def create(self, source: str = HELLO, api: Api | None = None, **fields: Any) -> dict[str, Any]:
        """A new function."""
        return self.ok(201, self.post_function(package(source), api=api, **fields))

    def post_function(self, data: bytes, api: Api | None = None, **fields: Any) -> httpx.Response:
        form = {"runtime_id": self.shared_runtime(), "code": json.dumps({"source": "package"}), **fields}
        form = {name: value for name, value in form.items() if value is not None}
        return (api or self.api).post("/v1/functions", data=form, files={"package": ("f.zip", data)})

    def execute(self, function: dict[str, Any], api: Api | None = None, **fields: Any) -> dict[str, Any]:
        """The answer to POST /v1/executions."""
        body = {"function_id": function["id"], **fields}
        return self.ok(201, (api or self.api).post("/v1/executions", body))

    def finished(self, execution: dict[str, Any]) -> dict[str, Any]:
        """An asynchronous execution, once it has ended."""
        path = f"/v1/executions/{execution['id']}"

        def ended() -> Any:
            shown = self.ok(200, self.api.get(path))
            return shown if shown["status"] != "running" else None

        found: dict[str, Any] = until(ended, "the execution has ended")
        return found

    def ok(self, status: int, answer: httpx.Response) -> Any:
        self.assertEqual(status, answer.status_code, answer.text[:1000])
        return answer.json() if answer.content else None

    def refused(self, status: int, code: str, answer: httpx.Response, *words: str) -> dict[str, Any]:
        """Assert an error of this status and stable code that says these words."""
        self.assertEqual((status, code), (answer.status_code, answer.json().get("code")), answer.text[:1000])
        body: dict[str, Any] = answer.json()
        for word in words:
            self.assertIn(word, body["faultstring"])
        return body

    def output(self, execution: dict[str, Any]) -> Any:
        """What a function returned."""
        self.assertEqual("success", execution["status"], execution)
        return json.loads(execution["result"])["output"]
