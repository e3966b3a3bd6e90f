"""Virtual environments of the checkout, made once for what they hold.

Standard library only: tools/test uses this before there is any environment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
DEADLINE = 1200.0


class EnvironmentFailure(Exception):
    """A virtual environment could not be made; the message says what to do."""


@contextlib.contextmanager
def _locked(directory: pathlib.Path) -> Iterator[None]:
    """Hold the only lock of a directory."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@dataclasses.dataclass(frozen=True)
class Environment:
    """A virtual environment with ``requirements`` (arguments of pip install).

    It is made anew when they, the interpreter, or the contents of ``inputs`` change.
    """

    directory: pathlib.Path
    requirements: tuple[str, ...]
    inputs: tuple[pathlib.Path, ...] = ()

    @property
    def python(self) -> pathlib.Path:
        return self.directory / "bin" / "python"

    def program(self, name: str) -> pathlib.Path:
        """The path of a command that is installed in it."""
        return self.directory / "bin" / name

    def ready(self) -> bool:
        """Whether it holds what it should."""
        return self.python.exists() and self._stamp.exists() and self._stamp.read_text() == self._digest()

    def make(self) -> None:
        """Make or update it.  Idempotent, and fast when it is ready.  Raises EnvironmentFailure.

        Of several who make it at once, in whatever process, one does and the others wait.
        """
        if self.ready():
            return
        self.directory.mkdir(exist_ok=True)
        with _locked(self.directory):
            if not self.ready():
                self._install()

    def _install(self) -> None:
        self._stamp.unlink(missing_ok=True)
        if not self._is_of_this_python():
            hint = "; Debian has it in python3-venv"
            self._run([sys.executable, "-m", "venv", "--clear", self.directory], hint)
        pip = [self.python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        self._run([*pip, *self.requirements], "")
        self._stamp.write_text(self._digest())

    @property
    def _stamp(self) -> pathlib.Path:
        return self.directory / "stamp"

    def _digest(self) -> str:
        parts = [platform.python_version(), str(self.directory), *self.requirements]
        digest = hashlib.sha256("\0".join(parts).encode())
        for path in self.inputs:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def _is_of_this_python(self) -> bool:
        if not (self.python.exists() and self.program("pip").exists()):
            return False
        asked = [self.python, "-c", "import platform; print(platform.python_version())"]
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
        return answer.stdout.strip() == platform.python_version()

    def _run(self, argv: list[object], hint: str) -> None:
        command = [str(argument) for argument in argv]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=DEADLINE,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise EnvironmentFailure(f"{' '.join(command)} took more than {DEADLINE:g} s") from error
        if done.returncode != 0:
            raise EnvironmentFailure(
                f"{' '.join(command)} ended with {done.returncode}{hint}:\n{done.stdout[-4000:]}"
            )


def test_environment() -> Environment:
    """The platform, editable, with everything that its tests and checks need."""
    return Environment(
        ROOT / ".venv-test",
        ("--editable", ".[test,lint,docs,postgresql,mysql]"),
        (ROOT / "setup.cfg", ROOT / "pyproject.toml"),
    )


def qinling_environment() -> Environment:
    """The old client.  Its PrettyTable<0.8 keeps it out of every other environment."""
    return Environment(
        ROOT / ".venv-qinling",
        ("python-qinlingclient==5.1.1", "python-openstackclient", "setuptools<81"),
    )


def openstack_environment() -> Environment:
    """Swift and Keystone; their hundred dependencies are kept from the platform's own."""
    return Environment(
        ROOT / ".venv-openstack",
        ("swift==2.38.3", "keystone==30.0.0", "keystonemiddleware", "waitress", "bcrypt"),
    )
