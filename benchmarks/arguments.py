"""The command line."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence

SECTIONS = ("warm", "cold", "memory", "list", "create", "queue", "docker", "claims", "kills")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure, and how long."""

    only: tuple[str, ...]
    rounds: int
    seconds: float
    fresh: int  # functions of each kind of cold start
    functions: int  # in the list
    json: pathlib.Path | None
    databases: tuple[str, ...]  # of the sections that compare them


def parse(argv: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="benchmarks/run", description="Measure the platform beside a peer.")
    parser.add_argument(
        "--only", metavar="SECTION,...", help=f"sections to run, of {', '.join(SECTIONS)}; else all"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of every pair (default 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds of one measurement (default 4)")
    parser.add_argument("--fresh", type=int, default=30, help="cold starts of each kind (default 30)")
    parser.add_argument("--functions", type=int, default=1000, help="functions in the list (default 1000)")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 s, 5 cold starts: to try it out")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write all samples there as JSON")
    parser.add_argument(
        "--databases", default="sqlite,postgresql,mariadb", help="for claims and kills (default: %(default)s)"
    )
    given = parser.parse_args(argv)
    databases = tuple(given.databases.split(","))
    only = tuple(given.only.split(",")) if given.only else SECTIONS
    if unknown := set(only) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    if given.quick:
        return Options(only, 2, 1.0, 5, given.functions, given.json, databases)
    return Options(only, given.rounds, given.seconds, given.fresh, given.functions, given.json, databases)
