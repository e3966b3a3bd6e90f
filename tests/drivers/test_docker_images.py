"""Images of the Docker driver: those of runtimes as they are built, and those that users make."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from typing import Any

import testtools

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.docker import containers, driver
from funcplat.testing import orchestrator_case, workerclient
from tests import docker_engine

MIB = 1 << 20
PROBE = """
import os, sys
def main(name=None):
    open("/tmp/x", "w").close()
    try:
        open("/code/planted.py", "w").close()
        planted = True
    except OSError:
        planted = False
    lines = open("/proc/self/status").read().splitlines()
    status = dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)
    return {
        "uid": os.getuid(), "capabilities": status["CapEff"], "filter": status["Seccomp"],
        "privileges": status["NoNewPrivs"], "network": os.listdir("/sys/class/net"), "planted": planted,
    }
"""
NODE_MODULE = "let calls = 0; exports.greet = (context, input) => `${++calls} for ${input.name}`;"


class BuildTest(testtools.TestCase):
    """``funcplat runtime build``, by its parts."""

    def setUp(self) -> None:
        super().setUp()
        self.url = docker_engine.url()

    def built(self, language: str) -> Mapping[str, Any]:
        """An image that is built anew, whatever the Engine remembers."""
        tag = f"funcplat-test/{language}:{uuid.uuid4().hex}"
        self.addCleanup(docker_engine.remove_image, self.url, tag)
        docker_engine.build(self.url, language, docker_engine.base_of(self.url, language), tag, cached=False)
        with docker_engine.client(self.url) as engine:
            found: Mapping[str, Any] = engine.inspect_image(tag)
        return found

    def test_who_builds_again_gets_the_same_layers(self) -> None:
        for language in ("python", "nodejs"):
            first, second = self.built(language), self.built(language)
            self.assertEqual(first["RootFS"], second["RootFS"], language)

    def test_little_is_added_to_the_base(self) -> None:
        for language, most in (("python", 30 * MIB), ("nodejs", MIB)):
            name = docker_engine.base_of(self.url, language)
            with docker_engine.client(self.url) as engine:
                base_size = engine.inspect_image(name)["Size"]
            self.assertLess(self.built(language)["Size"] - base_size, most, language)

    def test_what_is_configured_is_what_a_worker_needs(self) -> None:
        labels = {"python": {containers.CONTRACT: "1"}}
        labels["nodejs"] = labels["python"] | {containers.INIT: "1"}
        for language, expected in labels.items():
            configuration = self.built(language)["Config"]
            self.assertEqual(("64010:64010", "SIGKILL"), (configuration["User"], configuration["StopSignal"]))
            self.assertEqual(expected, configuration["Labels"])
            self.assertFalse(configuration.get("Volumes"))

    def test_a_base_that_cannot_be_had_is_told(self) -> None:
        absent, tag = "127.0.0.1:1/no/such:1", "funcplat-test/never:1"
        error = self.assertRaises(
            errors.DriverUnavailable, docker_engine.build, self.url, "python", absent, tag
        )
        self.assertIn(absent, error.message)


class UserImageTest(orchestrator_case.OrchestratorCase, testtools.TestCase):
    """Images that are the code of functions."""

    driver_class = driver.DockerDriver
    own: dict[str, Any] = {}  # noqa: RUF012

    def setUp(self) -> None:
        self.url = docker_engine.url()
        self.image = docker_engine.python_image(self.url)
        self.options = {"url": self.url, "pool_size": 1, **self.own}
        self.owners: set[str] = set()
        super().setUp()

    def make_driver(self, context: base.Context) -> base.OrchestratorDriver:
        self.owners.add(context.owner)
        return super().make_driver(context)

    def census(self) -> Collection[str]:
        found = [each for owner in self.owners for each in docker_engine.census(self.url, owner)]
        return found + [str(path) for path in self.directory.glob("*/docker/*/*")]

    def build(self, base_name: str | None = None, **files: str) -> str:
        """The name of a new image; ``Dockerfile`` without its FROM, other names with ``__`` for a dot."""
        tag = f"funcplat-test/user:{uuid.uuid4().hex}"
        given = {name.replace("__", "."): text for name, text in files.items()}
        given["Dockerfile"] = f"ARG BASE\nFROM $BASE\n{given['Dockerfile']}"
        docker_engine.user_image(self.url, tag, given, base_name or self.image)
        self.addCleanup(docker_engine.remove_image, self.url, tag)
        return tag

    def example(self, name: str, base_name: str) -> str:
        tag = docker_engine.example_image(self.url, name, base_name)
        self.addCleanup(docker_engine.remove_image, self.url, tag)
        return tag

    def carried(self, image: str) -> base.Handle:
        """A worker of a user's image, as core starts it."""
        info = self.driver.inspect_image(image, self.patience)
        self.assertEqual(base.ImageKind.WORKER, info.kind)
        return self.start(image=info.pin, code_path=None, carries_function=True)

    def connect(self, handle: base.Handle) -> workerclient.WorkerClient:
        client = workerclient.WorkerClient(handle.address, self.patience)
        self.addCleanup(client.close)
        return client

    # -- what an image is -----------------------------------------------------------------------------

    def test_an_image_is_a_worker_by_its_label_and_else_runs_once(self) -> None:
        for image, kind in (
            (self.example("greeter", self.image), base.ImageKind.WORKER),
            (self.example("total", docker_engine.base_image(self.url)), base.ImageKind.ONE_SHOT),
        ):
            self.assertEqual(kind, self.driver.inspect_image(image, self.patience).kind)

    def test_the_pin_of_an_image_that_no_registry_has_is_its_id(self) -> None:
        image = self.example("greeter", self.image)
        with docker_engine.client(self.url) as engine:
            expected = engine.inspect_image(image)["Id"]
        info = self.driver.inspect_image(image, self.patience)
        self.assertEqual(expected, info.pin)
        self.assertEqual(info, self.driver.inspect_image(info.pin, self.patience))

    def test_an_id_that_the_engine_does_not_have_is_asked_of_no_registry(self) -> None:
        gone = f"sha256:{'5' * 64}"
        error = self.assertRaises(errors.ImageMissing, self.driver.inspect_image, gone, self.patience)
        self.assertIn("no registry is known to have it", error.message)

    def test_a_worker_that_is_not_to_be_run_is_refused_with_the_reason(self) -> None:
        for lines, word in (
            (f"LABEL {containers.CONTRACT}=2\n", "speaks 1"),
            ("VOLUME /data\n", "Build it without VOLUME"),
        ):
            image = self.build(Dockerfile=lines)
            error = self.assertRaises(errors.ImageUnknown, self.driver.inspect_image, image, self.patience)
            self.assertIn(word, error.message)

    # -- workers that carry their function ------------------------------------------------------------

    def test_a_function_of_an_image_is_kept_warm(self) -> None:
        client = self.connect(self.carried(self.example("greeter", self.image)))
        self.assertEqual(200, client.load(entry=None).status)
        outputs = [client.invoke({"name": "Ann"}).output for _ in range(3)]
        self.assertEqual([{"greeting": "Hello, Ann!", "calls": count} for count in (1, 2, 3)], outputs)
        self.assertIn(b"greeting Ann", client.invoke({"name": "Ann"}).log)

    def test_a_function_of_an_image_in_javascript(self) -> None:
        dockerfile = "COPY index.js /code/\nENV FUNCPLAT_ENTRY=index.greet\n"
        base_name = docker_engine.node_image(self.url)
        image = self.build(base_name, Dockerfile=dockerfile, index__js=NODE_MODULE)
        client = self.connect(self.carried(image))
        self.assertEqual(200, client.load(entry=None).status)
        self.assertEqual(
            ["1 for Ann", "2 for Bo"], [client.invoke({"name": n}).output for n in ("Ann", "Bo")]
        )

    def test_a_worker_that_carries_no_function_says_so(self) -> None:
        for image in (self.image, docker_engine.node_image(self.url)):
            client = self.connect(self.carried(image))
            answer = client.load(entry=None)
            self.assertEqual(400, answer.status)
            self.assertIn("carries no function", answer.json()["message"])

    def test_a_users_worker_is_as_confined_as_any_other(self) -> None:
        dockerfile = (
            "USER 0\nCOPY main.py /code/\nENV FUNCPLAT_ENTRY=main.main\nHEALTHCHECK --interval=1s CMD true\n"
        )
        handle = self.carried(self.build(Dockerfile=dockerfile, main__py=PROBE))
        client = self.connect(handle)
        client.load(entry=None)
        self.assertEqual(
            {
                "uid": 64010,
                "capabilities": "0" * 16,
                "filter": "2",
                "privileges": "1",
                "network": ["lo"] if self.can(base.Capability.CODE_PATH) else ["eth0", "lo"],
                "planted": False,
            },
            self._sorted(client.invoke({}).output),
        )
        with docker_engine.client(self.url) as engine:
            state = engine.inspect_container(handle.data["container"])["State"]
        self.assertNotIn("Health", state)

    def _sorted(self, output: Any) -> Any:
        return output | {"network": sorted(output["network"])}

    def test_no_pool_is_kept_of_an_image_that_carries_its_function(self) -> None:
        self.carried(self.example("greeter", self.image))
        self.driver.close()  # returns when nothing is being made
        with docker_engine.client(self.url) as engine:
            found = engine.containers(all=True, filters={"label": f"{containers.OWNER}={self.owner}"})
        self.assertEqual([True], [".w." in each["Names"][0] for each in found])

    # -- images that run once -------------------------------------------------------------------------

    def test_a_program_gets_arguments_and_environment(self) -> None:
        image = self.example("total", docker_engine.base_image(self.url))
        pin = self.driver.inspect_image(image, self.patience).pin
        run = self.driver.run_image(self.spec(image=pin), ["1", "2.5"], 10.0, self.patience)
        self.assertEqual((0, b"the total is 3.5\n"), (run.exit_code, run.log))
        run = self.driver.run_image(self.spec(image=pin), ["a"], 10.0, self.patience)
        self.assertEqual((1, b"total: could not convert string to float: 'a'\n"), (run.exit_code, run.log))
        spec = self.spec(image=docker_engine.BASE, environment={"GREETING": "hello = you"})
        run = self.driver.run_image(spec, ["sh", "-c", "echo $GREETING"], 10.0, self.patience)
        self.assertEqual(b"hello = you\n", run.log)

    # -- labels of images -----------------------------------------------------------------------------

    def test_an_image_cannot_pass_its_labels_off_as_the_platforms(self) -> None:
        kept = self.directory / "kept"
        (kept / "s").mkdir(parents=True)
        names = (containers.PLACE, containers.SHAPE, containers.IMAGE, containers.UNTIL, containers.OWNER)
        values = (str(kept), "x", self.image, "1", str(uuid.uuid4()))
        lines = [f"LABEL {name}={value}" for name, value in zip(names, values, strict=True)]
        dockerfile = "\n".join([*lines, "COPY main.py /code/", "ENV FUNCPLAT_ENTRY=main.main", ""])
        handle = self.carried(self.build(Dockerfile=dockerfile, main__py=PROBE))
        self.assertEqual({handle.worker_id}, set(self.listed()))
        self.driver.stop_worker(handle, 0.0, self.patience)
        program = self.build(docker_engine.base_image(self.url), Dockerfile="\n".join([*lines, ""]))
        self.driver.run_image(self.spec(image=program), ["true"], 10.0, self.patience)
        self.assertTrue((kept / "s").is_dir())


class UserImageByTcpTest(UserImageTest):
    own = {"transport": "tcp", "worker_host": "127.0.0.1"}  # noqa: RUF012
