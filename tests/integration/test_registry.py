"""A server that keeps its packages in a real registry behind a token server, over REST."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from typing import Any

import httpx
import testtools
from testtools import content

from tests.drivers import registries
from tests.functional.platform import IMAGE, package, token_of, until
from tests.integration import server as servers

GRACE = 3600.0
SOURCE = """
    def main(name="World"):
        return "Hello, {}!".format(name)
    # {}
"""


class RegistryStoreTests(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.tokens = self.useFixture(registries.TokenServer(self.useFixture(registries.Certificate())))
        self.registry = self.useFixture(registries.Registry(auth=self.tokens.configuration))
        self.name = f"funcplat/{uuid.uuid4().hex}"
        self.addOnException(lambda _: self.addDetail("server", content.text_content(self.server.tail())))
        self.server = self.serving(registries.PASSWORD)
        self.useFixture(self.server)
        self.api = self.server.caller(token_of("p0"))

    def serving(self, password: str) -> servers.Server:
        place = f"{self.registry.host}/{self.name}"
        return servers.Server(
            storage={"enabled": "registry", "packages": "registry", "unreferenced_grace": GRACE},
            storage_registry={"repository": place, "username": registries.USER, "password": password},
        )

    def kept(self) -> list[str]:
        """What is in the repository, as another client sees it."""
        token = self.tokens.token([f"repository:{self.name}:pull"])
        client = registries.Client(f"{self.registry.host}/{self.name}", Authorization=f"Bearer {token}")
        try:
            return [str(tag) for tag in client.request("GET", "tags/list").json()["tags"] or []]
        except httpx.HTTPStatusError as error:
            self.assertEqual(404, error.response.status_code)
            return []

    def runtime(self) -> str:
        made = self.server.admin.post("/v1/runtimes", {"image": IMAGE}).json()
        path = f"/v1/runtimes/{made['id']}"
        until(lambda: self.server.admin.get(path).json()["status"] == "available", "a runtime")
        return str(made["id"])

    def create(self, data: bytes) -> httpx.Response:
        form = {"runtime_id": self.runtime(), "code": '{"source": "package"}'}
        return self.api.post("/v1/functions", data=form, files={"package": ("f", data)})

    def call(self, function: str, name: str) -> Any:
        body = {"function_id": function, "sync": True, "input": json.dumps({"name": name})}
        answer = self.api.post("/v1/executions", body).json()
        self.assertEqual("success", answer["status"], answer)
        return json.loads(answer["result"])["output"]

    def test_functions_live_on_packages_in_a_registry(self) -> None:
        data = package(SOURCE.format("{}", uuid.uuid4().hex))
        answer = self.create(data)
        self.assertEqual(201, answer.status_code, answer.text)
        function = answer.json()["id"]
        self.assertEqual(1, len(self.kept()))
        self.assertEqual("Hello, Ann!", self.call(function, "Ann"))
        self.assertFalse((self.server.state_dir / "packages").exists())

        download = self.api.get(f"/v1/functions/{function}", download="true")
        self.assertEqual(data, download.content)

        self.server.kill()
        shutil.rmtree(self.server.state_dir / "code")  # of another machine, as it were
        self.server.start()
        self.assertEqual("Hello, Bob!", self.call(function, "Bob"))

        self.assertEqual(204, self.api.delete(f"/v1/functions/{function}").status_code)
        self.server.stop()
        # Not before: with no grace, a sweep at start takes a package that is just being uploaded.
        text = self.server.config.read_text().replace(f"_grace = {GRACE}", "_grace = 0")
        self.server.config.write_text(text)
        self.server.start()  # sweeps at once, and else every few minutes
        until(lambda: not self.kept(), "the package is deleted")

    def test_a_registry_that_is_down_is_an_answer_and_passes(self) -> None:
        data = package(SOURCE.format("{}", uuid.uuid4().hex))
        self.registry.stop()
        answer = self.create(data)
        self.assertEqual((503, "registry_refused"), (answer.status_code, answer.json()["code"]))
        self.assertIn("start the registry", answer.json()["message"])
        self.registry.start()
        self.assertEqual(201, self.create(data).status_code)

    def test_a_server_whose_password_is_wrong_does_not_start(self) -> None:
        self.server.stop()
        text = self.server.config.read_text().replace(f"password = {registries.PASSWORD}", "password = wrong")
        self.server.config.write_text(text)
        done = subprocess.run(self.server.command(), cwd=servers.ROOT, capture_output=True, text=True)
        self.assertEqual(78, done.returncode, done.stderr)
        self.assertRegex(done.stderr, "token server .* refuses the user 'ann'")
        self.assertNotIn("Traceback", done.stderr)

    def test_a_package_store_without_a_repository_does_not_start(self) -> None:
        self.server.stop()
        lines = self.server.config.read_text().splitlines()
        kept = [line for line in lines if not line.startswith("repository")]
        self.assertLess(len(kept), len(lines))
        self.server.config.write_text("\n".join(kept))
        done = subprocess.run(self.server.command(), cwd=servers.ROOT, capture_output=True, text=True)
        self.assertEqual(78, done.returncode, done.stderr)
        self.assertIn("[storage_registry] repository is not set", done.stderr)
