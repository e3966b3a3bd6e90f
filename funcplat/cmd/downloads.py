"""``funcplat function download``."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import BinaryIO

from funcplat.cmd import base, failures


class Download(base.Command):
    """Download a function's package."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = base.with_function(super().get_parser(prog_name))
        parser.add_argument(
            "-o", "--output", metavar="PATH", help="Else FUNCTION.zip here; - is standard output."
        )
        parser.add_argument("--force", action="store_true", help="Replace the file where it exists.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Write it whole or not at all."""
        package, _ = base.target(self.client, parsed_args)
        if parsed_args.output == "-":
            self._copy(package, sys.stdout.buffer)
            return 0
        path = pathlib.Path(parsed_args.output or _name(package, parsed_args.function))
        if path.exists() and not parsed_args.force:
            raise failures.UsageFailure(f"{path} exists; --force replaces it")
        with _replacing(path) as sink:
            self._copy(package, sink)
        self.say(f"wrote {path}")
        return 0

    def _copy(self, path: str, sink: BinaryIO) -> None:
        from funcplat.cmd import progress

        package = self.client.download(path, {"download": "true"})
        with progress.bar("download", package.length, sys.stderr) as bar:
            for chunk in package.chunks:
                sink.write(chunk)
                bar(len(chunk))


def _name(path: str, reference: str) -> str:
    """Of the file: as the function is called where that is the name of a file, with the version's number."""
    function_id, *version = path.removeprefix("/v1/functions/").split("/versions/")
    safe = reference if re.fullmatch(r"[\w-][\w.-]*", reference) else function_id
    return f"{'_'.join([safe, *version])}.zip"


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` when all of it is written, and vanishes otherwise."""
    written = path.with_name(f"{path.name}.part")
    try:
        with written.open("wb") as sink:
            yield sink
        written.replace(path)
    except OSError as error:
        written.unlink(missing_ok=True)
        raise failures.UsageFailure(f"cannot write {path}: {error.strerror}") from error
    except BaseException:
        written.unlink(missing_ok=True)
        raise
