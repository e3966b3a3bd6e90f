"""What is installed: every driver, whether it is enabled, and how it does on this machine."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

from oslo_config import cfg

from funcplat import bootstrap, errors, plugins, statedir
from funcplat.drivers.base import Context, Feature


@dataclasses.dataclass(frozen=True, slots=True)
class DriverDescription:
    """An installed driver, for people."""

    kind: str  # orchestrator, storage, auth
    name: str
    distribution: str
    version: str
    enabled: bool
    capabilities: tuple[str, ...]
    problem: str | None
    features: tuple[Feature, ...]


def drivers(conf: cfg.ConfigOpts) -> list[DriverDescription]:
    """Every installed driver and how it does on this machine."""
    context = bootstrap.driver_context(conf, statedir.prepare(conf), str(uuid.uuid4()))
    enabled = {
        "orchestrator": conf.orchestrator.enabled,
        "storage": conf.storage.enabled,
        "auth": [conf.auth.driver],
    }
    return [
        _describe(kind, name, entries[0], name in enabled[kind.name], conf, context)
        for kind in plugins.KINDS
        for name, entries in sorted(plugins.installed(kind).items())
    ]


def _describe(
    kind: plugins.Kind,
    name: str,
    entry_point: Any,
    enabled: bool,
    conf: cfg.ConfigOpts,
    context: Context,
) -> DriverDescription:
    capabilities: tuple[str, ...] = ()
    features: tuple[Feature, ...] = ()
    problem = None
    try:
        driver = plugins.construct(kind, name, conf, context)
        capabilities = tuple(sorted(str(each) for each in getattr(driver, "capabilities", ())))
        if hasattr(driver, "features"):
            features = tuple(driver.features())
        driver.check()
        if kind is not plugins.AUTH:
            driver.close()
    except errors.FuncplatError as error:
        problem = error.message
    dist = entry_point.dist
    return DriverDescription(
        kind.name,
        name,
        dist.name if dist is not None else "?",
        dist.version if dist is not None else "?",
        enabled,
        capabilities,
        problem,
        features,
    )
