"""``funcplat version ...``"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from funcplat.cmd import base, client, downloads, values, workers

COLUMNS = (
    "version_number",
    "description",
    "count",
    "created_at",
    "updated_at",
    "id",
    "function_id",
    "project_id",
)
BRIEF = ("version_number", "description", "count", "created_at")


class Create(base.Show):
    """Keep a function's present package as a version."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = base.with_function(super().get_parser(prog_name))
        parser.add_argument("--description")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """Under the next number."""
        path, _ = base.target(self.client, parsed_args)
        body = client.json_body({"description": parsed_args.description})
        return _shown(self.client.request("POST", f"{path}/versions", body=body).json())


class List(base.List):
    """List the versions of a function."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = base.with_function(super().get_parser(prog_name))
        base.add_list_options(parser, projects=False)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Any]:
        """By number."""
        path, _ = base.target(self.client, parsed_args)
        answer = self.client.get(f"{path}/versions", base.list_query(parsed_args)).json()
        columns = COLUMNS if parsed_args.long else BRIEF
        return base.rows(answer.get("function_versions", []), columns, {})


class Show(base.Show):
    """Show a version of a function."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return base.with_version(super().get_parser(prog_name))

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """With how often it was called."""
        path, _ = base.target(self.client, parsed_args)
        return _shown(self.client.get(path).json())


class Delete(base.Command):
    """Delete versions of a function; their numbers are not given again."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = base.with_function(super().get_parser(prog_name))
        parser.add_argument(
            "numbers", metavar="VERSION", nargs="+", type=values.version, help="Their numbers."
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Delete each; go on where one fails."""
        path, name = base.target(self.client, parsed_args)

        def delete(number: str) -> None:
            self.client.request("DELETE", f"{path}/versions/{number}")
            self.say(f"version {number} of {name} is deleted")

        return base.each([str(number) for number in parsed_args.numbers], delete, self.application.complain)


class Download(downloads.Download):
    """Download the package of a version."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return base.with_version_of(super().get_parser(prog_name))


class Detach(workers.Detach):
    """Stop a version's workers; the next call starts a fresh one (administrators only)."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return base.with_version_of(super().get_parser(prog_name))


class ScaleUp(workers.ScaleUp):
    """Start more workers for a version (administrators only)."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return base.with_version_of(super().get_parser(prog_name))


class ScaleDown(workers.ScaleDown):
    """Stop some of a version's workers, all but one at most (administrators only)."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return base.with_version_of(super().get_parser(prog_name))


def _shown(version: client.Json) -> base.Row:
    return base.fields(version, COLUMNS, {})
