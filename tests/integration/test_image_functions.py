"""Functions that are images, over the API of a real server with a real Engine and a real registry."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import signal
import time
import uuid
from collections.abc import Iterator
from typing import Any

from tests import docker_engine
from tests.drivers import registries
from tests.functional.platform import until
from tests.integration import docker_server


class ImageTest(docker_server.DockerServerTest):
    def user_image(self, *lines: str, base: str | None = None) -> str:
        """The name of a new image that a user built, of a base with a shell and Python."""
        tag = f"funcplat-test/user:{uuid.uuid4().hex}"
        text = "\n".join(("ARG BASE", "FROM $BASE", *lines, ""))
        base = base or docker_engine.base_image(self.url)
        docker_engine.user_image(self.url, tag, {"Dockerfile": text}, base)
        self.addCleanup(docker_engine.remove_image, self.url, tag)
        return tag

    def program(self, script: str) -> str:
        """An image whose program is a shell script; arguments are its ``$0``, ``$1`` and so on."""
        return self.user_image(f"ENTRYPOINT {json.dumps(['/bin/sh', '-c', script])}")

    def create(self, image: str, **fields: str) -> dict[str, Any]:
        form = {"code": json.dumps({"source": "image", "image": image}), "timeout": "30", **fields}
        answer = self.api.post("/v1/functions", data=form)
        self.assertEqual(201, answer.status_code, answer.text)
        made: dict[str, Any] = answer.json()
        return made

    def execute(self, function: dict[str, Any], text: str | None = None, sync: bool = True) -> dict[str, Any]:
        body = {"function_id": function["id"], "sync": sync, "input": text}
        answer = self.api.post("/v1/executions", body)
        self.assertEqual(201, answer.status_code, answer.text)
        execution: dict[str, Any] = answer.json()
        return execution

    def log(self, execution: dict[str, Any]) -> str:
        """What the program wrote, without the lines that frame every log."""
        lines = self.api.get(f"/v1/executions/{execution['id']}/log").text.splitlines(keepends=True)
        frame = (f"Start execution: {execution['id']}\n", f"Finished execution: {execution['id']}\n")
        return "".join(line for line in lines if line not in frame)

    def settled(self, execution: dict[str, Any]) -> dict[str, Any]:
        path = f"/v1/executions/{execution['id']}"
        until(lambda: self.api.get(path).json()["status"] != "running", "it is settled", 60.0)
        found: dict[str, Any] = self.api.get(path).json()
        return found

    def failed(self, execution: dict[str, Any], reason: str) -> str:
        self.assertEqual(("failed", reason), (execution["status"], execution["reason"]["code"]), execution)
        return str(execution["reason"]["message"])


class OneShotTest(ImageTest):
    def test_a_program_runs_once_for_each_execution(self) -> None:
        function = self.create(
            docker_engine.example_image(self.url, "total", docker_engine.base_image(self.url))
        )
        self.assertEqual((None, None), (function["entry"], function["runtime_id"]))
        self.assertRegex(function["code"]["digest"], "^sha256:[0-9a-f]{64}$")
        for text, total in (("1 2 3", "6"), (json.dumps({"__function_input": ["4", "5"]}), "9")):
            execution = self.execute(function, text)
            self.assertEqual(("success", None), (execution["status"], execution["reason"]), execution)
            self.assertEqual(["duration"], list(json.loads(execution["result"])))
            self.assertEqual(f"the total is {total}\n", self.log(execution))
        broken = self.execute(function, "one two")
        self.assertIn("exit code 1", self.failed(broken, "function_exited"))
        self.assertIn("could not convert", self.log(broken))
        self.assertEqual([], self.server.containers("j"))

    def test_an_image_is_called_by_its_alias(self) -> None:
        function = self.create(self.program("echo said"))
        answer = self.api.post("/v1/aliases", {"name": "said", "function_id": function["id"]})
        self.assertEqual(201, answer.status_code, answer.text)
        execution = self.api.post("/v1/executions", {"function_alias": "said"}).json()
        self.assertEqual(("success", "said"), (execution["status"], execution["function_alias"]), execution)
        self.assertEqual("said\n", self.log(execution))

    def test_an_asynchronous_run_is_settled(self) -> None:
        function = self.create(self.program("echo said; exit 0"))
        execution = self.settled(self.execute(function, sync=False))
        self.assertEqual("success", execution["status"], execution)
        self.assertEqual("said\n", self.log(execution))

    def test_limits_end_it_with_their_reason_and_nothing_is_left(self) -> None:
        hungry = self.program('python3 -c "x = bytearray(1 << 28)"')
        self.failed(self.execute(self.create(hungry, memory_size=str(64 << 20))), "memory_exceeded")
        slow = self.create(self.program("echo begun; exec sleep 60"), timeout="1")
        execution = self.execute(slow)
        self.failed(execution, "timeout")
        self.assertEqual({"duration": 1}, json.loads(execution["result"]))
        self.assertEqual("begun\n", self.log(execution))
        self.assertEqual([], self.server.containers("j"))

    def test_it_is_confined_as_workers_are(self) -> None:
        script = "id -u; ls /sys/class/net; touch /x 2>&1; cat /proc/self/status"
        said = self.log(self.execute(self.create(self.program(script))))
        self.assertEqual(["64010", "lo"], said.splitlines()[:2])
        self.assertIn("Read-only file system", said)
        self.assertRegex(said, r"CapEff:\s0000000000000000")
        self.assertRegex(said, r"NoNewPrivs:\s1")

    def test_the_functions_environment_is_the_programs(self) -> None:
        function = self.create(self.program('echo "it is $WHO"'), environment='{"WHO": "me"}')
        self.assertEqual("it is me\n", self.log(self.execute(function)))

    def test_what_it_has_no_use_for_is_refused(self) -> None:
        function = self.create(self.program("true"))
        path = f"/v1/functions/{function['id']}"
        answer = self.api.get(path, download="true")
        self.assertEqual((405, "not_downloadable"), (answer.status_code, answer.json()["code"]))
        answer = self.server.admin.post(f"{path}/scale_up", {"count": 1})
        self.assertEqual(400, answer.status_code, answer.text)
        self.assertIn("no workers", answer.json()["message"])
        answer = self.api.post(f"{path}/versions", {})
        self.assertEqual((403, "not_versionable"), (answer.status_code, answer.json()["code"]))
        answer = self.api.post("/v1/executions", {"function_id": function["id"], "function_version": 1})
        self.assertEqual(400, answer.status_code, answer.text)
        self.assertIn("have versions", answer.json()["message"])
        missing = {"code": {"source": "image", "image": "funcplat-test/no-such-image:1"}}
        answer = self.api.post("/v1/functions", missing)
        self.assertEqual((400, "image_unusable"), (answer.status_code, answer.json()["code"]), answer.text)

    def test_a_run_killed_behind_our_back_is_told(self) -> None:
        function = self.create(self.program("exec sleep 60"))
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            run = pool.submit(self.execute, function)
            (container,) = until(lambda: self.running(), "it runs")
            with docker_engine.client(self.url) as engine:
                engine.kill(container["Id"])
            self.assertIn("SIGKILL", self.failed(run.result(), "function_crashed"))
        self.assertEqual([], self.server.containers("j"))

    def test_a_run_that_is_cancelled_ends_at_once_and_keeps_its_log(self) -> None:
        function = self.create(self.program("echo begun; exec sleep 300"), timeout="300")
        execution = self.execute(function, sync=False)
        until(self.running, "it runs")
        began = time.monotonic()
        answer = self.api.post(f"/v1/executions/{execution['id']}/cancel", {})
        self.assertEqual(200, answer.status_code, answer.text)
        self.failed(self.settled(execution), "cancelled")
        self.assertLess(time.monotonic() - began, 20.0)
        self.assertEqual("begun\n", self.log(execution))
        self.assertEqual([], self.server.containers("j"))

    def running(self) -> list[dict[str, Any]]:
        return [each for each in self.server.containers("j") if each["State"] == "running"]

    def test_the_end_of_the_server_ends_runs(self) -> None:
        function = self.create(self.program("exec sleep 300"), timeout="300")
        execution = self.execute(function, sync=False)
        until(self.running, "it runs")
        began = time.monotonic()
        self.assertEqual(0, self.server.stop())
        self.assertLess(time.monotonic() - began, 60.0)
        self.assertEqual([], self.server.containers("j"))
        self.server.start()
        until(self.running, "it runs again")
        self.assertEqual("running", self.api.get(f"/v1/executions/{execution['id']}").json()["status"])

    def test_a_run_survives_nothing_but_is_done_again(self) -> None:
        function = self.create(self.program("exec sleep 3"))
        execution = self.execute(function, sync=False)
        until(self.running, "it runs")
        self.server.signal(signal.SIGKILL)
        self.server.wait()
        self.server.start()
        self.assertEqual("success", self.settled(execution)["status"])

    def test_a_moved_tag_changes_nothing_until_the_function_is_updated(self) -> None:
        first, second = self.program("echo first"), self.program("echo second")
        name = f"funcplat-test/moves:{uuid.uuid4().hex}"
        self.tag(first, name)
        function = self.create(name)
        self.tag(second, name)
        self.assertEqual("first\n", self.log(self.execute(function)))
        answer = self.api.put(f"/v1/functions/{function['id']}", data={"code": '{"source": "image"}'})
        self.assertEqual(200, answer.status_code, answer.text)
        self.assertNotEqual(function["code"]["digest"], answer.json()["code"]["digest"])
        self.assertEqual("second\n", self.log(self.execute(function)))

    def tag(self, image: str, name: str) -> None:
        repository, _, tag = name.rpartition(":")
        with docker_engine.client(self.url) as engine:
            engine.tag(image, repository, tag, force=True)
        self.addCleanup(docker_engine.remove_image, self.url, name)


class WorkerImageTest(ImageTest):
    def test_an_image_that_is_a_worker_is_kept_warm_scaled_and_detached(self) -> None:
        image = docker_engine.example_image(self.url, "greeter", self.image)
        self.addCleanup(docker_engine.remove_image, self.url, image)
        function = self.create(image)
        outputs = [self.output(self.execute(function, json.dumps({"name": "Ann"}))) for _ in range(3)]
        self.assertEqual([{"greeting": "Hello, Ann!", "calls": n} for n in (1, 2, 3)], outputs)
        self.assertEqual(1, len(self.server.containers()))

        path = f"/v1/functions/{function['id']}"
        self.assertEqual(202, self.server.admin.post(f"{path}/scale_up", {"count": 1}).status_code)
        until(lambda: len(self.workers(path, "ready")) == 2, "a second worker")
        self.assertEqual(202, self.server.admin.post(f"{path}/detach").status_code)
        until(lambda: self.server.containers() == [], "no worker")
        self.assertEqual(1, self.output(self.execute(function))["calls"])

    def workers(self, path: str, state: str) -> list[dict[str, Any]]:
        found = self.server.admin.get(f"{path}/workers").json()["workers"]
        return [each for each in found if each["state"] == state]

    def test_a_runtime_without_a_function_is_told_to_be_none(self) -> None:
        execution = self.execute(self.create(self.image))
        self.assertNotEqual("success", execution["status"], execution)
        self.assertIn("carries no function", execution["reason"]["message"])


class RegistryTest(ImageTest):
    """The registry wants a password, which both drivers read from one file."""

    def setUp(self) -> None:
        self.registry = self.useFixture(registries.BasicRegistry())
        directory = self.useFixture(registries.Directory()).path
        self.auth_file = directory / "auth.json"
        self.know(registries.PASSWORD)
        super().setUp()

    def know(self, password: str) -> None:
        entry = {"username": registries.USER, "password": password}
        self.auth_file.write_text(json.dumps({"auths": {self.registry.host: entry}}))

    def driver_options(self) -> dict[str, Any]:
        return {"auth_file": self.auth_file}

    def server_options(self) -> dict[str, dict[str, Any]]:
        return {
            "storage": {"enabled": "local, registry"},
            "storage_registry": {"auth_file": self.auth_file, "plain_http": self.registry.host},
        }

    def push(self, image: str, name: str) -> None:
        repository, _, tag = name.rpartition(":")
        credentials = {"username": registries.USER, "password": registries.PASSWORD}
        with docker_engine.client(self.url) as engine:
            engine.tag(image, repository, tag, force=True)
            said = list(engine.push(repository, tag, auth_config=credentials, stream=True, decode=True))
            self.assertEqual([], [each for each in said if "error" in each])
            engine.remove_image(name)

    def forgotten(self, *images: str) -> None:
        """Have the Engine forget images, so that it must pull them."""
        for image in images:
            docker_engine.remove_image(self.url, image)

    def test_an_image_of_a_registry_is_pinned_and_pulled_by_its_digest(self) -> None:
        first, second = self.program("echo first"), self.program("echo second")
        name = f"{self.registry.host}/team/moves:1"
        self.push(first, name)
        function = self.create(name)
        self.push(second, name)
        self.forgotten(first)
        self.assertEqual("first\n", self.log(self.execute(function)))
        answer = self.api.put(f"/v1/functions/{function['id']}", data={"code": json.dumps({"image": name})})
        self.assertEqual(200, answer.status_code, answer.text)
        self.assertEqual("second\n", self.log(self.execute(function)))

    def test_what_the_registry_does_not_give_is_told_at_once(self) -> None:
        missing = {"source": "image", "image": f"{self.registry.host}/team/nothing:1"}
        answer = self.api.post("/v1/functions", {"code": missing})
        self.assertEqual((400, "reference_missing"), (answer.status_code, answer.json()["code"]), answer.text)

        image = self.program("echo said")
        name = f"{self.registry.host}/team/lost:1"
        self.push(image, name)
        function = self.create(name)
        until(lambda: self.log(self.execute(function)) == "said\n", "it runs once")
        with self.unknown(), docker_engine.client(self.url) as engine:
            for each in engine.images():
                if any("team/lost" in digest for digest in each["RepoDigests"] or ()):
                    engine.remove_image(each["Id"], force=True)
            execution = self.execute(function)
        self.assertEqual(("error", "image_unknown"), (execution["status"], execution["reason"]["code"]))
        self.assertIn("registry does not give it", execution["reason"]["message"])

    @contextlib.contextmanager
    def unknown(self) -> Iterator[None]:
        """While the password is wrong."""
        self.know("wrong")
        try:
            yield
        finally:
            self.know(registries.PASSWORD)
