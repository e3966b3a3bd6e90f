"""What tests of the Docker driver share: the Engine, images made on this machine, what is left behind."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest
from collections.abc import Iterator
from typing import Any

import docker
import fixtures
from oslo_config import cfg

from funcplat.drivers.docker import building, driver, engine, options
from tests import docker_images, services
from tests.services import dockerd, processes, web

BASE = "funcplat-test/base:1"
PYTHON = "funcplat-test/python:1"


def url() -> str:
    """The URL of the tests' own Engine, which is started if need be."""
    return str(services.use("dockerd").settings["docker_host"])


@functools.cache  # an image is made once for the tests of a process, which share the Engine
def python_image(at: str) -> str:
    """A Python runtime in the Engine at a URL."""
    with client(at) as engine_:
        contents = hashlib.sha256(building.context("python").getvalue()).hexdigest()[:12]
        tag = f"{PYTHON.partition(':')[0]}:{contents}"
        if not engine_.images(name=tag):
            base_image(at)
            building.build(made_engine(at), "python", BASE, tag, lambda text: None)
    return tag


@functools.cache
def base_image(at: str) -> str:
    """An image with Python and busybox, and nothing of the platform."""
    with client(at) as engine_:
        if not engine_.images(name=BASE):
            name, _, tag = BASE.partition(":")
            engine_.import_image_from_file(str(docker_images.python_base()), repository=name, tag=tag)
    return BASE


@contextlib.contextmanager
def client(at: str) -> Iterator[docker.APIClient]:
    found = docker.APIClient(base_url=at, version="auto")
    try:
        yield found
    finally:
        found.close()


def made_engine(at: str) -> engine.Engine:
    return engine.Engine(options.settings(group(url=at)))


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
