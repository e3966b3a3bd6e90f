"""The bridge of workers that share nothing with the platform and are reached by a published port."""

from __future__ import annotations

import threading
from typing import Any

from funcplat.drivers.docker import containers, deadlines, engine


class Networks:
    """The networks of one installation: one, but for accidents.  Thread-safe."""

    def __init__(self, docker: engine.Engine, names: containers.Names) -> None:
        self._docker = docker
        self._names = names
        self._lock = threading.Lock()

    def use(self, deadline: deadlines.Deadline) -> str:
        """The id of this installation's bridge, which is made where there is none.

        An Engine lets several networks have one name, so that of several processes each may make one: then
        all use the oldest.
        """
        with self._lock:
            found = self._all(deadline)
            if not found:
                self._make(deadline)
                found = self._all(deadline)
        return str(min(found, key=lambda each: (each["Created"], each["Id"]))["Id"])

    def remove(self, deadline: deadlines.Deadline) -> None:
        """Remove those that no worker uses."""
        for network in self._all(deadline):
            try:
                self._docker.call("DELETE", f"/networks/{network['Id']}", deadline)
            except engine.Refused as error:
                if error.status not in (403, 404, 409):
                    raise

    def _all(self, deadline: deadlines.Deadline) -> list[Any]:
        query = {"filters": self._names.filter()}
        found: list[Any] = self._docker.call("GET", "/networks", deadline, query)
        return found

    def _make(self, deadline: deadlines.Deadline) -> None:
        """A bridge whose containers nothing answers from outside, but through their published ports."""
        body = {
            "Name": self._names.network,
            "Driver": "bridge",
            "Labels": self._names.labels(),
            "Options": {
                "com.docker.network.bridge.enable_ip_masquerade": "false",
                "com.docker.network.bridge.enable_icc": "false",
            },
        }
        self._docker.call("POST", "/networks/create", deadline, body=body)
