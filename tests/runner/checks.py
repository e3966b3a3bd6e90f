"""The checks besides tests: style, types, who imports whom, generated files, documents, release notes."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import pathlib
import subprocess
import sys
import tempfile

from tests import environments
from tests.runner import report

DEADLINE = 600.0
SIDE_BY_SIDE = 2


@dataclasses.dataclass(frozen=True)
class Check:
    """A command that must succeed."""

    name: str
    argv: tuple[str, ...]


def checks(documents: pathlib.Path) -> list[Check]:
    """All checks; built documents go below ``documents``."""
    programs = pathlib.Path(sys.executable).parent
    sources = (".", *_python_tools())
    sphinx = ("-W", "--keep-going", "-q", "-b", "html", "docs", str(documents))
    return [
        Check("ruff check", (f"{programs}/ruff", "check", "--quiet", "--output-format=concise", *sources)),
        Check("ruff format", (f"{programs}/ruff", "format", "--check", "--quiet", "--diff", *sources)),
        Check("mypy", (f"{programs}/mypy",)),
        Check("lint-imports", (f"{programs}/lint-imports",)),
        Check("generated files are fresh", (sys.executable, "tools/generate", "--check")),
        Check("documents build without warnings", (f"{programs}/sphinx-build", *sphinx)),
        Check("reno lint", (f"{programs}/reno", "-q", "lint")),
    ]


def _python_tools() -> list[str]:
    """Python files without the ending by which ruff would find them."""
    tools = (environments.ROOT / "tools").iterdir()
    return sorted(
        f"tools/{path.name}"
        for path in tools
        if path.is_file() and not path.suffix and b"python" in path.read_bytes().partition(b"\n")[0]
    )


def run_all(told: report.Report) -> None:
    """Run every check, and report those that fail."""
    told.section("Checks")
    with (
        tempfile.TemporaryDirectory() as documents,
        concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool,
    ):
        for _ in pool.map(lambda check: _run(check, told), checks(pathlib.Path(documents))):
            pass


def _run(check: Check, told: report.Report) -> None:
    try:
        done = subprocess.run(
            check.argv,
            cwd=environments.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        told.fail(f"check: {check.name}", f"did not end within {DEADLINE:g} s")
        return
    if done.returncode == 0:
        told.say(f"{check.name}: ok")
    else:
        command = " ".join(check.argv)
        told.fail(f"check: {check.name}", f"{command} ended with {done.returncode}:\n{done.stdout}")
