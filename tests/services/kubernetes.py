"""A Kubernetes cluster: the one that $KUBECONFIG names, or one that scripts bring up."""

from __future__ import annotations

import base64
import os
import pathlib
import ssl
import subprocess
from collections.abc import Mapping
from typing import Any

import httpx
import yaml

from tests import packages
from tests.services import base, processes, web

# set by tools/test: a directory with build.sh, up.sh STATE and down.sh STATE, which writes STATE/kubeconfig
SCRIPTS_VARIABLE = "FUNCPLAT_TEST_KUBE_SCRIPTS"
BUILD_DEADLINE = 2400.0


def _scripts() -> pathlib.Path | None:
    value = os.environ.get(SCRIPTS_VARIABLE)
    return pathlib.Path(value) if value else None


def _binaries() -> pathlib.Path:
    return pathlib.Path(os.environ.get("KUBE_BIN_DIR", "/usr/local/kube/bin"))


class Kubernetes(base.Service):
    """The cluster of $KUBECONFIG, used as it is and left alone; else one on our Docker Engine."""

    name = "kubernetes"
    title = "Kubernetes"
    one_a_machine = True

    @property
    def requires(self) -> tuple[str, ...]:
        return () if os.environ.get("KUBECONFIG") else ("dockerd",)

    def missing(self) -> str | None:
        if os.environ.get("KUBECONFIG"):
            return None
        scripts = _scripts()
        if scripts is None:
            return "there is no cluster; set KUBECONFIG to the configuration file of one"
        if os.geteuid() != 0:
            return "starting a cluster needs root; set KUBECONFIG to the configuration file of one"
        if not (_binaries() / "kubectl").exists():
            return f"it is not built; run {scripts}/build.sh as root"
        return None

    def install(self) -> None:
        scripts = _scripts()
        if os.environ.get("KUBECONFIG"):
            return
        if scripts is None:
            raise packages.InstallError("no cluster and no scripts that start one; set KUBECONFIG")
        done = subprocess.run(
            ["nice", "-n", "19", str(scripts / "build.sh")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_DEADLINE,
            check=False,
        )
        if done.returncode != 0:
            raise packages.InstallError(f"build.sh ended with {done.returncode}:\n{done.stdout[-4000:]}")

    def start(self, directory: pathlib.Path, running: Mapping[str, base.Settings]) -> base.Settings:
        given, scripts = os.environ.get("KUBECONFIG"), _scripts()
        if given:
            return {"kubeconfig": given}
        if scripts is None:
            raise processes.StartError(str(self.missing()))
        state = directory / "cluster"
        environment = {"KUBE_DOCKER_SOCK": running["dockerd"]["socket"]}
        (directory / "docker").write_text(running["dockerd"]["socket"])
        (directory / "scripts").write_text(str(scripts))
        processes.run(directory, "up", [scripts / "up.sh", state], env=environment, deadline=400.0)
        return {"kubeconfig": str(state / "kubeconfig")}

    def stop(self, directory: pathlib.Path) -> None:
        if (directory / "scripts").exists():
            down = f"{(directory / 'scripts').read_text()}/down.sh"
            environment = {"KUBE_DOCKER_SOCK": (directory / "docker").read_text()}
            processes.stop(directory, "up")
            processes.run(directory, "down", [down, directory / "cluster"], env=environment, deadline=120.0)
        super().stop(directory)


def client(settings: base.Settings) -> httpx.Client:
    """HTTP to the API server as the user of the kubeconfig's current context."""
    document = yaml.safe_load(pathlib.Path(settings["kubeconfig"]).read_text())
    context = _named(document["contexts"], document["current-context"])["context"]
    cluster = _named(document["clusters"], context["cluster"])["cluster"]
    user = _named(document["users"], context["user"])["user"]
    headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
    return httpx.Client(
        base_url=cluster["server"],
        verify=_tls(cluster, user, pathlib.Path(settings["kubeconfig"]).parent),
        headers=headers,
        timeout=web.TIMEOUT,
        trust_env=False,
    )


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _tls(cluster: dict[str, Any], user: dict[str, Any], directory: pathlib.Path) -> ssl.SSLContext:
    authority = cluster.get("certificate-authority-data")
    context = ssl.create_default_context(
        cadata=base64.b64decode(authority).decode() if authority else None,
        cafile=cluster.get("certificate-authority"),
    )
    if "client-certificate" in user:
        context.load_cert_chain(directory / user["client-certificate"], directory / user["client-key"])
    return context
