"""What tests of the Docker driver share: the Engine, images made on this machine, what is left behind."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile
import tempfile
import unittest
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import docker
import fixtures
from oslo_config import cfg

from funcplat.drivers.docker import building, driver, engine, images, options, pulls
from tests import docker_images, environments, services
from tests.integration import nodejs_harness
from tests.services import dockerd, processes, web

BASE = "funcplat-test/base:1"
NODE_BASE = "funcplat-test/node:1"
PYTHON = "funcplat-test/python:1"


def url() -> str:
    """The URL of the tests' own Engine, which is started if need be."""
    return str(services.use("dockerd").settings["docker_host"])


def python_image(at: str) -> str:
    """A Python runtime in the Engine at a URL."""
    return _runtime_image(at, "python")


def node_image(at: str) -> str:
    """A Node.js runtime; skips where there is no Node.js."""
    return _runtime_image(at, "nodejs")


@functools.cache  # an image is made once for the tests of a process, which share the Engine
def _runtime_image(at: str, language: str) -> str:
    with client(at) as engine_:
        contents = hashlib.sha256(building.context(language).getvalue()).hexdigest()[:12]
        tag = f"funcplat-test/{language}:{contents}"
        if not engine_.images(name=tag):
            build(at, language, base_of(at, language), tag)
    return tag


def base_of(at: str, language: str) -> str:
    """An image that a runtime of a language can be built on."""
    return base_image(at) if language == "python" else node_base_image(at)


def build(at: str, language: str, base: str, tag: str, cached: bool = True) -> str:
    """Build a runtime's image in the Engine at a URL; its id."""
    settings = options.settings(group(url=at))
    made = engine.Engine(settings)
    having = images.Images(made, pulls.Pulls(made, settings))
    with contextlib.closing(made):
        return building.build(made, having, language, base, tag, lambda text: None, cached)


@functools.cache
def base_image(at: str) -> str:
    """An image with Python and busybox, and nothing of the platform."""
    return _imported(at, BASE, docker_images.python_base())


@functools.cache
def node_base_image(at: str) -> str:
    """An image with Node.js and busybox."""
    node = nodejs_harness.node()
    if node is None:
        raise unittest.SkipTest("node is not installed; Debian has it in nodejs")
    return _imported(at, NODE_BASE, docker_images.node_base(node))


def _imported(at: str, image: str, archive: pathlib.Path) -> str:
    with client(at) as engine_:
        if not engine_.images(name=image):
            name, _, tag = image.partition(":")
            engine_.import_image_from_file(str(archive), repository=name, tag=tag)
    return image


def user_image(at: str, tag: str, files: Mapping[str, str], base: str) -> str:
    """The id of an image that a user builds of a Dockerfile and other files, which all may read."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    context.seek(0)
    with client(at) as engine_:
        arguments = {"fileobj": context, "custom_context": True, "rm": True, "forcerm": True, "decode": True}
        # The Engine's look into its cache fails when another test removes an image under its eyes.
        arguments["nocache"] = True
        said = list(engine_.build(**arguments, tag=tag, buildargs={"BASE": base}, network_mode="none"))
        errors = [each["error"] for each in said if "error" in each]
        assert not errors, errors
        return str(engine_.inspect_image(tag)["Id"])


def example_image(at: str, name: str, base: str) -> str:
    """The name of an image of ``examples/images``, built on a base."""
    directory = environments.ROOT / "examples" / "images" / name
    tag = f"funcplat-test/{name}:{uuid.uuid4().hex}"
    user_image(at, tag, {path.name: path.read_text() for path in directory.iterdir()}, base)
    return tag


def remove_image(at: str, name: str) -> None:
    """Remove an image's name, and the image where it has no other.  Unknown: returns."""
    with client(at) as engine_, contextlib.suppress(docker.errors.ImageNotFound):
        engine_.remove_image(name, force=True)


