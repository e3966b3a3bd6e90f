"""The directory that an installation on one machine keeps its state in."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from oslo_config import cfg

from funcplat import errors


def path_of(conf: cfg.ConfigOpts) -> pathlib.Path:
    return pathlib.Path(conf.state_dir).expanduser().absolute()


def prepare(conf: cfg.ConfigOpts) -> pathlib.Path:
    """Make the state directory, for this user's eyes alone.  Raises ConfigError."""
    path = path_of(conf)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        (path / "spool").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise errors.ConfigError(f"state_dir {path} cannot be made: {error.strerror}") from error
    return path


@contextlib.contextmanager
def locked(state_dir: pathlib.Path) -> Iterator[None]:
    """Hold the directory for this process.  Raises StateInUse where another one has it."""
    with (state_dir / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise errors.StateInUse(
                f"another server (process {holder}) uses the state directory {state_dir}; stop it, or give "
                "this one a state_dir of its own. Several servers need PostgreSQL or MariaDB"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
