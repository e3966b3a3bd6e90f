"""The arguments of tools/test.  Standard library only, as there is no environment yet."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Sequence

DESCRIPTION = """\
Run the checks and tests.  The first run makes a virtual environment in the checkout.

Tests that need a real server run where it can be started, and the end of the output says which were left
out and why.  The last line is: N passed, N failed, N skipped.
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """What to run."""

    everything: bool
    quick: bool
    pattern: str | None


def parse(argv: Sequence[str]) -> Options:
    """Options of the command line and of the variable CI.  Ends the process on --help and on mistakes."""
    parser = argparse.ArgumentParser(
        "tools/test", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "pattern", nargs="?", help="run only tests whose name matches this regular expression, and no checks"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        dest="everything",
        help="install (apt-get, pip) and start every real server and leave nothing out: a skipped test is "
        "a failure. Needs root on Debian. CI=true in the environment means the same.",
    )
    parser.add_argument("--quick", action="store_true", help="run unit tests alone, and no checks")
    given = parser.parse_args(argv)
    if given.everything and given.quick:
        parser.error("--all and --quick exclude each other")
    everything = given.everything or (_is_ci() and not given.quick)
    if everything and os.geteuid() != 0:
        parser.error("--all (or CI=true) installs packages and starts a Docker Engine: run it as root")
    return Options(everything, given.quick, given.pattern)


def _is_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")