@contextlib.contextmanager
def client(at: str) -> Iterator[docker.APIClient]:
    found = docker.APIClient(base_url=at, version="auto")
    try:
        yield found
    finally:
        found.close()


def group(**values: Any) -> cfg.ConfigOpts.GroupAttr:
    """The driver's options with these values."""
    conf = cfg.ConfigOpts()
    conf([], project="funcplat", default_config_files=[], default_config_dirs=[])
    conf.register_opts(list(driver.DockerDriver.opts), group="orchestrator_docker")
    for name, value in values.items():
        conf.set_override(name, value, group="orchestrator_docker")
    return conf.orchestrator_docker


def census(at: str, owner: str | None = None) -> list[str]:
    """Containers and networks of the platform, or of one installation, and volumes of anybody."""
    label = "funcplat.owner" if owner is None else f"funcplat.owner={owner}"
    with client(at) as engine_:
        containers = engine_.containers(all=True, filters={"label": label})
        networks = engine_.networks(filters={"label": label})
        volumes = engine_.volumes()["Volumes"] or []
    return [
        *(
            f"container {each['Names'][0] if each['Names'] else each['Id']} {each['State']}"
            for each in containers
        ),
        *(f"network {each['Name']}" for each in networks),
        *(f"volume {each['Name']}" for each in volumes),
    ]


SERVER_FILES = {"cacert": "ca.pem", "cert": "server.pem", "key": "server.key"}
CLIENT_FILES = {"ca": "ca.pem", "cert": "client.pem", "key": "client.key"}


def make_certificates(directory: pathlib.Path) -> None:
    """An authority, and a server and a client of it, for 127.0.0.1."""
    if shutil.which("openssl") is None:
        raise unittest.SkipTest("openssl is not installed; apt-get install openssl")
    _openssl(directory, "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 2")
    (directory / "extensions").write_text(
        "subjectAltName = IP:127.0.0.1\nextendedKeyUsage = serverAuth, clientAuth\n"
    )
    for name in ("server", "client"):
        request = f"-keyout {name}.key -out {name}.csr -subj /CN={name}"
        _openssl(directory, f"req -newkey rsa:2048 -nodes {request}")
        signing = f"-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out {name}.pem"
        _openssl(directory, f"x509 -req -in {name}.csr {signing}")


def _openssl(directory: pathlib.Path, arguments: str) -> None:
    command = ["openssl", *arguments.split()]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)


class OwnEngine(fixtures.Fixture):
    """An Engine for one test, which may restart it: ``url``."""

    def _setUp(self) -> None:
        self._directory = pathlib.Path(tempfile.mkdtemp(prefix="fpd-", dir="/tmp"))
        self._service = dockerd.Dockerd()
        self.addCleanup(self._service.stop, self._directory)
        if reason := self._service.missing():
            raise unittest.SkipTest(reason)
        self.url = str(self._service.start(self._directory, {})["docker_host"])

    def stop(self, number: signal.Signals) -> list[str]:
        """End it by a signal; the command that starts it again."""
        record = json.loads((self._directory / "pids" / "dockerd.json").read_text())
        command = pathlib.Path(f"/proc/{record['pid']}/cmdline").read_bytes().split(b"\0")[:-1]
        handle = os.pidfd_open(record["pid"])
        try:
            signal.pidfd_send_signal(handle, number)
            assert processes.ended(handle, 60.0), "dockerd does not end"
        finally:
            os.close(handle)
        return [argument.decode() for argument in command]

    def start(self, command: list[str]) -> None:
        for name in ("docker.pid", "exec/containerd/containerd.pid"):  # which a killed one leaves
            (self._directory / name).unlink(missing_ok=True)
        process = processes.spawn(self._directory, "dockerd", command)
        socket = self._directory / "docker.sock"
        ready = functools.partial(web.serves, "http://docker/_ping", socket)
        processes.wait_ready(self._directory, "dockerd", process, ready)
