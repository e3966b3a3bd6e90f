"""What is asked of the Engine and read from its answers.  Pure: nothing here talks to it.

A container's *name* says what it is: ``funcplat-<installation>.w.<worker id>`` for a worker, ``.p.`` for
one of a pool, ``.j.`` for the run of an image function.  Names are unique in an Engine and changed
atomically; labels never change.  So labels hold what is fixed when a container is made, and the name what
becomes of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.docker import options, places

MIB = 1 << 20
OWNER = "funcplat.owner"
IMAGE = "funcplat.image"
SHAPE = "funcplat.shape"
PLACE = "funcplat.place"
UNTIL = "funcplat.until"
"""Of a run of an image function: when it is over for sure, in seconds since the epoch."""
CONTRACT = "funcplat.worker.contract"
"""Label of an image whose entry point is a worker as the worker protocol says."""
INIT = "funcplat.worker.init"
"""Label of an image whose worker needs an init before it, to bury what functions leave behind."""

SOCKET_DIR = "/run/funcplat"
CODE_DIR = "/code"
PUSHED_DIR = "/tmp/.funcplat/code"  # noqa: S108  private to the container
PORT = "9090/tcp"
CPU_PERIOD = 100_000  # microseconds
BLANK = {"memory": 128 * MIB, "cpu": 1000, "pids": 64}
"""Limits of a container that has no function yet, and keeps them for the milliseconds until it gets those of
its function: enough to start quickly."""
LEAST_SHARED = 64 * 1024
NO_HEALTHCHECK = {"Test": ["NONE"]}
"""An image's own would be run by the Engine for ever, outside of any execution."""
_WORKER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """What cannot be changed any more when a container exists; workers of one shape share a pool."""

    image: str  # as the runtime names it
    image_id: str
    disk: int  # bytes, /tmp and /dev/shm together
    network: str
    user: str
    by_socket: bool
    init: bool  # an init is the first process
    carries: bool  # the image carries the function; it is a user's, and nothing is mounted over its files

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(dataclasses.astuple(self)).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, slots=True)
class Names:
    """Names and labels of one installation's containers."""

    owner: str

    @property
    def short(self) -> str:
        return hashlib.sha256(self.owner.encode()).hexdigest()[:8]

    def worker(self, worker_id: str) -> str:
        """Raises DriverError for an id that cannot be part of a name."""
        if not _WORKER_ID.fullmatch(worker_id):
            raise errors.DriverError(f"a worker cannot be named {worker_id[:80]!r}")
        return f"funcplat-{self.short}.w.{worker_id}"

    def pooled(self) -> str:
        return f"funcplat-{self.short}.p.{uuid.uuid4().hex}"

    def job(self, worker_id: str) -> str:
        return self.worker(worker_id).replace(".w.", ".j.", 1)

    @property
    def network(self) -> str:
        return f"funcplat-{self.short}"

    def filter(self) -> dict[str, list[str]]:
        """What lists this installation's containers alone."""
        return {"label": [f"{OWNER}={self.owner}"]}

    def labels(self, **values: str) -> dict[str, str]:
        """All labels that are ever read, those without a value too: else an image's own would count.

        ``values``: image, shape, place, until.
        """
        named = {IMAGE: "image", SHAPE: "shape", PLACE: "place", UNTIL: "until"}
        return {OWNER: self.owner, **{label: values.get(name, "") for label, name in named.items()}}


