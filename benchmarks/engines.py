"""A Docker Engine for the run: the one that is at hand, or one that is started for it; and an image in it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import time
from collections.abc import Iterator

import docker

from benchmarks import peers
from tests import docker_images
from tests.services import dockerd, processes

DEFAULT = "unix:///var/run/docker.sock"
BASE, IMAGE = "funcplat-bench/base:1", "funcplat-bench/python:1"
BARE = ["--listen", "unix:/tmp/socket", "--code-dir", "/tmp/code"]


class Missing(Exception):
    """There is no Engine; the message says why."""


class Engine:
    """An Engine that has the runtime's image, which is built on the interpreter of this run."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = docker.APIClient(base_url=url, version="auto")

    @property
    def version(self) -> str:
        return str(self._client.version()["Version"])

    def make_image(self, directory: pathlib.Path) -> None:
        """Build the image with the platform's own command."""
        name, _, tag = BASE.partition(":")
        self._client.import_image_from_file(str(docker_images.python_base()), repository=name, tag=tag)
        config = directory / "build.conf"
        config.write_text(f"[orchestrator_docker]\nurl = {self.url}\n")
        words = ["runtime", "build", "python", "--base", BASE, "--tag", IMAGE, "--config-file", str(config)]
        subprocess.run([peers.BENCH / "funcplat", *words], check=True, capture_output=True)

    def bare_start(self) -> float:
        """Seconds that making and starting a container of the image takes without any platform."""
        started = time.perf_counter()
        made = self._client.create_container(
            IMAGE, BARE, host_config=self._client.create_host_config(network_mode="none", read_only=False)
        )
        self._client.start(made)
        elapsed = time.perf_counter() - started
        self._client.remove_container(made, force=True)
        return elapsed

    def remove_workers(self, owner: str) -> None:
        """Remove what outlives a server: its workers."""
        found = self._client.containers(all=True, filters={"label": f"funcplat.owner={owner}"})
        for each in found:
            self._client.remove_container(each["Id"], force=True, v=True)

    def close(self) -> None:
        for image in (IMAGE, BASE):
            with contextlib.suppress(docker.errors.ImageNotFound):
                self._client.remove_image(image, force=True)
        self._client.close()


@contextlib.contextmanager
def at_hand(directory: pathlib.Path) -> Iterator[Engine]:
    """The Engine of DOCKER_HOST or of this machine, else one of this run's own.  Raises Missing."""
    url = os.environ.get("DOCKER_HOST") or DEFAULT
    with contextlib.ExitStack() as stack:
        if not _answers(url):
            url = stack.enter_context(_own(directory / "engine"))
        with contextlib.closing(Engine(url)) as engine:
            engine.make_image(directory)
            yield engine


def _answers(url: str) -> bool:
    try:
        with contextlib.closing(docker.APIClient(base_url=url, version="auto")) as client:
            return bool(client.ping())
    except docker.errors.DockerException:
        return False


@contextlib.contextmanager
def _own(directory: pathlib.Path) -> Iterator[str]:
    service = dockerd.Dockerd()
    if reason := service.missing():
        raise Missing(
            f"no Docker Engine answers at DOCKER_HOST or {DEFAULT}, and none can be started: {reason}"
        )
    directory.mkdir()
    try:
        yield str(service.start(directory, {})["docker_host"])
    except processes.StartError as error:
        raise Missing(f"a Docker Engine cannot be started: {error}") from error
    finally:
        service.stop(directory)
