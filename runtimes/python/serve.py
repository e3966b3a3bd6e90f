"""The Python worker as the first process of a container.

It is process 1 itself, without an init before it: it reaps orphans anyway, and the kernel lets nobody in
the container kill process 1, while a supervisor behind an init would have the same user as the functions and
could be killed by them.  The signals that Python or the worker handle, and that would therefore be
delivered, are blocked; who ends the container does it with SIGKILL.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator

HOUSE = str(pathlib.Path(__file__).resolve().parent)
sys.path.insert(0, HOUSE)

from funcplat.worker import __main__ as program  # noqa: E402
from funcplat.worker import host, load, supervisor  # noqa: E402

BLOCKED = (signal.SIGTERM, signal.SIGINT)
GROUPS = pathlib.Path("/sys/fs/cgroup")
SELDOM = re.compile(
    r"/(test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|site-packages|dist-packages)(/|$)"
)


def main(arguments: list[str]) -> None:
    """Serve until the container is killed."""
    parser = argparse.ArgumentParser(prog="serve", description="A Python worker in a container.")
    parser.add_argument("--listen", help="unix:/path or tcp:address:port")
    parser.add_argument("--concurrency", type=int, default=3, help="executions at once, unless /load says")
    parser.add_argument(
        "--entry",
        default=os.environ.get("FUNCPLAT_ENTRY") or None,
        help="of the function that the image carries in --function; else $FUNCPLAT_ENTRY",
    )
    parser.add_argument("--function", default="/code", help="directory of the function that it carries")
    parser.add_argument("--code-dir", default=host.CODE_DIR, help="where a pushed package is unpacked")
    parser.add_argument("--scratch", default=host.SCRATCH, help="working directory of functions")
    parser.add_argument("--compile", action="store_true", help="compile all modules and end")
    options = parser.parse_args(arguments)
    if options.compile:
        compile_modules()
        return
    if not options.listen:
        parser.error("--listen is missing")
    serve(options)


def serve(options: argparse.Namespace) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    pathlib.Path(options.code_dir).parent.mkdir(parents=True, exist_ok=True)
    os.umask(0)  # the platform may be another user, and must be able to connect; the worker sets its own
    listener = program.listen(options.listen)
    sys.path[:] = [entry for entry in sys.path if entry not in ("", HOUSE)]
    supervisor.serve(
        host.Host(
            listener=listener,
            concurrency=options.concurrency,
            confine=unblock,
            oom_kills=counter("oom_kill", "memory/memory.oom_control", "memory.events"),
            pids_hits=counter("max", "pids/pids.events", "pids.events"),
            carried=load.Carried(options.entry, options.function) if options.entry else None,
            code_dir=options.code_dir,
            scratch=options.scratch,
        )
    )


def unblock() -> None:
    """Give functions the signals back."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)


def counter(key: str, *names: str) -> Callable[[], int]:
    """Reads a count of this container's control group, version 1 or 2; without such a file it stays 0."""
    for path in (GROUPS / name for name in names):
        if path.exists() and count_in(path, key) is not None:
            return lambda: count_in(path, key) or 0
    return host.zero


def count_in(path: pathlib.Path, key: str) -> int | None:
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    return None


def compile_modules() -> None:
    """Compile the standard library and the worker, for an image that is read-only when it runs.

    What is written, times included, depends on nothing but the sources, so that who builds the image again
    gets the same layers.
    """
    import compileall
    import py_compile
    import sysconfig

    roots = (sysconfig.get_path("stdlib"), HOUSE)
    times = {directory: directory.stat().st_mtime_ns for directory in directories(roots)}
    # Not by time: the compiled files are not checked later.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    for root in roots:
        compileall.compile_dir(root, maxlevels=20, quiet=2, rx=SELDOM, invalidation_mode=mode)
    for directory in directories(roots):
        if directory.name == "__pycache__":
            for path in (*directory.iterdir(), directory):
                os.utime(path, (0, 0))
        else:
            os.utime(directory, ns=(0, times[directory]))


def directories(roots: Iterable[str]) -> Iterator[pathlib.Path]:
    for root in roots:
        for directory, _names, _files in os.walk(root):
            yield pathlib.Path(directory)


if __name__ == "__main__":
    main(sys.argv[1:])
