"""What the process driver enforces on this machine, told to people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from funcplat.drivers.base import Feature, Isolation
from funcplat.drivers.process import cgroups, sandbox

_ENFORCED, _PARTIAL, _NONE = Isolation.ENFORCED, Isolation.PARTIAL, Isolation.NONE

HELP = (
    "run the server as root; or allow user namespaces to it: sysctl user.max_user_namespaces, "
    "kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; in a container: "
    "seccomp=unconfined and CAP_SYS_ADMIN"
)


def describe(
    mode: sandbox.Mode,
    failures: Sequence[tuple[str, str]],
    groups: cgroups.Cgroups,
    host_network: bool,
) -> Iterator[Feature]:
    """One line for each aspect."""
    why = "; ".join(f"{name}: {reason}" for name, reason in failures) or "namespaces = false"
    yield _user(mode, why)
    yield from _namespaces(mode, why, host_network)
    yield Feature("seccomp", _ENFORCED, "a deny list of system calls, in every process that runs user code")
    yield _cpu(groups)
    yield _memory(groups)
    yield _processes(mode, groups)
    yield _disk(mode)


def _user(mode: sandbox.Mode, why: str) -> Feature:
    if mode is sandbox.Mode.RANGE:
        return Feature("user", _ENFORCED, "two user ids per worker in a user namespace, no capabilities")
    if mode.changes_user:
        return Feature(
            "user", _ENFORCED, f"two user ids per worker, no capabilities (no user namespace: {why})"
        )
    detail = "the user of the server, without capabilities"
    if mode is sandbox.Mode.SINGLE:
        return Feature(
            "user", _PARTIAL, f"{detail}, in a user namespace; as root, workers get ids of their own"
        )
    return Feature("user", _NONE, f"{detail} ({why}); {HELP}")


def _namespaces(mode: sandbox.Mode, why: str, host_network: bool) -> Iterator[Feature]:
    texts = {
        "mounts": "a root of its own: system and interpreter read-only, nothing of the platform",
        "pids": "a pid namespace that ends with the worker",
        "network": "a network namespace with a loopback of its own and nothing else",
    }
    for name, text in texts.items():
        if name == "network" and host_network:
            yield Feature(name, _NONE, "network = host: functions share the network of this machine")
        elif mode.namespaces:
            yield Feature(name, _ENFORCED, text)
        else:
            yield Feature(name, _NONE, f"no namespaces ({why}); {HELP}")


def _cpu(groups: cgroups.Cgroups) -> Feature:
    version = groups.controllers().get(cgroups.CPU)
    if version:
        return Feature("cpu", _ENFORCED, f"cgroup v{version} quota per 100 ms, what is left may be used next")
    return Feature("cpu", _NONE, f"no cpu cgroup: {groups.missing[cgroups.CPU]}")


def _memory(groups: cgroups.Cgroups) -> Feature:
    version = groups.controllers().get(cgroups.MEMORY)
    if version:
        return Feature("memory", _ENFORCED, f"cgroup v{version} for the whole worker, scratch space included")
    detail = "RLIMIT_DATA for each process by itself (of Node.js: V8's bound on its heap)"
    return Feature("memory", _PARTIAL, f"{detail}; no memory cgroup: {groups.missing[cgroups.MEMORY]}")


def _processes(mode: sandbox.Mode, groups: cgroups.Cgroups) -> Feature:
    version = groups.controllers().get(cgroups.PIDS)
    if version:
        return Feature("processes", _ENFORCED, f"cgroup v{version} for the whole worker")
    why = groups.missing[cgroups.PIDS]
    if mode.changes_user or mode is sandbox.Mode.SINGLE:
        scope = "user id" if mode.changes_user else "user namespace"
        return Feature(
            "processes", _PARTIAL, f"RLIMIT_NPROC in the worker's own {scope}; no pids cgroup: {why}"
        )
    return Feature(
        "processes", _PARTIAL, f"RLIMIT_NPROC, which counts the user's other processes, too; {why}"
    )


def _disk(mode: sandbox.Mode) -> Feature:
    if mode.namespaces:
        return Feature("disk", _ENFORCED, "a tmpfs of that size, at most half of the function's memory")
    return Feature("disk", _PARTIAL, "RLIMIT_FSIZE bounds each file by itself; no mount namespace")
