"""What the commands have in common: the server they speak to, tables and formats, names and ids."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from cliff import command, lister, show

from funcplat.cmd import client, failures, values

if TYPE_CHECKING:
    from cliff.formatters import base as formatters

    from funcplat.cmd import main

Row = tuple[Sequence[str], Sequence[Any]]
FormatterT = TypeVar("FormatterT")

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

Cell = Callable[[Any], Any]
"""Makes what a table shows of a value of the wire."""


class Command(command.Command):
    """A command that speaks to a server."""

    epilog = ""  # what stands below the help

    # PERF(start): cliff looks for hooks and for the distribution of each command among the entry
    # points of everything installed, 0.1 s; nobody extends these commands that way.
    def _load_hooks(self) -> None:
        self._hooks = []

    def get_epilog(self) -> str:
        return self.epilog

    @property
    def application(self) -> main.Application:
        return cast("main.Application", self.app)

    @property
    def client(self) -> client.Client:
        """The connection to the server that the command line names."""
        return self.application.client

    def say(self, message: str) -> None:
        """A line for people, on standard error; none with --quiet."""
        if self.application.options.verbose_level:
            self.application.stderr.write(f"{message}\n")
            self.application.stderr.flush()


class Formatters(Mapping[str, Any]):
    """The output formats: what cliff finds through entry points, named here.

    # PERF(start): a scan of the entry points of everything installed costs more than all else.
    """

    def __init__(self, plugins: Mapping[str, formatters.Formatter]) -> None:
        self._plugins = {name: _Plugin(plugin) for name, plugin in plugins.items()}

    def __getitem__(self, name: str) -> _Plugin:
        return self._plugins[name]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._plugins.values())  # as stevedore's managers do

    def __len__(self) -> int:
        return len(self._plugins)

    def names(self) -> list[str]:
        return list(self._plugins)


class _Plugin:
    def __init__(self, plugin: formatters.Formatter) -> None:
        self.obj = plugin


class List(Command, lister.Lister):
    """A command whose output is a table."""

    def _load_formatter_plugins(self) -> Any:
        from cliff.formatters import commaseparated, json_format, table, value, yaml_format

        return Formatters(
            {
                "csv": commaseparated.CSVLister(),
                "json": json_format.JSONFormatter(),
                "table": table.TableFormatter(),
                "value": value.ValueFormatter(),
                "yaml": yaml_format.YAMLFormatter(),
            }
        )


class Show(Command, show.ShowOne):
    """A command whose output is the fields of one thing."""

    def _load_formatter_plugins(self) -> Any:
        from cliff.formatters import json_format, shell, table, value, yaml_format

        return Formatters(
            {
                "json": json_format.JSONFormatter(),
                "shell": shell.ShellFormatter(),
                "table": table.TableFormatter(),
                "value": value.ValueFormatter(),
                "yaml": yaml_format.YAMLFormatter(),
            }
        )


def rows(
    things: Sequence[client.Json], columns: Sequence[str], cells: Mapping[str, Cell]
) -> tuple[Sequence[str], list[tuple[Any, ...]]]:
    """The table of ``things`` with ``columns``."""
    return columns, [
        tuple(cells.get(column, _same)(thing.get(column)) for column in columns) for thing in things
    ]


def fields(thing: client.Json, columns: Sequence[str], cells: Mapping[str, Cell]) -> Row:
    """The fields of ``thing``: ``columns`` first, then whatever else the server says of it."""
    names = [*columns, *(name for name in thing if name not in columns)]
    return names, [cells.get(name, _same)(thing.get(name)) for name in names]


def reason(thing: client.Json) -> tuple[str, str]:
    """Why a runtime or an execution is as it is: a sentence and a code, both empty where it is not said."""
    found = thing.get("reason")
    if not isinstance(found, dict):
        return "", ""
    return str(found.get("message") or ""), str(found.get("code") or "")


def _same(value: Any) -> Any:
    return values.Structure(None) if value is None else value


# -- lists --------------------------------------------------------------------------------------------


def add_list_options(parser: argparse.ArgumentParser, projects: bool = True) -> None:
    """The options of every list: pages, and whose things."""
    parser.add_argument("--limit", type=int, metavar="N", help="Show at most N.")
    parser.add_argument("--marker", metavar="ID", help="Begin after the one with this id.")
    parser.add_argument("--long", action="store_true", help="Show all columns.")
    if projects:
        parser.add_argument(
            "--all-projects", action="store_true", help="Show those of all projects (administrators only)."
        )
        parser.add_argument(
            "--project", metavar="ID", help="Show those of this project (administrators only)."
        )


def list_query(parsed_args: argparse.Namespace) -> dict[str, Any]:
    """The query that belongs to `add_list_options`."""
    return {
        "limit": parsed_args.limit,
        "marker": parsed_args.marker,
        "all_projects": "true" if getattr(parsed_args, "all_projects", False) else None,
        "project_id": getattr(parsed_args, "project", None),
    }


# -- names and ids ------------------------------------------------------------------------------------


def with_function(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """``parser`` with a function as its positional argument."""
    parser.add_argument("function", metavar="FUNCTION", help="Name or id.")
    return parser


def with_version(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """``parser`` with a function and the number of its version as its positional arguments."""
    return with_version_of(with_function(parser))


def with_version_of(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """``parser``, which has a function, with the number of its version after it."""
    parser.add_argument("version", metavar="VERSION", type=values.version, help="Its number.")
    return parser


def target(connection: client.Client, parsed_args: argparse.Namespace) -> tuple[str, str]:
    """The path of the function, or of its version where the command has one, and what people call it."""
    path = f"/v1/functions/{find_id(connection, 'functions', parsed_args.function)}"
    number = getattr(parsed_args, "version", None)
    if number is None:
        return path, parsed_args.function
    return f"{path}/versions/{number}", f"version {number} of {parsed_args.function}"


def is_id(reference: str) -> bool:
    """Whether ``reference`` is an id: a UUID.  Everything else is a name."""
    return _UUID.fullmatch(reference) is not None


def find(connection: client.Client, collection: str, reference: str) -> client.Json:
    """The function or runtime with this id, else with this name, else the runtime of this image.

    ``collection``: ``functions`` or ``runtimes``.  Raises NotFoundFailure for none and
    UsageFailure, with the ids, for several.
    """
    if is_id(reference):
        return cast(client.Json, connection.get(f"/v1/{collection}/{reference}").json())
    return _named(connection, collection, reference)


def find_id(connection: client.Client, collection: str, reference: str) -> str:
    """Like `find` where only the id matters; an id is not looked up."""
    return reference if is_id(reference) else str(_named(connection, collection, reference)["id"])


def _named(connection: client.Client, collection: str, name: str) -> client.Json:
    noun = collection.removesuffix("s")
    things = connection.get(f"/v1/{collection}").json().get(collection, [])
    found = [thing for thing in things if thing.get("name") == name]
    if not found and collection == "runtimes":  # most have no name
        found = [thing for thing in things if thing.get("image") == name]
    if not found:
        raise failures.NotFoundFailure(f"no {noun} is named {name!r}; see `funcplat {noun} list`")
    if len(found) > 1:
        ids = ", ".join(thing["id"] for thing in found)
        raise failures.UsageFailure(f"{len(found)} {collection} are named {name!r}; use an id: {ids}")
    return cast(client.Json, found[0])


def each(references: Sequence[str], action: Callable[[str], None], complain: Callable[[str], None]) -> int:
    """Do ``action`` to each; a failure is complained of and does not keep it from the others.

    The exit code: 0, or that of the first failure.
    """
    codes = []
    for reference in references:
        try:
            action(reference)
        except failures.ConnectionFailure:
            raise
        except failures.Failure as failure:
            complain(f"{reference}: {failure}")
            codes.append(failure.exit_code)
    return codes[0] if codes else 0
