"""The real servers of a whole test run."""

from __future__ import annotations

import concurrent.futures
import json
import os
from typing import Any

from tests import environments, packages
from tests.runner import report
from tests.services import access, catalog, kubernetes, processes, session

QINLING_VARIABLE = "FUNCPLAT_TEST_QINLING_VENV"
INTERPRETERS = ("nodejs",)
"""Debian packages of what functions are written for, besides Python."""


def name_kube_scripts() -> None:
    """Tell the Kubernetes service where scripts lie that build and start a cluster, if they do."""
    scripts = environments.ROOT.parent / "shared" / "kube"
    if (scripts / "up.sh").exists():
        os.environ.setdefault(kubernetes.SCRIPTS_VARIABLE, str(scripts))


def install(told: report.Report) -> None:
    """Install every service, side by side, the Debian packages of all first.  Reports what fails."""
    told.section("Installing servers")
    services = catalog.services().values()
    # a script may call apt-get itself: it too shall wait for its turn
    with packages.patient_apt():
        try:
            packages.install([*INTERPRETERS, *(name for service in services for name in service.packages)])
        except packages.InstallError as error:
            told.fail("installing Debian packages", str(error))
            return
        with concurrent.futures.ThreadPoolExecutor(len(services)) as pool:
            futures = {service.title: pool.submit(service.install) for service in services}
    for title, future in futures.items():
        error = future.exception()
        if isinstance(error, packages.InstallError):
            told.fail(f"installing {title}", str(error))
        elif error is not None:
            raise error
        else:
            told.say(f"{title}: installed")


def start(own: session.Session, told: report.Report) -> dict[str, str]:
    """Start every server that can run here; the environment that tells tests of them."""
    told.section("Servers")
    services = catalog.services()
    found: dict[str, dict[str, Any]] = {}
    for name in services:
        if reason := own.missing(name):
            found[name] = {"missing": reason}
    for name, started in own.start(name for name in services if name not in found).items():
        if isinstance(started, processes.StartError):
            told.fail(f"starting {services[name].title}", str(started))
            found[name] = {"failed": str(started)}
        else:
            told.say(f"{services[name].title}: started")
            found[name] = {"settings": started}
    path = own.directory / "services.json"
    path.write_text(json.dumps(found))
    return {access.SERVICES_VARIABLE: str(path)}


def qinling(told: report.Report, required: bool) -> dict[str, str]:
    """Make the environment of the old client; the environment that tells tests of it."""
    environment = environments.qinling_environment()
    try:
        environment.make()
    except environments.EnvironmentFailure as error:
        if required:
            told.fail("installing python-qinlingclient", str(error))
        else:
            told.omit(f"tests with python-qinlingclient, which could not be installed: {error}")
        return {}
    return {QINLING_VARIABLE: str(environment.directory)}
