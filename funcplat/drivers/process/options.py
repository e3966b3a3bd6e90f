"""The options of the process driver, group ``[orchestrator_process]``."""

from __future__ import annotations

import fnmatch
import pathlib
from collections.abc import Sequence

from oslo_config import cfg

from funcplat import errors
from funcplat.drivers.process import interpreters

OPTS: Sequence[cfg.Opt] = (
    cfg.ListOpt(
        "images",
        default=[f"*python*={interpreters.OWN}", "*node*=node"],
        help="Which interpreter runs a runtime, by the runtime's image name: pattern=interpreter, the first "
        "match counts. Patterns are those of shells (``*``, ``?``, ``[]``); an interpreter is a path, a name "
        f"that is looked up in PATH, or '{interpreters.OWN}' for the Python that runs the platform. It is "
        "asked what it is: Python 3.11 or later, or Node.js 18 or later. A runtime whose image matches none, "
        "or whose interpreter is missing, gets the status error. Example: "
        "``*python3.13*=/usr/bin/python3.13, *python*=default, js-*=/opt/node22/bin/node, *node*=node``",
    ),
    cfg.StrOpt(
        "isolation",
        choices=["required", "preferred"],
        help="required: refuse to start where workers cannot have file systems, processes and a network of "
        "their own. preferred: do what the machine allows, and say what is missing. Unset: required when the "
        "API listens beyond loopback, else preferred.",
    ),
    cfg.StrOpt(
        "network",
        default="none",
        choices=["none", "host"],
        help="none: functions reach nothing but themselves. host: they share the network of this machine, "
        "its loopback and abstract Unix sockets included; only for functions that you trust.",
    ),
    cfg.IntOpt(
        "uid_base",
        default=200000,
        min=1,
        max=2**31,
        help="First of 65536 user ids (and group ids) of this machine that nobody else has. As root, each "
        "worker gets two of them: one for its supervisor, one for its functions. An ordinary user has no "
        "use for it. Example: 1000000",
    ),
    cfg.StrOpt(
        "cgroup_parent",
        help="Control group below which those of workers are made: a path below the mount point of each "
        "hierarchy. With version 2 no process may be in it. Unset: the group of the server, or where that "
        "cannot be used the top. Example: /system.slice/funcplat.service",
    ),
    cfg.StrOpt(
        "run_dir",
        help="Directory of the workers' sockets. Unset: below state_dir. A socket's path has at most 107 "
        "bytes, of which 51 are used up below this directory, so a long state_dir needs a short one here. "
        "Example: /run/funcplat",
    ),
    cfg.IntOpt(
        "spares",
        default=1,
        min=0,
        max=16,
        help="Workers-to-be that each interpreter keeps ready: forked, in their namespaces and control "
        "groups. Each takes about 2 MiB and saves a cold start about 10 ms.",
    ),
    cfg.BoolOpt(
        "namespaces",
        default=True,
        advanced=True,
        help="Whether to use Linux namespaces where that is possible. Without them functions see the file "
        "system, the processes and the network of the machine; useful to find out whether they are the "
        "cause of a fault.",
    ),
)


def interpreter(images: Sequence[str], image: str) -> pathlib.Path:
    """The interpreter of a runtime's image.

    Raises ImageUnknown with the patterns that there are, or with the name that is not in PATH.
    """
    for entry in images:
        pattern, _, name = entry.rpartition("=")
        if pattern and fnmatch.fnmatchcase(image, pattern.strip()):
            return _located(name.strip(), f"The image {image!r} is run by")
    patterns = ", ".join(entry.rpartition("=")[0] or entry for entry in images)
    raise errors.ImageUnknown(
        f"The process driver has no interpreter for the image {image!r}. It knows: {patterns}. "
        "Add pattern=interpreter to [orchestrator_process] images."
    )


def first_interpreter(images: Sequence[str]) -> pathlib.Path:
    """One that says what this machine allows: the platform's own, unless functions never use it.

    Raises ImageUnknown.
    """
    names = [entry.rpartition("=")[2].strip() for entry in images]
    if interpreters.OWN in names or not names:
        return interpreters.own()
    return _located(names[0], "[orchestrator_process] images names")


def _located(name: str, subject: str) -> pathlib.Path:
    path = interpreters.locate(name)
    if path is None:
        raise errors.ImageUnknown(
            f"{subject} {name!r}, and there is no such program in PATH. Install it, "
            "or give its path in [orchestrator_process] images."
        )
    return path
