"""``funcplat function ...``"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from funcplat.cmd import base, client, failures, values

COLUMNS = (
    "id",
    "name",
    "description",
    "runtime_id",
    "entry",
    "code",
    "cpu",
    "memory_size",
    "timeout",
    "count",
    "latest_version",
    "project_id",
    "created_at",
    "updated_at",
)
BRIEF = ("id", "name", "runtime_id", "entry", "memory_size", "timeout", "count", "updated_at")
CELLS: dict[str, base.Cell] = {
    "code": values.structure,
    "environment": values.structure,
    "memory_size": values.Size,
}
UPLOAD_TIMEOUT = 300.0
"""Seconds that a server may take to check and keep a package."""


class _Written(base.Show):
    """What create and update have in common: the fields of a function and its code."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_code_options(parser)
        parser.add_argument("--runtime", metavar="RUNTIME", help=self.runtime_help)
        parser.add_argument("--description")
        parser.add_argument("--entry", metavar="MODULE.FUNCTION", help=self.entry_help)
        parser.add_argument("--cpu", type=values.count, metavar="MILLICORES", help="1000 is one core.")
        parser.add_argument(
            "--memory",
            type=values.size,
            metavar="SIZE",
            help="In bytes, or like 64M or 64MiB (powers of 1024).",
        )
        parser.add_argument("--timeout", type=values.count, metavar="SECONDS", help="Of one execution.")
        parser.add_argument(
            "--env",
            action="append",
            type=values.pair,
            metavar="KEY=VALUE",
            help=f"An environment variable; may be repeated. {self.env_help}",
        )
        return parser

    runtime_help = ""
    entry_help = ""
    env_help = ""

    def _fields(self, parsed_args: argparse.Namespace) -> dict[str, str]:
        given = {
            "name": parsed_args.name,
            "description": parsed_args.description,
            "entry": parsed_args.entry,
            "cpu": parsed_args.cpu,
            "memory_size": parsed_args.memory,
            "timeout": parsed_args.timeout,
            "environment": json.dumps(dict(parsed_args.env)) if parsed_args.env else None,
        }
        return {key: str(value) for key, value in given.items() if value is not None}

    def _upload(self, method: str, path: str, fields: dict[str, str], package: Any) -> base.Row:
        from funcplat.cmd import multipart, progress

        if package.left_out:
            self.say(f"left out: {_listed(package.left_out)}")
        with progress.bar("upload", package.size, sys.stderr) as bar:
            body = multipart.body(fields, "package", package.filename, package.file, package.size, bar)
            answer = self.client.request(method, path, body=body, timeout=UPLOAD_TIMEOUT)
        return _shown(answer.json())


class Create(_Written):
    """Create a function from a file, a folder or a ZIP package."""

    runtime_help = "Name or id; not needed where exactly one is available."
    entry_help = (
        "What is called; else MODULE.main with --file, index.main of a folder that has an index.js and no "
        "main module, main.main with the others."
    )
    env_help = "Values are never shown again."

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """Make the package and send it."""
        if parsed_args.image:
            return self._of_image(parsed_args)
        with _packaged(parsed_args) as package:
            if package is None:
                raise failures.UsageFailure(
                    "where is the code? give --file, --directory, --package or --image"
                )
            runtime = self._runtime(parsed_args.runtime)
            code = {"source": "package", "md5sum": package.md5sum}
            fields = {"runtime_id": runtime, "code": json.dumps(code), **self._fields(parsed_args)}
            if package.entry:
                fields.setdefault("entry", package.entry)
            return self._upload("POST", "/v1/functions", fields, package)

    def _of_image(self, parsed_args: argparse.Namespace) -> base.Row:
        fields = {"code": _image_code(parsed_args.image), **self._fields(parsed_args)}
        if parsed_args.runtime:
            fields["runtime_id"] = base.find_id(self.client, "runtimes", parsed_args.runtime)
        body = client.form_body(fields)
        # The engine may have to pull it before it can answer.
        answer = self.client.request("POST", "/v1/functions", body=body, timeout=UPLOAD_TIMEOUT)
        return _shown(answer.json())

    def _runtime(self, reference: str | None) -> str:
        if reference is not None:
            return base.find_id(self.client, "runtimes", reference)
        runtimes = self.client.get("/v1/runtimes").json().get("runtimes", [])
        available = [runtime for runtime in runtimes if runtime.get("status") == "available"]
        if len(available) == 1:
            return str(available[0]["id"])
        if available:
            named = ", ".join(
                f"{runtime.get('name') or runtime['image']} ({runtime['id']})" for runtime in available
            )
            raise failures.UsageFailure(f"which runtime? give --runtime; available: {named}")
        raise failures.UsageFailure(
            "no runtime is available; an administrator makes one with `funcplat runtime create python3`"
        )


