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
        parser = base.with_function(super().get_parser(prog_name))
        parser.add_argument(
            "--version",
            dest="number",
            type=values.version,
            metavar="VERSION",
            help="Of this version; else 0.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Any]:
        """With all that the server says of them."""
        path, _ = base.target(self.client, parsed_args)
        query = {"function_version": parsed_args.number}
        workers = self.client.get(f"{path}/workers", query).json().get("workers", [])
        more = sorted({name for worker in workers for name in worker} - set(COLUMNS) - {"id"})
        return base.rows(workers, (*COLUMNS, *more), CELLS)


class Detach(base.Command):
    """Stop a function's workers; the next call starts a fresh one (administrators only)."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return base.with_function(super().get_parser(prog_name))

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """The server does it in the background."""
        path, name = base.target(self.client, parsed_args)
        self.client.request("POST", f"{path}/detach")
        self.say(f"the workers of {name} are being stopped")
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
        path, name = base.target(self.client, parsed_args)
        body = client.json_body({"count": parsed_args.count})
        self.client.request("POST", f"{path}/scale_{self.direction}", body=body)
        self.say(f"scaling {name} {self.direction}; see `funcplat worker list {parsed_args.function}`")
        return 0


class ScaleUp(_Scale):
    """Start more workers for a function (administrators only)."""

    direction = "up"


class ScaleDown(_Scale):
    """Stop some of a function's workers, all but one at most (administrators only)."""

    direction = "down"
