"""The options of the process driver, group ``[orchestrator_process]``."""

from __future__ import annotations

import fnmatch
import pathlib
import sys
from collections.abc import Sequence

from oslo_config import cfg

from funcplat import errors

OWN = "default"
"""Stands in ``images`` for the interpreter that runs the platform."""

OPTS: Sequence[cfg.Opt] = (
    cfg.ListOpt(
        "images",
        default=[f"*python*={OWN}"],
        help="Which interpreter runs a runtime, by the runtime's image name: pattern=interpreter, the first "
        "match counts. Patterns are those of shells (``*``, ``?``, ``[]``); an interpreter is a path (Python "
        f"3.11 or later), or '{OWN}' for the one that runs the platform. A runtime whose image matches none "
        "gets the status error. Example: ``*python3.13*=/usr/local/bin/python3.13, *python*=default``",
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
    """The interpreter of a runtime's image.  Raises ImageUnknown with the patterns that there are."""
    for entry in images:
        pattern, _, path = entry.rpartition("=")
        if pattern and fnmatch.fnmatchcase(image, pattern.strip()):
            return own_interpreter() if path.strip() == OWN else pathlib.Path(path.strip())
    patterns = ", ".join(entry.rpartition("=")[0] or entry for entry in images)
    raise errors.ImageUnknown(
        f"The process driver has no interpreter for the image {image!r}. It knows: {patterns}. "
        "Add pattern=interpreter to [orchestrator_process] images."
    )


def own_interpreter() -> pathlib.Path:
    """The interpreter below the virtual environment that the platform may run in.

    Functions do not see the platform's packages.
    """
    return pathlib.Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