class Update(_Written):
    """Change what is given of a function; new code serves the next call."""

    runtime_help = "Name or id of the runtime to run on from now on."
    entry_help = "What is called."
    env_help = "Those that are given replace all that are set."

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("function", metavar="FUNCTION", help="Name or id.")
        parser.add_argument("--name", help="The new name.")
        parser.add_argument("--no-env", action="store_true", help="Remove all environment variables.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """Send the changes, with the package where there is new code."""
        fields = self._fields(parsed_args)
        if parsed_args.no_env:
            fields.setdefault("environment", "{}")
        if parsed_args.image:
            fields["code"] = _image_code(parsed_args.image)
        with _packaged(parsed_args) as package:
            if not (fields or package or parsed_args.runtime):
                raise failures.UsageFailure("nothing to change: see `funcplat function update --help`")
            if parsed_args.runtime:
                fields["runtime_id"] = base.find_id(self.client, "runtimes", parsed_args.runtime)
            path = f"/v1/functions/{base.find_id(self.client, 'functions', parsed_args.function)}"
            if package is None:
                body = client.form_body(fields)
                timeout = UPLOAD_TIMEOUT if parsed_args.image else None
                return _shown(self.client.request("PUT", path, body=body, timeout=timeout).json())
            # Without md5sum, which would make the server refuse code that did not change.
            fields["code"] = json.dumps({"source": "package"})
            return self._upload("PUT", path, fields, package)


class List(base.List):
    """List functions."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_list_options(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Any]:
        """Those of the project, unless options say otherwise."""
        answer = self.client.get("/v1/functions", base.list_query(parsed_args)).json()
        return base.rows(answer.get("functions", []), COLUMNS if parsed_args.long else BRIEF, CELLS)


class Show(base.Show):
    """Show a function."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return base.with_function(super().get_parser(prog_name))

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """By id or name."""
        return _shown(base.find(self.client, "functions", parsed_args.function))


class Delete(base.Command):
    """Delete functions."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("functions", metavar="FUNCTION", nargs="+", help="Names or ids.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Delete each; go on where one fails."""
        return base.each(parsed_args.functions, self._delete, self.application.complain)

    def _delete(self, reference: str) -> None:
        function_id = base.find_id(self.client, "functions", reference)
        self.client.request("DELETE", f"/v1/functions/{function_id}")
        self.say(f"function {reference} is deleted")


def _add_code_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--file", type=pathlib.Path, metavar="PY|JS", help="One file of Python or Node.js.")
    group.add_argument(
        "--directory", type=pathlib.Path, metavar="DIR", help="A folder, less what its .funcplatignore names."
    )
    group.add_argument("--package", type=pathlib.Path, metavar="ZIP", help="A ZIP file.")
    group.add_argument(
        "--image", metavar="IMAGE", help="An image; it is kept by the digest that its name has now."
    )


@contextlib.contextmanager
def _packaged(parsed_args: argparse.Namespace) -> Iterator[Any]:
    """The package that the options ask for, or None."""
    from funcplat.cmd import package

    made = None
    if parsed_args.file:
        made = package.from_file(parsed_args.file)
    elif parsed_args.directory:
        made = package.from_directory(parsed_args.directory)
    elif parsed_args.package:
        made = package.from_zip(parsed_args.package)
    try:
        yield made
    finally:
        if made:
            made.file.close()


def _image_code(image: str) -> str:
    return json.dumps({"source": "image", "image": image})


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _shown(function: client.Json) -> base.Row:
    return base.fields(function, COLUMNS, CELLS)
