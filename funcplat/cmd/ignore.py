"""Which files of a folder stay out of its package."""

from __future__ import annotations

import dataclasses
import fnmatch
import pathlib
from collections.abc import Iterable

from funcplat.cmd import failures

FILE = ".funcplatignore"
DEFAULTS = (
    "__pycache__/",
    "*.py[co]",
    ".git/",
    ".hg/",
    ".svn/",
    ".venv/",
    ".tox/",
    ".idea/",
    ".vscode/",
    ".*_cache/",
    ".DS_Store",
    FILE,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """One line of a .funcplatignore file."""

    pattern: str
    keeps: bool  # it began with "!": what it matches is packed after all
    directories: bool  # it ended with "/": it matches directories only
    anchored: bool  # it has a "/" inside or before: it matches the path from the folder, not the name

    @classmethod
    def parse(cls, line: str) -> Rule:
        keeps = line.startswith("!")
        pattern = line.removeprefix("!")
        bare = pattern.removesuffix("/")
        return cls(bare.removeprefix("/"), keeps, bare != pattern, "/" in bare)

    def matches(self, path: str, directory: bool) -> bool:
        """``path``: relative to the folder, with forward slashes."""
        if self.directories and not directory:
            return False
        return fnmatch.fnmatchcase(path if self.anchored else path.rpartition("/")[2], self.pattern)


class Rules:
    """The rules of a folder: the defaults, then its own; the last one that matches decides."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._rules = [Rule.parse(line) for line in lines]

    @classmethod
    def of(cls, folder: pathlib.Path) -> Rules:
        """The rules of ``folder``.  Raises UsageFailure where its own cannot be read."""
        try:
            text = (folder / FILE).read_text(encoding="utf-8")
        except FileNotFoundError:
            text = ""
        except (OSError, UnicodeDecodeError) as error:
            raise failures.UsageFailure(f"cannot read {folder / FILE}: {error}") from error
        lines = (line.strip() for line in text.splitlines())
        return cls([*DEFAULTS, *(line for line in lines if line and not line.startswith("#"))])

    def leaves_out(self, path: str, directory: bool) -> bool:
        """Whether ``path`` (relative, forward slashes) stays out; a directory with all that is in it."""
        verdicts = [not rule.keeps for rule in self._rules if rule.matches(path, directory)]
        return verdicts[-1] if verdicts else False
