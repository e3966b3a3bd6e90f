"""``funcplat worker ...``, and what is done to the workers of a function."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from funcplat.cmd import base, client, values

COLUMNS = ("worker_name", "function_id", "function_version", "state", "reason", "created_at", "updated_at")
CELLS: dict[str, base.Cell] = {"reason": values.structure}


class List(base.List):
    """List the workers of a function (administrators only)."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return base.with_function(super().get_parser(prog_name))

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Any]:
        """With all that the server says of them."""
        function_id = base.find_id(self.client, "functions", parsed_args.function)
        workers = self.client.get(f"/v1/functions/{function_id}/workers").json().get("workers", [])
        more = sorted({name for worker in workers for name in worker} - set(COLUMNS) - {"id"})
        return base.rows(workers, (*COLUMNS, *more), CELLS)


class Detach(base.Command):
    """Stop a function's workers; the next call starts a fresh one (administrators only)."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return base.with_function(super().get_parser(prog_name))

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """The server does it in the background."""
        function_id = base.find_id(self.client, "functions", parsed_args.function)
        self.client.request("POST", f"/v1/functions/{function_id}/detach")
        self.say(f"the workers of {parsed_args.function} are being stopped")
        return 0


class _Scale(base.Command):
    direction = ""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = base.with_function(super().get_parser(prog_name))
        parser.add_argument(
            "--count", type=values.count, default=1, metavar="N", help="How many workers; else 1."
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """The server does it in the background."""
        function_id = base.find_id(self.client, "functions", parsed_args.function)
        path = f"/v1/functions/{function_id}/scale_{self.direction}"
        self.client.request("POST", path, body=client.json_body({"count": parsed_args.count}))
        self.say(
            f"scaling {parsed_args.function} {self.direction}; "
            f"see `funcplat worker list {parsed_args.function}`"
        )
        return 0


class ScaleUp(_Scale):
    """Start more workers for a function (administrators only)."""

    direction = "up"


class ScaleDown(_Scale):
    """Stop some of a function's workers, all but one at most (administrators only)."""

    direction = "down"
