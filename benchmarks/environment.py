"""The virtual environment of the benchmark: the platform and its peer, on one interpreter."""

from __future__ import annotations

import pathlib
import sys

from tests import environments


def python() -> pathlib.Path:
    """The interpreter of the environment, which is made where it is missing or old.  Exits where it fails."""
    wanted = environments.Environment(
        environments.ROOT / ".venv-bench",
        ("--editable", ".[bench,test]"),  # test: the servers of the tests, of which the Engine is one
        (environments.ROOT / "setup.cfg", environments.ROOT / "pyproject.toml"),
    )
    if not wanted.ready():
        print(f"Making {wanted.directory.name}", file=sys.stderr)
    try:
        wanted.make()
    except environments.EnvironmentFailure as error:
        sys.exit(str(error))
    return wanted.python
