"""What the Docker Engine enforces, and whether that is enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from funcplat import errors
from funcplat.drivers.base import Feature, Isolation
from funcplat.drivers.docker import options

NEEDED = ("cpu", "memory", "processes", "seccomp")
"""What may be missing on an Engine, and may not where isolation is required."""
_HELP = "this kernel, or the Engine's configuration, lacks it: docker info warns of it"


def describe(info: Mapping[str, Any], settings: options.Settings) -> Iterator[Feature]:
    """What holds for every worker, from the answer of ``GET /info``."""
    groups = f"control group, version {info.get('CgroupVersion', '1')}"
    security = {entry.partition(",")[0]: entry for entry in info.get("SecurityOptions") or ()}
    enforced = Isolation.ENFORCED
    yield Feature("user", enforced, _user(security, settings))
    yield Feature("mounts", enforced, "a file system of its own, read-only but for scratch space")
    yield Feature(
        "pids", enforced, "a pid namespace, whose first process, the worker or an init, nobody in it can kill"
    )
    yield _network(settings)
    yield _seccomp(security)
    yield _if(info.get("CpuCfsQuota"), "cpu", f"{groups}: quota for each 100 ms, for the whole worker")
    memory = f"{groups}, for the whole worker, scratch space included"
    if not info.get("SwapLimit"):
        memory += "; swap is not counted by this kernel: switch it off"
    yield _if(info.get("MemoryLimit"), "memory", memory)
    yield _if(info.get("PidsLimit"), "processes", f"{groups}, for the whole worker")
    yield Feature(
        "disk", enforced, "tmpfs of that size, at most half of the memory; nothing else is writable"
    )


def check(info: Mapping[str, Any], settings: options.Settings, required: bool) -> None:
    """Raise DriverError where the Engine cannot run workers, or isolates them less than ``required``."""
    if info.get("OSType", "linux") != "linux":
        raise errors.DriverError(
            f"the Docker Engine at {settings.url} runs {info['OSType']} containers, not Linux"
        )
    weak = [
        each
        for each in describe(info, settings)
        if each.name in NEEDED and each.isolation is not Isolation.ENFORCED
    ]
    if required and weak:
        what = "; ".join(f"{each.name}: {each.detail}" for each in weak)
        raise errors.DriverError(
            f"isolation is required, but the Docker Engine at {settings.url} does not enforce {what}. Mend "
            "that, or allow less with [orchestrator_docker] isolation = preferred."
        )


def _user(security: Mapping[str, str], settings: options.Settings) -> str:
    detail = f"{settings.user}, without capabilities, and no program gives it any (no-new-privileges)"
    if "name=userns" in security or "name=rootless" in security:
        detail += ", in a user namespace"
    return detail


def _network(settings: options.Settings) -> Feature:
    named = ", ".join(f"{pattern} in {network}" for pattern, network in settings.networks)
    if not settings.by_socket:
        detail = "a bridge without a way out; what listens on the Engine's machine can be reached"
        return Feature(
            "network", Isolation.PARTIAL, detail + (f"; by configuration {named}" if named else "")
        )
    if named:
        detail = f"by configuration {named}; others have a network namespace with a loopback alone"
        return Feature("network", Isolation.PARTIAL, detail)
    return Feature("network", Isolation.ENFORCED, "a network namespace with a loopback and nothing else")


def _seccomp(security: Mapping[str, str]) -> Feature:
    entry = security.get("name=seccomp")
    if entry is None:
        return Feature("seccomp", Isolation.NONE, _HELP)
    profile = entry.partition("profile=")[2] or "default"
    if profile == "unconfined":
        return Feature(
            "seccomp", Isolation.NONE, "the Engine runs containers unconfined, by its configuration"
        )
    return Feature("seccomp", Isolation.ENFORCED, f"the Engine's profile: {profile}")


def _if(there: object, name: str, detail: str) -> Feature:
    return Feature(name, Isolation.ENFORCED, detail) if there else Feature(name, Isolation.NONE, _HELP)
