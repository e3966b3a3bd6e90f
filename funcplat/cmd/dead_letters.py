"""``funcplat dead-letter ...``: executions that the platform has given up."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, ClassVar

from funcplat.cmd import base, client, executions, failures

BRIEF = ("id", "function_id", "status", "reason", "attempts", "created_at", "updated_at")


class List(base.List):
    """List the executions that the platform has given up."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_list_options(parser)
        parser.add_argument("--function", metavar="FUNCTION", help="Of this function: name or id.")
        parser.add_argument("--status", help="In this state: failed or error.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Any]:
        """Those of the project, unless options say otherwise."""
        query = {**base.list_query(parsed_args), "status": parsed_args.status}
        if parsed_args.function:
            query["function_id"] = base.find_id(self.client, "functions", parsed_args.function)
        answer = self.client.get("/v1/dead_letters", query).json()
        columns = executions.COLUMNS if parsed_args.long else BRIEF
        return base.rows(answer.get("dead_letters", []), columns, executions.CELLS)


class _Many(base.Command):
    """Does something to many."""

    verb: ClassVar[str]
    counted: ClassVar[str]  # the field of the answer

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--reason", metavar="CODE", help="Those that ended for this reason.")
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--function", metavar="FUNCTION", help="Those of this function: name or id.")
        which.add_argument("--all", action="store_true", help="Those of the whole project.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Print how many it were."""
        if not (parsed_args.all or parsed_args.function or parsed_args.reason):
            raise failures.UsageFailure("say which: --function FUNCTION, --reason CODE or --all")
        body: dict[str, Any] = {}
        if parsed_args.function:
            body["function_id"] = base.find_id(self.client, "functions", parsed_args.function)
        if parsed_args.reason:
            body["reason"] = parsed_args.reason
        path = f"/v1/dead_letters/{self.verb}"
        answer = self.client.request("POST", path, body=client.json_body(body)).json()
        self.application.stdout.write(f"{answer[self.counted]}\n")
        return 0


class Redrive(_Many):
    """Queue dead letters again."""

    verb, counted = "redrive", "redriven"


class Purge(_Many):
    """Delete dead letters with their executions."""

    verb, counted = "purge", "purged"
