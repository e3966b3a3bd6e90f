"""A Docker Engine of our own, beside whatever else runs on this machine."""

from __future__ import annotations

import ipaddress
import os
import pathlib
import subprocess
import uuid
from collections.abc import Mapping

from tests.services import base, processes, web

# out of what the neighbours use: Docker's own choices, and the pods and Services of the test cluster
SUBNETS = ipaddress.ip_network("10.213.0.0/16")


class Dockerd(base.Service):
    """dockerd with its own socket, data, containerd and bridge; images come from tests alone.

    It writes no firewall rules: containers and this machine reach each other, and nothing else.
    """

    name = "dockerd"
    title = "the Docker Engine"
    packages = ("docker.io", "iptables", "iproute2", "busybox-static", "openssl")

    def missing(self) -> str | None:
        if os.geteuid() != 0:
            return "dockerd needs root; run as root, or with: sudo tools/test"
        return self.lacking("dockerd", "containerd", "ip", "busybox")

    def start(self, directory: pathlib.Path, running: Mapping[str, base.Settings]) -> base.Settings:
        socket, bridge = directory / "docker.sock", f"fp-{uuid.uuid4().hex[:8]}"
        (directory / "bridge").write_text(bridge)
        _make_bridge(bridge)
        argv = [base.program("dockerd"), f"--host=unix://{socket}", f"--pidfile={directory}/docker.pid"]
        argv += [f"--data-root={directory}/root", f"--exec-root={directory}/exec", f"--bridge={bridge}"]
        argv += ["--iptables=false", "--ip6tables=false", "--ip-masq=false", "--shutdown-timeout=5"]
        argv += [f"--containerd-namespace={bridge}", f"--containerd-plugins-namespace={bridge}-plugins"]
        # no configuration of the machine's own engine
        configuration = directory / "daemon.json"
        configuration.write_text("{}")
        process = processes.spawn(directory, "dockerd", [*argv, f"--config-file={configuration}"])
        processes.wait_ready(
            directory, "dockerd", process, lambda: web.serves("http://docker/_ping", socket), deadline=90.0
        )
        return {"socket": str(socket), "docker_host": f"unix://{socket}"}

    def stop(self, directory: pathlib.Path) -> None:
        bridge = directory / "bridge"
        processes.stop_all(directory)
        if bridge.exists():
            _remove_link(bridge.read_text())
        super().stop(directory)


def _ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([base.program("ip"), *arguments], capture_output=True, text=True, check=False)


def _make_bridge(name: str) -> None:
    """A bridge with the first address of a /24 that no route of this machine has."""
    routes = _ip("-4", "route", "show", "table", "all").stdout
    for subnet in SUBNETS.subnets(new_prefix=24):
        prefix = str(subnet.network_address).rpartition(".")[0]
        if f"{prefix}." in routes:
            continue
        for step in (
            ("link", "add", name, "type", "bridge"),
            ("address", "add", f"{prefix}.1/24", "dev", name),
            ("link", "set", name, "up"),
        ):
            done = _ip(*step)
            if done.returncode != 0:
                raise processes.StartError(f"ip {' '.join(step)}: {done.stderr.strip()}")
        return
    raise processes.StartError(f"every /24 of {SUBNETS} is in use")


def _remove_link(name: str) -> None:
    if (pathlib.Path("/sys/class/net") / name).exists():
        done = _ip("link", "delete", name)
        if done.returncode != 0:
            raise processes.StartError(f"ip link delete {name}: {done.stderr.strip()}")
