"""A worker of its own: ``python -m funcplat.worker --listen unix:/path --concurrency 3``."""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import socket
import sys

if not __package__:  # run as a directory, with an isolated interpreter (-I -S)
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from funcplat.worker import host, supervisor


def main(arguments: list[str]) -> None:
    """Serve one worker until SIGTERM."""
    parser = argparse.ArgumentParser(prog="funcplat.worker", description="A function server for Python.")
    parser.add_argument(
        "--listen", required=True, help="unix:/path, tcp:address:port or fd:number, of a socket that listens"
    )
    parser.add_argument(
        "--concurrency", type=_positive, default=3, help="executions at once, where /load does not say"
    )
    parser.add_argument("--code-dir", default=host.CODE_DIR, help="where a pushed package is unpacked")
    parser.add_argument("--scratch", default=host.SCRATCH, help="working directory of functions")
    options = parser.parse_args(arguments)
    house = str(pathlib.Path(__file__).resolve().parents[2])
    sys.path[:] = [entry for entry in sys.path if entry not in ("", house)]
    supervisor.serve(
        host.Host(
            listener=listen(options.listen),
            concurrency=options.concurrency,
            code_dir=options.code_dir,
            scratch=options.scratch,
        )
    )


def listen(address: str) -> socket.socket:
    """A listening socket; a Unix socket left over at the path is replaced."""
    kind, _colon, rest = address.partition(":")
    if kind == "unix" and rest:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(rest)  # noqa: PTH108
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(rest)
        listener.listen(128)
        return listener
    if kind == "tcp" and ":" in rest:
        name, _colon, port = rest.rpartition(":")
        return socket.create_server(
            (name.strip("[]"), int(port)),
            family=socket.AF_INET6 if ":" in name else socket.AF_INET,
            backlog=128,
        )
    if kind == "fd" and rest.isdecimal():
        return socket.socket(fileno=int(rest))
    raise SystemExit(f"{address!r} is neither unix:/path nor tcp:address:port nor fd:number")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    main(sys.argv[1:])
