"""A real server with the process driver and the Docker driver, and what it leaves in the Engine."""

from __future__ import annotations

import datetime
import json
from typing import Any

import testtools
from testtools import content

from funcplat.drivers import base
from funcplat.drivers.docker import driver
from tests import docker_engine
from tests.functional.platform import IMAGE, Api, package, token_of, until
from tests.integration import server as servers


class Server(servers.Server):
    """At its end workers that would live on are stopped, and nothing else may be there."""

    def __init__(
        self, url: str, options: dict[str, Any], auth: str = "tokens", **more: dict[str, Any]
    ) -> None:
        """``options`` of the driver; ``more``: group -> option -> value."""
        self.url = url
        self._driver_options = {"url": url, "pool_size": 1, **options}
        super().__init__(
            auth,
            orchestrator={"enabled": "process, docker", "default": "docker"},
            orchestrator_docker=self._driver_options,
            **more,
        )

    @property
    def owner(self) -> str:
        ((owner,),) = self.rows("SELECT id FROM installation")
        return str(owner)

    def driver(self) -> driver.DockerDriver:
        """A driver like the server's, in this process."""
        options = {
            name: value if name == "pool_size" else str(value) for name, value in self._driver_options.items()
        }
        group = docker_engine.group(**options)
        context = base.Context(
            self.owner, self.state_dir, exposed=False, clock=lambda: datetime.datetime.now(datetime.UTC)
        )
        return driver.DockerDriver(group, context)

    def leftovers(self) -> list[str]:
        """What is left when workers, which live on by design, are stopped as an operator would."""
        own = self.driver()
        for state in own.list_workers(30.0):
            own.stop_worker(state.handle, 0.0, 30.0)
        own.close()
        return [*super().leftovers(), *docker_engine.census(self.url, self.owner)]

    def containers(self, kind: str = "w") -> list[dict[str, Any]]:
        """Containers of this installation: workers, or ``p`` those of pools."""
        label = f"funcplat.owner={self.owner}"
        with docker_engine.client(self.url) as client:
            found: list[dict[str, Any]] = client.containers(all=True, filters={"label": label})
        return [each for each in found if any(f".{kind}." in name for name in each["Names"] or ())]


class DockerServerTest(testtools.TestCase):
    """A server whose functions run in containers unless they say otherwise."""

    def setUp(self) -> None:
        super().setUp()
        self.url = self.engine()
        self.image = docker_engine.python_image(self.url)
        self.server = Server(self.url, self.driver_options(), **self.server_options())
        self.addOnException(lambda _: self.addDetail("server", content.text_content(self.server.tail())))
        self.useFixture(self.server)
        self.api = self.server.caller(token_of("p0"))

    def engine(self) -> str:
        """The URL of the Engine to use."""
        return docker_engine.url()

    def driver_options(self) -> dict[str, Any]:
        """Options of the driver that are special."""
        return {}

    def server_options(self) -> dict[str, dict[str, Any]]:
        """Other options of the server: group -> option -> value."""
        return {}

    def runtime(self, orchestrator: str = "docker", image: str | None = None) -> str:
        """The id of a new runtime that is available."""
        image = image or (self.image if orchestrator == "docker" else IMAGE)
        answer = self.server.admin.post("/v1/runtimes", {"image": image, "orchestrator": orchestrator})
        path = f"/v1/runtimes/{answer.json()['id']}"
        until(lambda: self.server.admin.get(path).json()["status"] == "available", "a runtime")
        return str(answer.json()["id"])

    def function(self, source: str, runtime: str | None = None, **fields: str) -> str:
        """The id of a new function."""
        form = {"runtime_id": runtime or self.runtime(), "code": '{"source": "package"}', "timeout": "60"}
        answer = self.api.post("/v1/functions", data=form | fields, files={"package": ("f", package(source))})
        self.assertEqual(201, answer.status_code, answer.text)
        return str(answer.json()["id"])

    def call(self, function: str, api: Api | None = None, **values: Any) -> dict[str, Any]:
        """A synchronous execution."""
        body = {"function_id": function, "sync": True, "input": json.dumps(values)}
        answer = (api or self.api).post("/v1/executions", body)
        self.assertEqual(201, answer.status_code, answer.text)
        found: dict[str, Any] = answer.json()
        return found

    def output(self, execution: dict[str, Any]) -> Any:
        self.assertEqual("success", execution["status"], execution)
        return json.loads(execution["result"])["output"]