@dataclasses.dataclass(frozen=True, slots=True)
class Container:
    """One container of a list."""

    id: str
    name: str
    state: str  # created, running, paused, exited, dead, removing
    status: str  # for people
    labels: Mapping[str, str]
    created: float  # seconds since the epoch
    port: int | None

    @property
    def kind(self) -> str:
        """w, p or j; empty for a name that is none of ours."""
        parts = self.name.split(".", 2)
        return parts[1] if len(parts) == 3 else ""

    @property
    def worker_id(self) -> str:
        return self.name.split(".", 2)[2]

    @property
    def runs(self) -> bool:
        return self.state in ("running", "paused")

    @classmethod
    def listed(cls, item: Mapping[str, Any]) -> Container:
        """From an item of ``GET /containers/json``."""
        ports = [each["PublicPort"] for each in item.get("Ports") or () if each.get("PublicPort")]
        return cls(
            id=item["Id"],
            name=(item.get("Names") or ["/"])[0].lstrip("/"),
            state=item["State"],
            status=item.get("Status", ""),
            labels=item.get("Labels") or {},
            created=float(item["Created"]),
            port=ports[0] if ports else None,
        )

    @classmethod
    def inspected(cls, item: Mapping[str, Any]) -> Container:
        """From the answer of ``GET /containers/{name}/json``; without its time."""
        published = (item["NetworkSettings"].get("Ports") or {}).get(PORT) or [{}]
        port = published[0].get("HostPort")
        return cls(
            id=item["Id"],
            name=item["Name"].lstrip("/"),
            state=item["State"]["Status"],
            status="",
            labels=item["Config"].get("Labels") or {},
            created=0.0,
            port=int(port) if port else None,
        )


def disk_of(spec: base.WorkerSpec) -> int:
    """Scratch space is memory of the function: at most half, or filling it would leave none to run in."""
    return min(spec.disk, spec.memory // 2)


def limits(cpu: int, memory: int, pids: int) -> dict[str, int]:
    """Limits as both the making and the update of a container take them."""
    return {
        "Memory": memory,
        "MemorySwap": memory,  # together with swap: none
        "CpuPeriod": CPU_PERIOD,
        "CpuQuota": cpu * CPU_PERIOD // 1000,
        "PidsLimit": pids,
    }


def confined(disk: int, network: str) -> dict[str, Any]:
    """The part of a container's host configuration that every container of ours has."""
    shared = max(LEAST_SHARED, disk // 4)
    scratch = max(LEAST_SHARED, disk - shared)
    inodes = max(1024, scratch // 4096)
    return {
        "NetworkMode": network,
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "IpcMode": "private",
        "ShmSize": shared,
        "Tmpfs": {"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={scratch},nr_inodes={inodes}"},  # noqa: S108
        "RestartPolicy": {"Name": "no"},
        "Ulimits": [
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "nofile", "Soft": 1024, "Hard": 1024},
        ],
    }


def worker(
    settings: options.Settings, shape: Shape, names: Names, place: places.Place | None
) -> dict[str, Any]:
    """The body of ``POST /containers/create`` for a worker without a function."""
    host = {
        **confined(shape.disk, shape.network),
        **limits(**BLANK),
        "Init": shape.init,
        # What a worker says is little; more would fill the Engine's disk.
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "256k", "max-file": "1"}},
    }
    if place is not None:
        listen = f"unix:{SOCKET_DIR}/{places.SOCKET}"
        host["Mounts"] = [{"Type": "bind", "Source": str(place.sockets), "Target": SOCKET_DIR}]
        if not shape.carries:
            code = {"Type": "bind", "Source": str(place.code), "Target": CODE_DIR, "ReadOnly": True}
            host["Mounts"].append(code)
    else:
        listen = f"tcp:0.0.0.0:{PORT.partition('/')[0]}"
        host["PortBindings"] = {PORT: [{"HostIp": settings.published_on(), "HostPort": ""}]}
    return {
        "Image": shape.image_id,
        "Cmd": ["--listen", listen, "--code-dir", PUSHED_DIR],
        "User": shape.user,
        "Labels": names.labels(
            image=shape.image, shape=shape.key, place=str(place.path) if place is not None else ""
        ),
        "Healthcheck": NO_HEALTHCHECK,
        "ExposedPorts": {} if place is not None else {PORT: {}},
        "HostConfig": host,
    }


def handle(settings: options.Settings, container: Container) -> base.Handle:
    """The handle of a worker's container."""
    path = container.labels.get(PLACE)
    place = places.Place.at(path) if path else None
    address = (
        base.Address(socket=str(place.socket))
        if place is not None
        else base.Address(host=settings.worker_host, port=container.port)
    )
    return base.Handle(
        container.worker_id,
        address,
        {"container": container.id, "place": path or None, "code": CODE_DIR if place is not None else None},
    )
