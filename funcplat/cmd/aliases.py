"""``funcplat alias ...``"""

from __future__ import annotations

import argparse
import urllib.parse
from collections.abc import Sequence
from typing import Any

from funcplat.cmd import base, client, failures, values

COLUMNS = (
    "name",
    "description",
    "function_id",
    "function_version",
    "routes",
    "project_id",
    "created_at",
    "updated_at",
    "id",
)
BRIEF = ("name", "function_id", "function_version", "routes", "updated_at")
CELLS: dict[str, base.Cell] = {"routes": values.structure}


class _Written(base.Show):
    """What create and update have in common: where the alias leads."""

    version_help = ""
    route_help = ""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = _with_alias(super().get_parser(prog_name))
        parser.add_argument("--version", type=values.version, metavar="VERSION", help=self.version_help)
        parser.add_argument(
            "--route",
            action="append",
            type=values.share,
            metavar="VERSION=WEIGHT",
            help=f"A version and its share of the calls; may be repeated. {self.route_help}",
        )
        parser.add_argument("--description")
        return parser

    def _fields(self, parsed_args: argparse.Namespace) -> client.Json:
        function = parsed_args.function
        given = {
            "function_id": None if function is None else base.find_id(self.client, "functions", function),
            "function_version": parsed_args.version,
            "routes": parsed_args.route,
            "description": parsed_args.description,
        }
        return {key: value for key, value in given.items() if value is not None}


class Create(_Written):
    """Give a name to a version of a function, or to several that share its calls."""

    version_help = "Its version; else 0, its own code, or with --route the first one."
    route_help = "One of them may be --version, as which clients that know no routes see it."

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--function", metavar="FUNCTION", required=True, help="Name or id.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """Names are unique in a project."""
        body = client.json_body({"name": parsed_args.alias, **self._fields(parsed_args)})
        return _shown(self.client.request("POST", "/v1/aliases", body=body).json())


class Update(_Written):
    """Lead an alias elsewhere: the next call goes there."""

    version_help = "All calls go to this version, where there is no --route."
    route_help = "They replace all that are set."

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--function", metavar="FUNCTION", help="Name or id.")
        parser.add_argument("--no-routes", action="store_true", help="All calls go to the main version.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """Send what is given."""
        fields = self._fields(parsed_args)
        if parsed_args.no_routes:
            fields.setdefault("routes", [])
        if not fields:
            raise failures.UsageFailure("nothing to change: see `funcplat alias update --help`")
        body = client.json_body(fields)
        return _shown(self.client.request("PUT", _path(parsed_args.alias), body=body).json())


class List(base.List):
    """List aliases."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_list_options(parser)
        parser.add_argument("--function", metavar="FUNCTION", help="That lead to this function: name or id.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Any]:
        """Those of the project, unless options say otherwise."""
        query = base.list_query(parsed_args)
        if parsed_args.function:
            query["function_id"] = base.find_id(self.client, "functions", parsed_args.function)
        answer = self.client.get("/v1/aliases", query).json()
        columns = COLUMNS if parsed_args.long else BRIEF
        return base.rows(answer.get("function_aliases", []), columns, CELLS)


class Show(base.Show):
    """Show an alias."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return _with_alias(super().get_parser(prog_name))

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """With the shares of its calls."""
        return _shown(self.client.get(_path(parsed_args.alias)).json())


class Delete(base.Command):
    """Delete aliases; the versions stay."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("aliases", metavar="ALIAS", nargs="+", help="Their names.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Delete each; go on where one fails."""
        return base.each(parsed_args.aliases, self._delete, self.application.complain)

    def _delete(self, name: str) -> None:
        self.client.request("DELETE", _path(name))
        self.say(f"alias {name} is deleted")


def _with_alias(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("alias", metavar="ALIAS", help="Its name.")
    return parser


def _path(name: str) -> str:
    return f"/v1/aliases/{urllib.parse.quote(name, safe='')}"


def _shown(alias: client.Json) -> base.Row:
    return base.fields(alias, COLUMNS, CELLS)
