"""Debian packages that the real servers come from."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator

# other installations may be under way: wait for them
APT = ("apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=400", "-o", "Acquire::Retries=3")
DEADLINE = 1200.0


class InstallError(Exception):
    """Something could not be installed; the message says what to do."""


def installed(name: str) -> bool:
    """Whether dpkg has the package, configured."""
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", name]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout == "installed"


def install(names: Iterable[str]) -> None:
    """Install Debian packages as root; those that are there cost nothing.  Raises InstallError."""
    wanted = sorted(set(names))
    if wanted and (shutil.which("dpkg-query") is None or shutil.which("apt-get") is None):
        raise InstallError(f"needs apt-get, which this machine has not; install by hand: {' '.join(wanted)}")
    absent = [name for name in wanted if not installed(name)]
    if not absent:
        return
    if os.geteuid() != 0:
        raise InstallError(f"needs root: apt-get install {' '.join(absent)}")
    _apt("update")
    _apt("install", "--no-install-recommends", *absent)


def _apt(*arguments: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
    try:
        done = subprocess.run(
            [*APT, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InstallError(f"apt-get {' '.join(arguments)} took more than {DEADLINE:g} s") from error
    if done.returncode != 0:
        raise InstallError(
            f"apt-get {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout[-3000:]}"
        )


@contextlib.contextmanager
def patient_apt() -> Iterator[None]:
    """Make every apt-get that is started meanwhile, by whatever program, wait while another one works."""
    with tempfile.NamedTemporaryFile("w", prefix="apt-", suffix=".conf") as configuration:
        configuration.write('DPkg::Lock::Timeout "400";\n')
        configuration.flush()
        before = os.environ.get("APT_CONFIG")
        os.environ["APT_CONFIG"] = configuration.name
        try:
            yield
        finally:
            os.environ.pop("APT_CONFIG")
            if before is not None:
                os.environ["APT_CONFIG"] = before
